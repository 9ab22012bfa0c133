#!/usr/bin/env bash
# Exports a checkpoint.
#   bash scripts/run_export.sh CHECKPOINT_PATH [FILE_FORMAT] [FILE_NAME] [--key=value ...]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/arguments.sh"
at_least 1 "$@"
case $1 in
    *.yaml | *.yml) fail 2 "'$1' is a recipe, the first argument is a checkpoint, which needs none; add --config_path=$1 for one of the model zoo" ;;
esac
options=(--checkpoint_file_path="$1")
shift
optional "file_format file_name" "$@"
exec "$(bash "$root/scripts/python.sh")" "$root/export.py" "${options[@]}" "${rest[@]}"
