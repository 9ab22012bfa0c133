"""What runs of train.py have logged, to look at and to compare: series of numbers over steps, epochs or minutes."""
from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from src.config import DEFAULT_PATH
from src.drawing import class_color
from src.errors import DataError
from src.evaluation.plots import figure_uri, literal, new_figure, save_figure
from src.files import read_json
from src.page import write_page
from src.recipes import read_yaml
from src.training.log import read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"loss": "loss", "loss_cls": "loss of the classes", "loss_box": "loss of the boxes", "lr": "learning rate",
          "grad_norm": "gradient norm", "images_per_second": "images a second", "AP": "AP (IoU .50 to .95)",
          "AP50": "AP50", "mAP_area": "mAP_area (VOC)"}
SCORES = ("AP", "AP50", "mAP_area")
AXES = ("epoch", "step", "minutes")
FOLDERS = ("config_path", "output_path", "mindrecord_dir", "compile_cache", "resume")  # options that say only where
COLUMNS = 3  # of charts in a picture


class Run(NamedTuple):
    """A run of train.py."""
    name: str       # short, different from that of the other runs
    folder: str
    options: dict   # of its config.yaml, with the default where that lacks one
    facts: dict     # of its first start, as of build.describe_run
    rows: list[dict]  # of its log: those with a step
    times: dict     # {(step, whether it is of an evaluation): seconds of training so far}, {} where not known
    metrics: dict   # of the overall numbers in eval/metrics.json, {} without

    def series(self, name: str, axis: str = "epoch") -> list[tuple[float, float]]:
        """(x, value) of the rows that have a number; x: on one of AXES."""
        points = [(self.place(row, axis), row[name]) for row in self.rows
                  if isinstance(row.get(name), (int, float)) and row[name] >= 0]  # an AP of -1 does not exist
        return [(x, value) for x, value in points if x is not None]

    def place(self, row: dict, axis: str) -> float | None:
        """Where a row stands on an axis, None where that is not known."""
        if axis == "minutes":
            seconds = self.times.get((row["step"], "loss" not in row))
            return None if seconds is None else seconds / 60
        return row["step"] if axis == "step" else row["step"] / self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; logs of older versions do not have it, and show it once their first epoch is over."""
        return self.facts.get("steps_per_epoch") or math.ceil(max(row["step"] / row["epoch"] for row in self.rows))

    def best(self, name: str) -> tuple[float, float] | None:
        """The best value of a score and its epoch, None without one."""
        points = self.series(name)
        return max(((value, epoch) for epoch, value in points), key=lambda point: point[0], default=None)


def read_runs(folders: Sequence[str]) -> list[Run]:
    """The runs in these folders. Raises DataError where one is none."""
    paths = [os.path.abspath(folder) for folder in folders]
    last = [os.path.basename(path) for path in paths]
    shared = os.path.commonpath(paths) if len(paths) > 1 else ""
    names = last if len(set(last)) == len(last) else [os.path.relpath(path, shared) for path in paths]
    return [read_run(path, name) for path, name in zip(paths, names)]


def read_run(folder: str, name: str) -> Run:
    """The run in a folder. Raises DataError where there is none, or none with a row of a step."""
    try:
        every = read_log(os.path.join(folder, "log.jsonl"))
        options = {**read_yaml(DEFAULT_PATH), **read_yaml(os.path.join(folder, "config.yaml"))}
    except OSError as error:
        raise DataError(f"'{folder}' is not the folder of a run: {error.filename} cannot be read "
                        f"({error.strerror})") from error
    rows, starts = [row for row in every if "step" in row], [row for row in every if "time" in row]
    if not rows or not starts:
        raise DataError(f"'{folder}' is a run that has not logged a step yet")
    path = os.path.join(folder, "eval", "metrics.json")
    metrics = read_json(path) if os.path.isfile(path) else {}
    overall = {key: value for key, value in metrics.items() if isinstance(value, float) and value >= 0}
    times = read_times(folder, [time.mktime(time.strptime(row["time"], "%Y-%m-%d %H:%M:%S")) for row in starts])
    return Run(name, folder, options, starts[0], rows, times, overall)


def read_times(folder: str, starts: Sequence[float]) -> dict[tuple[int, bool], float]:
    """Seconds of training up to each row, by TensorBoard's files: what all starts have taken until then.

    Steps that a killed start has lost count in the time; the row of a step is the one that came last. starts: times at
    which the run was started, as of time.time().
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    # TensorBoard would leave out the rows that came again
    events = EventAccumulator(folder, size_guidance={"scalars": 0}, purge_orphaned_data=False)
    events.Reload()
    moments = sorted((point.wall_time, point.step, tag.startswith("eval/"))
                     for tag in events.Tags()["scalars"] if tag == "train/loss" or tag.startswith("eval/")
                     for point in events.Scalars(tag))
    times, before = {}, 0.0
    for start, end in zip(starts, [*starts[1:], math.inf]):
        rows = [row for row in moments if start <= row[0] < end]
        times.update({(step, evaluated): before + moment - start for moment, step, evaluated in rows})
        before += rows[-1][0] - start if rows else 0.0
    return times


