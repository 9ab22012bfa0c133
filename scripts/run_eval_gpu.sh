#!/usr/bin/env bash
# Evaluates a checkpoint.
#   bash scripts/run_eval_gpu.sh DATASET CHECKPOINT_PATH DEVICE_ID CONFIG_PATH [--key=value ...]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/arguments.sh"
at_least 4 "$@"
options=(--device_target=GPU --dataset="$1" --checkpoint_file_path="$2" --device_id="$3" --config_path="$4")
shift 4
exec "$(bash "$root/scripts/python.sh")" "$root/eval.py" "${options[@]}" "$@"
