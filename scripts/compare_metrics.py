"""Prints the numbers of two metrics.json side by side; exit 1 when they differ or one is not finite.

    python scripts/compare_metrics.py run/eval/metrics.json mindir/eval/metrics.json
"""
from __future__ import annotations

import json
import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.arguments import ArgumentParser
from src.errors import DataError, run_main
from src.files import expand_home


def main() -> int:
    """Compares two files given on the command line -> exit code."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("files", nargs=2, type=expand_home, metavar="METRICS_JSON",
                        help="metrics.json of an evaluation")
    first, second = (read_numbers(path) for path in parser.parse_args().files)
    keys = {**first, **second}
    unequal = {key for key in keys if not (first.get(key) == second.get(key) and math.isfinite(keys[key]))}
    for key in keys:
        result = "DIFFERENT" if key in unequal else "equal"
        print(f"{key:<14}{as_cell(first.get(key))}{as_cell(second.get(key))}  {result}")
    return int(bool(unequal))


def as_cell(number: float | None) -> str:
    """A number as it stands in a column, - for none."""
    return f"{'-':>8}" if number is None else f"{number:8.4f}"


def read_numbers(path: str) -> dict[str, float]:
    """The overall numbers of a metrics.json, without those by class. Raises DataError."""
    try:
        with open(path, encoding="utf-8") as file:
            return {key: float(value) for key, value in json.load(file).items() if isinstance(value, (int, float))}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"'{path}' is not a metrics.json of eval.py: {' '.join(str(error).split())[:150]}") from error


if __name__ == "__main__":
    run_main(main)
