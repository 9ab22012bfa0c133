"""The curves of one run or more: losses, learning rate, gradient norm, speed and AP.

    python scripts/plot_log.py RUN [RUN ..] [--output=FOLDER] [--over=minutes]

Prints each series as a line with its first, best and last value and a curve. FOLDER gets curves.png and curves.html, a
page that opens without a network.
"""
from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.arguments import ArgumentParser
from src.errors import run_main
from src.files import expand_home, output_folder
from src.training.history import AXES, SCORES, TITLES, Run, align, known_series, read_runs, save_charts
from src.training.panel import curve


def main() -> None:
    """Reads the runs, prints and draws their curves."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("runs", nargs="+", type=expand_home, metavar="RUN", help="folder of a run")
    parser.add_argument("--output", type=expand_home, help="folder for curves.png and curves.html; without: text only")
    parser.add_argument("--over", choices=AXES, default="epoch", help="what the curves go over")
    arguments = parser.parse_args()
    runs = read_runs(arguments.runs)
    names = known_series(runs, list(TITLES))
    print(align([("", "points", "first", "best", "last", ""), *(row for run in runs for row in rows_of(run, names))]))
    if not arguments.output:
        return
    with output_folder(arguments.output):
        files = save_charts(os.path.join(arguments.output, "curves"), runs, names, axis=arguments.over,
                            title=f"Curves of {', '.join(run.name for run in runs)}")
    print(f"wrote {' and '.join(files)}")


def rows_of(run: Run, names: list[str]) -> list[tuple[str, ...]]:
    """The series of a run as rows of text: name, how many numbers, the first, best and last one, a curve of bars."""
    rows = []
    for name in names:
        values = [value for _, value in run.series(name)]
        if values:
            best = max(values) if name in SCORES or name == "images_per_second" else min(values)
            shown = "-" if name == "lr" else f"{best:.4g}"
            rows.append((f"{run.name}  {name}", f"{len(values)}", f"{values[0]:.4g}", shown, f"{values[-1]:.4g}",
                         curve(values)))
    return rows


if __name__ == "__main__":
    run_main(main)
