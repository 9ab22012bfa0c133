"""Runs side by side: their scores, their time, the options in which they differ, and their curves.

    python scripts/compare_runs.py RUN RUN [RUN ..] [--output=FOLDER] [--over=minutes]

Prints the tables. FOLDER gets comparison.txt, comparison.png with the curves, and comparison.html, a page that opens
without a network. The scores are the best of each run; a run that eval.py has measured has those too.
"""
from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.arguments import ArgumentParser
from src.errors import OptionError, run_main
from src.files import expand_home, output_folder, write_atomic
from src.progress import duration
from src.training.history import (
    AXES,
    SCORES,
    Run,
    align,
    differing_options,
    known_series,
    read_runs,
    save_charts,
)

CURVES = ("loss", "lr", *SCORES)
FACTS = {"model": "model", "image_size": "image size", "parameters": "parameters", "train_images": "images",
         "batch": "batch", "device": "device", "mindspore": "MindSpore", "commit": "commit", "time": "started"}


def main() -> None:
    """Reads the runs, prints and draws how they differ."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("runs", nargs="+", type=expand_home, metavar="RUN", help="folder of a run")
    parser.add_argument("--output", type=expand_home, help="folder for text, picture and page; without it only text")
    parser.add_argument("--over", choices=AXES, default="epoch", help="what the curves go over")
    arguments = parser.parse_args()
    if len(arguments.runs) < 2:
        raise OptionError("compare_runs.py takes two runs or more; scripts/plot_log.py draws one")
    runs = read_runs(arguments.runs)
    head = ["", *(run.name for run in runs)]
    tables = [("Results", head, results(runs)), ("Options that differ", head, options_of(runs)),
              ("What was trained", head, facts_of(runs))]
    text = "\n\n".join(f"{title}\n{align([columns, *rows])}" for title, columns, rows in tables if rows)
    print(text)
    if not arguments.output:
        return
    names = known_series(runs, CURVES)
    with output_folder(arguments.output):
        stem = os.path.join(arguments.output, "comparison")
        write_atomic(f"{stem}.txt", f"{text}\n".encode())
        files = save_charts(stem, runs, names, axis=arguments.over,
                            title=f"{len(runs)} runs: {', '.join(run.name for run in runs)}",
                            tables=[table for table in tables if table[2]])
    print(f"\nwrote {', '.join([f'{stem}.txt', *files])}")


def results(runs: list[Run]) -> list[list[str]]:
    """Scores, steps and times, a row each with a cell for each run; rows in which no run has a number are left out."""
    rows = []
    for name in SCORES:
        best = [run.best(name) for run in runs]
        rows.append([f"best {name} (epoch)", *(f"{each[0]:.4f} ({each[1]:.4g})" if each else "-" for each in best)])
    measured = dict.fromkeys(name for run in runs for name in run.metrics if name in (*SCORES, "mAP_11point"))
    for name in measured:
        rows.append([f"eval.py {name}", *(f"{run.metrics[name]:.4f}" if name in run.metrics else "-" for run in runs)])
    rows.append(["last loss", *(f"{run.series('loss')[-1][1]:.4f}" if run.series("loss") else "-" for run in runs)])
    rows.append(["steps", *(f"{run.rows[-1]['step']}" for run in runs)])
    rows.append(["epochs", *(f"{run.rows[-1]['step'] / run.steps_per_epoch:.4g}" for run in runs)])
    rows.append(["images seen", *(f"{run.rows[-1]['step'] * run.facts['batch']}" for run in runs)])
    rows.append(["time, evaluations included", *(duration(max(run.times.values())) if run.times else "-"
                                                 for run in runs)])
    rows.append(["images a second (median)", *(middle(run) for run in runs)])
    return [row for row in rows if set(row[1:]) != {"-"}]


def middle(run: Run) -> str:
    """The median of a run's images a second, - without one."""
    values = sorted(value for _, value in run.series("images_per_second"))
    return f"{values[len(values) // 2]:.1f}" if values else "-"


def options_of(runs: list[Run]) -> list[list[str]]:
    """The options that differ, a row each."""
    return [[name, *values] for name, values in differing_options(runs)]


def facts_of(runs: list[Run]) -> list[list[str]]:
    """What the runs say of themselves, a row each."""
    return [[title, *(str(run.facts.get(name, "-")) for run in runs)] for name, title in FACTS.items()]


if __name__ == "__main__":
    run_main(main)
