"""Prints the numbers of two metrics.json side by side; exit 1 when they differ or one is not finite.

    python scripts/compare_metrics.py run/eval/metrics.json mindir/eval/metrics.json
"""
import json
import math
import os
import sys


def main():
    """Reads two files given on the command line."""
    first, second = (read_numbers(os.path.expanduser(path)) for path in sys.argv[1:3])
    unequal = {key for key, value in first.items() if not (value == second.get(key) and math.isfinite(value))}
    for key, value in first.items():
        print(f"{key:<14}{value:8.4f}{second.get(key, math.nan):8.4f}  {'DIFFERENT' if key in unequal else 'equal'}")
    return int(bool(unequal) or first.keys() != second.keys())


def read_numbers(path):
    """The overall numbers of a metrics.json, without those by class."""
    with open(path, encoding="utf-8") as file:
        return {key: value for key, value in json.load(file).items() if not isinstance(value, dict)}


if __name__ == "__main__":
    sys.exit(main())
