"""Prints the numbers of two metrics.json side by side; exit 1 when they differ.

    python scripts/compare_metrics.py run/eval/metrics.json mindir/eval/metrics.json
"""
import json
import os
import sys


def main():
    """Reads two files given on the command line."""
    first, second = (read_numbers(os.path.expanduser(path)) for path in sys.argv[1:3])
    for key, value in first.items():
        print(f"{key:<14}{value:8.4f}{second[key]:8.4f}  {'equal' if value == second[key] else 'DIFFERENT'}")
    return int(first != second)


def read_numbers(path):
    """The overall numbers of a metrics.json, without those by class."""
    with open(path, encoding="utf-8") as file:
        return {key: value for key, value in json.load(file).items() if not isinstance(value, dict)}


if __name__ == "__main__":
    sys.exit(main())
