"""Prints the numbers of two metrics.json side by side; exit 1 when they differ or one is not finite.

    python scripts/compare_metrics.py run/eval/metrics.json mindir/eval/metrics.json
"""
import json
import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.arguments import ArgumentParser
from src.errors import DataError, run_main
from src.files import expand_home


def main():
    """Reads two files given on the command line."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("files", nargs=2, type=expand_home, metavar="METRICS_JSON",
                        help="metrics.json of an evaluation")
    first, second = (read_numbers(path) for path in parser.parse_args().files)
    keys = {**first, **second}
    unequal = {key for key in keys if not (first.get(key) == second.get(key) and math.isfinite(keys[key]))}
    for key in keys:
        one, other = (f"{numbers[key]:8.4f}" if key in numbers else f"{'-':>8}" for numbers in (first, second))
        print(f"{key:<14}{one}{other}  {'DIFFERENT' if key in unequal else 'equal'}")
    return int(bool(unequal))


def read_numbers(path):
    """The overall numbers of a metrics.json, without those by class. Raises DataError."""
    try:
        with open(path, encoding="utf-8") as file:
            return {key: float(value) for key, value in json.load(file).items() if isinstance(value, (int, float))}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"'{path}' is not a metrics.json of eval.py: {' '.join(str(error).split())[:150]}") from error


if __name__ == "__main__":
    run_main(main)
