#!/usr/bin/env bash
# Checks training, evaluation and export on a GPU against this machine's CPU, in some minutes, with data it draws itself.
#   bash scripts/gpu_check.sh [OUTPUT_FOLDER]
# prints a table and writes it with card, driver and date to OUTPUT_FOLDER/gpu_check.log: attach that file to a report (docs/gpu.md).
# The file has each row as soon as it is known. Exit 0: all is well, 1: a part FAILED, 2: OUTPUT_FOLDER exists, 4: the device does
# not start. DEVICE=CPU QUICK=1 tries the script itself on a machine without a card.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/arguments.sh"
at_most 1 "$@"
device=${DEVICE:-GPU}
if [ -z "${PYTHON:-}" ]; then
    if [ "$device" = GPU ]; then list=requirements-gpu.txt; else list=requirements.txt; fi
    bash "$root/scripts/setup_env.sh" "$list"
fi
python=$(bash "$root/scripts/python.sh")
exec "$python" "$root/scripts/gpu_check.py" --device="$device" ${QUICK:+--quick} "${1:-gpu_check-$(date +%Y%m%d-%H%M%S)}"
