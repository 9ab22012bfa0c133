#!/usr/bin/env bash
# Exports a checkpoint.
#   bash scripts/run_export.sh CHECKPOINT_PATH [FILE_FORMAT] [FILE_NAME] [--key=value ...]
set -euo pipefail
if [ $# -lt 1 ]; then
    sed -n 's/^#   //p' "$0" >&2
    exit 2
fi
case $1 in
    *.yaml | *.yml) echo "error: '$1' is a recipe, the first argument is a checkpoint, which needs none; add --config_path=$1 for one of the model zoo" >&2; exit 2 ;;
esac
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
options=(--checkpoint_file_path="$1")
shift
for name in file_format file_name; do
    if [ $# -gt 0 ] && [[ $1 != --* ]]; then
        options+=("--$name=$1")
        shift
    fi
done
exec "$(bash "$root/scripts/python.sh")" "$root/export.py" "${options[@]}" "$@"
