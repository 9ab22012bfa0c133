#!/usr/bin/env bash
# Runs the tests on the CPU; what is typed goes to pytest, whose exit code is returned (2 for what pytest does not know).
#   bash scripts/run_tests.sh [ARGUMENT OF PYTEST ...]
#   bash scripts/run_tests.sh -m slow                    the slow tests alone
#   bash scripts/run_tests.sh tests/test_metrics.py      one file
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/arguments.sh
help_wanted "${1:-}"
bash scripts/setup_env.sh requirements-dev.txt
code=0
.venv/bin/python -m pytest "$@" || code=$?
if [ "$code" = 4 ]; then code=2; fi  # pytest's code for a wrong command line
exit "$code"
