#!/usr/bin/env bash
# Runs the tests on the CPU, several at a time. Other arguments go to pytest, whose exit code is returned (2 for what pytest does not know).
#   bash scripts/run_tests.sh [ARGUMENT OF PYTEST ...]   without arguments: tests of every module, 5 minutes on two cores
#   bash scripts/run_tests.sh --all                      the slow ones too: what CI runs
#   bash scripts/run_tests.sh -m long                    trainings and faults of minutes each, which CI leaves out
#   bash scripts/run_tests.sh tests/test_metrics.py      one file
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/arguments.sh
help_wanted "${1:-}"
bash scripts/setup_env.sh requirements-dev.txt
# One file at a time goes to each worker, so that the tests of a file share what they prepared. A worker that crashes, as
# one does whose test hangs (tests/conftest.py), ends the run: a new one would begin with the same test.
cores=$(nproc)
workers=(-n "$((cores < 4 ? cores : 4))" --dist loadfile --max-worker-restart 0)
case ${1:-} in
    "") set -- "${workers[@]}" ;;
    --all) shift; set -- "${workers[@]}" -m "not long" "$@" ;;
esac
code=0
.venv/bin/python -m pytest "$@" || code=$?
if [ "$code" = 4 ]; then code=2; fi  # pytest's code for a wrong command line
exit "$code"
