#!/usr/bin/env bash
# Trains data-parallel on DEVICE_NUM devices with mpirun, in the foreground; nohup bash scripts/... & for the background.
#   bash scripts/run_distribute_train_gpu.sh DEVICE_NUM EPOCH_SIZE LR DATASET CONFIG_PATH [PRE_TRAINED] [PRE_TRAINED_EPOCH_SIZE] [--key=value ...]
#   HOSTFILE=hosts bash scripts/run_distribute_train_gpu.sh ...      on several machines: a line 'NAME slots=DEVICES' for each
# Each process also writes to <output_path>/ranks/rank_N.log. Ctrl-C, SIGTERM and SIGUSR1 save the state of the run before it ends (exit 130).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/arguments.sh"
at_least 5 "$@"
count=$1
[[ $count =~ ^[1-9][0-9]*$ ]] || fail 2 "DEVICE_NUM '$count' must be a whole number above 0"
options=(--device_target=GPU --run_distribute=True --device_num="$1" --epoch_size="$2" --lr="$3" --dataset="$4" --config_path="$5")
shift 5
optional "pre_trained pre_trained_epoch_size" "$@"
python=$(bash "$root/scripts/python.sh")
PATH=$(dirname "$python"):$PATH
command -v mpirun >/dev/null || fail 4 "mpirun was not found; 'bash scripts/setup_env.sh' installs it with the other packages"

output=./output
for word in "${rest[@]}"; do
    case $word in --output_path=*) output=${word#*=} ;; esac
done
case $output in "~"*) output=$("$python" -c 'import os, sys; print(os.path.expanduser(sys.argv[1]))' "$output") ;; esac
# mpirun binds each rank to one core unless told not to, which starves the data loader
launch=(mpirun --allow-run-as-root --bind-to none -n "$count")
if [ -n "${HOSTFILE:-}" ]; then
    [ -f "$HOSTFILE" ] || fail 2 "HOSTFILE '$HOSTFILE' is not a file"
    launch+=(--hostfile "$HOSTFILE")
    # the other machines do not know the variables of this shell
    for name in PATH PYTHONPATH LD_LIBRARY_PATH CUDA_HOME CUDA_CACHE_PATH GLOG_v ONEDNN_MAX_CPU_ISA OMP_NUM_THREADS NCCL_DEBUG \
        NCCL_SOCKET_IFNAME NCCL_IB_DISABLE NCCL_IB_HCA; do
        if [ -n "${!name:-}" ]; then launch+=(-x "$name"); fi
    done
else
    launch+=(--oversubscribe)
fi

# a log a rank beside the terminal; mpirun's own --output shows nothing there, or fails (Open MPI 5.0.11)
rank='mkdir -p "$0" || exit 4; log=$0/rank_$OMPI_COMM_WORLD_RANK.log
exec "$@" > >(trap "" INT TERM USR1; exec tee -a "$log") 2> >(trap "" INT TERM USR1; exec tee -a "$log" >&2)'
# mpirun kills at SIGINT and SIGTERM before anything is saved, but hands SIGUSR1 on to the ranks, which save and end
setsid "${launch[@]}" bash -c "$rank" "$output/ranks" "$python" "$root/train.py" "${options[@]}" "${rest[@]}" </dev/null &
job=$!
trap 'kill -USR1 "$job" 2>/dev/null || true' INT TERM HUP USR1
code=0
wait "$job" || code=$?
while kill -0 "$job" 2>/dev/null; do  # a trap ends a wait, not the job
    code=0
    wait "$job" || code=$?
done
exit "$code"
