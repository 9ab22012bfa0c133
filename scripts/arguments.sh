# Sourced by the other scripts: how they read the command line. --help prints the comment at the head of a script; an
# unknown word ends it with exit 2 and one line. The launch scripts turn their positional arguments, which are those of
# the model zoo, into options of the programs.
#   . scripts/arguments.sh

# Ends the script with a code and an error of one line.
fail() { echo "error: ${*:2}" >&2; exit "$1"; }

# Prints the comment at the head of the script and ends it when WORD asks for that.
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

# For a script of positional arguments: ends it unless at most MAX words came, none of them an option.
at_most() {  # MAX WORD ...
    local max=$1 word
    shift
    for word in "$@"; do
        help_wanted "$word"
        [[ $word != -* ]] || fail 2 "'$word' is not an option of this script; usage: $(usage)"
    done
    [ $# -le "$max" ] || fail 2 "$# arguments came, at most $max allowed; usage: $(usage)"
}

# For a script that passes further words on to a program: ends it unless MIN words came, none of these an option.
at_least() {  # MIN WORD ...
    local min=$1 word
    shift
    help_wanted "${1:-}"
    for word in "${@:1:min}"; do
        [[ $word != --* ]] || fail 2 "'$word' came in place of an argument; usage: $(usage)"
    done
    [ $# -ge "$min" ] || fail 2 "$# argument(s) came, at least $min needed; usage: $(usage)"
}

# Appends --NAME=WORD to `options` for each word before the first --key=value, as far as there are names; `rest` are the others.
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
