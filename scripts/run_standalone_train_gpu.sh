#!/usr/bin/env bash
# Trains on one device.
#   bash scripts/run_standalone_train_gpu.sh DEVICE_ID EPOCH_SIZE LR DATASET CONFIG_PATH [PRE_TRAINED] [PRE_TRAINED_EPOCH_SIZE] [--key=value ...]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/arguments.sh"
at_least 5 "$@"
options=(--device_target=GPU --device_id="$1" --epoch_size="$2" --lr="$3" --dataset="$4" --config_path="$5")
shift 5
optional "pre_trained pre_trained_epoch_size" "$@"
# a --device_target=CPU at the end of the line overrides the one above
exec "$(bash "$root/scripts/python.sh")" "$root/train.py" "${options[@]}" "${rest[@]}"