def differing_options(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """The options that are not equal in all runs, in their usual order, and their values as text."""
    names = [name for name in runs[0].options if name not in FOLDERS]
    table = [(name, [show(run.options.get(name)) for run in runs]) for name in names]
    return [(name, values) for name, values in table if len(set(values)) > 1]


def show(value: object) -> str:
    """The value of an option as it is typed, - for an empty one."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return os.path.basename(text) or "-" if os.sep in text else text or "-"


# --- charts

def draw_series(runs: Sequence[Run], names: Sequence[str], axis: str = "epoch") -> Figure:
    """A chart for each series, all runs in it, as a matplotlib figure."""
    rows = -(-len(names) // COLUMNS)
    figure, axes = new_figure(min(len(names), COLUMNS), width=4.6, height=3.3, rows=rows)
    for place, name in zip(axes, names):
        draw_chart(place, runs, name, axis=axis)
    for unused in axes[len(names):]:
        unused.set_visible(False)
    if len(runs) > 1:
        handles = {line.get_label(): line for place in axes[:len(names)] for line in place.get_lines()}
        figure.legend(handles.values(), handles.keys(), frameon=False, loc="outside lower center",
                      ncols=min(len(runs), 6))
    return figure


def draw_chart(place: Axes, runs: Sequence[Run], name: str, *, axis: str) -> None:
    """One series of all runs over an axis."""
    for number, run in enumerate(runs, 1):
        points = run.series(name, axis)
        if points:
            x, values = zip(*points)
            place.plot(x, values, color=[part / 255 for part in class_color(number)], linewidth=1.4,
                       label=literal(run.name, 40), marker="o" if len(points) < 30 else None, markersize=3)
    place.set(title=TITLES.get(name, name), xlabel=axis, ylim=(0, None), xlim=(0, None))


def known_series(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Those of the names that some run has."""
    return [name for name in names if any(run.series(name) for run in runs)]


def chart_uris(runs: Sequence[Run], names: Sequence[str], axis: str) -> list[tuple[str, str, str]]:
    """(title, address, what it shows) of a chart for each series, for a page."""
    built = []
    for name in names:
        figure = draw_series(runs, [name], axis)
        figure.axes[0].set_title("")
        built.append((TITLES.get(name, name), figure_uri(figure), f"over the {axis}" if axis != "minutes" else
                      "over minutes, evaluations included"))
    return built


def save_charts(stem: str, runs: Sequence[Run], names: Sequence[str], *, axis: str, title: str,
                tables: Sequence[tuple] = ()) -> list[str]:
    """The charts of all series as stem.png and, behind tables of runs.html, as the page stem.html. Returns both."""
    picture, page = f"{stem}.png", f"{stem}.html"
    save_figure(draw_series(runs, names, axis), picture)
    write_page(page, "runs.html", title=title, subtitle=", ".join(run.folder for run in runs), tables=tables,
               charts=chart_uris(runs, names, axis))
    return [picture, page]


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts as columns: the first and any without a heading to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.rjust(width) if title else cell.ljust(width)
                               for title, cell, width in zip(rows[0], row, widths)).rstrip() for row in rows)
