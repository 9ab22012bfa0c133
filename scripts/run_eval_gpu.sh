#!/usr/bin/env bash
# Evaluates a checkpoint.
#   bash scripts/run_eval_gpu.sh DATASET CHECKPOINT_PATH DEVICE_ID CONFIG_PATH [--key=value ...]
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n 's/^#   //p' "$0" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
options=(--device_target=GPU --dataset="$1" --checkpoint_file_path="$2" --device_id="$3" --config_path="$4")
shift 4
exec "$(bash "$root/scripts/python.sh")" "$root/eval.py" "${options[@]}" "$@"
