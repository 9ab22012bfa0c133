#!/usr/bin/env bash
# Prints the Python the launch scripts use: $PYTHON, else that of .venv, else the one on the path.
#   bash scripts/python.sh
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/arguments.sh"
at_most 0 "$@"
for candidate in "${PYTHON:-}" "$root/.venv/bin/python" "$(command -v python3 || true)"; do
    if [ -n "$candidate" ] && [ -x "$(command -v "$candidate")" ]; then
        echo "$candidate"
        exit 0
    fi
done
fail 4 "no Python found; run 'bash scripts/setup_env.sh' first"
