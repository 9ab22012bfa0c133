# Sourced by the launch scripts: their positional arguments, as the model zoo has them, become options.

# Ends with a code and an error of one line.
fail() { echo "error: ${*:2}" >&2; exit "$1"; }

# Ends with the usage of the script (its comment lines that are indented) unless COUNT arguments of LEAST are there.
at_least() {  # LEAST COUNT
    if [ "$2" -lt "$1" ]; then
        echo "error: $2 arguments came, at least $1 are needed:" >&2
        sed -n 's/^#   //p' "$0" >&2
        exit 2
    fi
}

# Appends --NAME=WORD to `options` for as many of "NAME NAME" as there are words before the first --key=value; `rest` are the others.
optional() {  # "NAME ..." WORD ...
    local name names=$1
    shift
    for name in $names; do
        if [ $# -gt 0 ] && [[ $1 != --* ]]; then
            options+=("--$name=$1")
            shift
        fi
    done
    rest=("$@")
}
