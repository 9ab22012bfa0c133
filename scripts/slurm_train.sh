#!/usr/bin/env bash
#SBATCH --job-name=ssd
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%j.log
#SBATCH --signal=B:USR1@300
# Trains on the machines of a Slurm job. Five minutes before its time is over it saves the state (exit 130); --resume=True continues.
#   sbatch scripts/slurm_train.sh EPOCH_SIZE LR DATASET CONFIG_PATH [--key=value ...]
set -euo pipefail
# Slurm runs a copy of this file: the repository is where sbatch was typed
root=${SSD_ROOT:-${SLURM_SUBMIT_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}}
if [ ! -f "$root/scripts/arguments.sh" ]; then
    echo "error: '$root' is not this repository; type sbatch there, or name it: SSD_ROOT=/path/to/it" >&2
    exit 2
fi
. "$root/scripts/arguments.sh"
at_least 4 "$@"
if [ -n "${SLURM_JOB_NODELIST:-}" ]; then
    HOSTFILE=$(mktemp "$PWD/hosts-${SLURM_JOB_ID:-0}-XXXX")
    export HOSTFILE
    scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/\$/ slots=${SLURM_NTASKS_PER_NODE:-1}/" > "$HOSTFILE"
fi
# exec: the signals of Slurm go to this process
exec bash "$root/scripts/run_distribute_train_gpu.sh" "${SLURM_NTASKS:-1}" "$@"
