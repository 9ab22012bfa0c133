#!/usr/bin/env bash
# Trains data-parallel on DEVICE_NUM devices of this machine with mpirun.
#   bash scripts/run_distribute_train_gpu.sh DEVICE_NUM EPOCH_SIZE LR DATASET CONFIG_PATH [PRE_TRAINED] [PRE_TRAINED_EPOCH_SIZE] [--key=value ...]
set -euo pipefail
if [ $# -lt 5 ]; then
    sed -n 's/^#   //p' "$0" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
count=$1
options=(--run_distribute=True --device_num="$1" --epoch_size="$2" --lr="$3" --dataset="$4" --config_path="$5")
shift 5
for name in pre_trained pre_trained_epoch_size; do
    if [ $# -gt 0 ] && [[ $1 != --* ]]; then
        options+=("--$name=$1")
        shift
    fi
done
python=$(bash "$root/scripts/python.sh")
PATH=$(dirname "$python"):$PATH
if ! command -v mpirun >/dev/null; then
    echo "error: mpirun was not found; 'bash scripts/setup_env.sh' installs it with the other packages" >&2
    exit 4
fi
# mpirun binds each rank to one core unless told not to, which starves the data loader
exec mpirun --allow-run-as-root --oversubscribe --bind-to none -n "$count" "$python" "$root/train.py" "${options[@]}" "$@"
