#!/usr/bin/env bash
# Runs the tests; arguments go to pytest: bash scripts/run_tests.sh -m slow, bash scripts/run_tests.sh tests/test_metrics.py
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup_env.sh requirements-dev.txt
exec .venv/bin/python -m pytest "$@"
