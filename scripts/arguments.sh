# Sourced by the other scripts: how they take words from the command line. --help prints the comment at the head of a
# script; a word it does not know ends it with exit 2 and one line. The launch scripts turn their positional arguments,
# as the model zoo has them, into options of the programs.
#   . scripts/arguments.sh

# Ends with a code and an error of one line.
fail() { echo "error: ${*:2}" >&2; exit "$1"; }

# Ends with the comment at the head of the script when WORD asks for it.
help_wanted() {  # [WORD]
    case ${1:-} in
        -h | --help)
            sed -n '/^#/!q; /^#!/d; /^#SBATCH/d; s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
    esac
}

# The first usage line of the script: the first comment line that is indented.
usage() { sed -n '/^#   / { s///; s/   .*//; p; q; }' "$0"; }

# For a script of positional arguments: ends unless at most MOST words came, none of them an option.
at_most() {  # MOST WORD ...
    local most=$1 word
    shift
    for word in "$@"; do
        help_wanted "$word"
        [[ $word != -* ]] || fail 2 "'$word' is not an option of this script; usage: $(usage)"
    done
    [ $# -le "$most" ] || fail 2 "$# arguments came, at most $most allowed; usage: $(usage)"
}

# For a script that hands further words on to a program: ends unless LEAST words came, none of these an option.
at_least() {  # LEAST WORD ...
    local least=$1 word
    shift
    help_wanted "${1:-}"
    for word in "${@:1:least}"; do
        [[ $word != --* ]] || fail 2 "'$word' came in place of an argument; usage: $(usage)"
    done
    [ $# -ge "$least" ] || fail 2 "$# argument(s) came, at least $least needed; usage: $(usage)"
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

if [ "$0" = "${BASH_SOURCE[0]}" ]; then at_most 0 "$@"; fi
