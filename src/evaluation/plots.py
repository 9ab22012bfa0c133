"""Plots with matplotlib: grids of pictures [H, W, 3] uint8 RGB, the curves of a run, precision and recall."""
from __future__ import annotations

import functools
import io
import itertools
import math
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from src.drawing import class_color
from src.errors import SSDError
from src.files import write_atomic
from src.metrics import Evaluated
from src.page import data_uri
from src.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#26303b", "#8a949e", "#e4e8ec"
ACCENTS = ("#4363d8", "#f58231", "#3cb44b", "#911eb4")
CELL, GAP, HEAD = 3.4, 0.06, 0.24  # inches: mean width of a picture in a grid, space between two, space for a title
COLUMNS, DPI = 4, 110
MAX_NAMED_CURVES = 12  # more precision-recall curves than this are drawn without names
PANELS = {"loss": ("loss", "loss_cls", "loss_box"), "learning rate": ("lr",),
          "average precision": ("AP", "AP50", "mAP_area", "mAP_11point")}


def not_fatal(plot: Callable[..., None]) -> Callable[..., bool]:
    """The plot, returning whether it was drawn: its failure is a warning, an SSDError (a full disk) still an error."""
    @functools.wraps(plot)
    def attempt(*arguments: object, path: str, **named: object) -> bool:
        try:
            plot(*arguments, path=path, **named)
        except SSDError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {one_line(error)[:200]}"
            print(f"warning: '{path}' could not be drawn ({reason})", file=sys.stderr, flush=True)
            return False
        return True
    return attempt


def literal(text: str, max_length: int = 30) -> str:
    """Text that matplotlib draws as it is: `$` starts a formula there, and a legend leaves out what starts with `_`."""
    text = one_line(text)[:max_length].replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


@not_fatal
def plot_pictures(pictures: list[np.ndarray], *, path: str, titles: list[str] | tuple = ()) -> None:
    """Pictures in rows of COLUMNS that fill the width of a PNG, each with its title."""
    from matplotlib.figure import Figure
    aspects = [picture.shape[1] / picture.shape[0] for picture in pictures]
    places, page = lay_out(aspects, COLUMNS, HEAD if titles else 0)
    figure = Figure(page, dpi=DPI, facecolor="white")
    for picture, place, title in itertools.zip_longest(pictures, places, titles, fillvalue=""):
        axis = figure.add_axes(place / (*page, *page))
        axis.axis("off")
        axis.imshow(picture)
        fitting = place[2] * 72 / (0.6 * max(len(title), 1))  # points; a letter is 0.6 of its size wide
        axis.set_title(literal(title, 200), fontsize=min(9, fitting), color=INK, pad=3)
    save_figure(figure, path)


def lay_out(aspects: list[float], columns: int, head: float) -> tuple[np.ndarray, tuple[float, float]]:
    """Places of pictures in rows that fill the page; the pictures of a row have one height.

    aspects [N]: width / height of each, limited to 0.5..2; columns: pictures per row; head: inches left above each row.
    Returns [N, 4] left, bottom, width, height and the (width, height) of the page, all in inches.
    """
    aspects, columns = np.clip(aspects, 0.5, 2), min(columns, len(aspects))
    places, top, height = [], 0, np.inf
    for first in range(0, len(aspects), columns):
        row = aspects[first:first + columns]
        filling = (columns * CELL - (len(row) - 1) * GAP) / row.sum()
        # the last row may have fewer pictures: it is not higher than the row above
        height = filling if len(row) == columns else min(height, filling)
        lefts = np.cumsum([GAP, *(row[:-1] * height + GAP)])
        top += head + GAP + height
        places += [(left, -top, width, height) for left, width in zip(lefts, row * height)]
    page = columns * CELL + 2 * GAP, top + GAP
    return np.array(places) + (0, page[1], 0, 0), page


def drawable(row: dict) -> dict:
    """The numbers of a row of log.jsonl that exist: an AP of -1 does not."""
    return {name: value for name, value in row.items() if isinstance(value, (int, float)) and value >= 0}


@not_fatal
def plot_history(rows: list[dict], *, path: str, steps_per_epoch: int) -> None:
    """Curves of a run as a PNG: loss with its parts, learning rate, AP; a panel without numbers is left out.

    rows: of log.jsonl; those with a step, which counts from 1, are drawn over epochs, in the first epoch over steps.
    """
    rows = [drawable(row) for row in rows if "step" in row]
    steps, logged = [row["step"] for row in rows], set().union(*rows)
    panels = {title: names for title, names in PANELS.items() if logged & set(names)}
    unit, label = (steps_per_epoch, "epoch") if max(steps) > steps_per_epoch else (1, "step")
    figure, axes = new_figure(len(panels), width=5.2, height=3.8)
    for axis, (title, names) in zip(axes, panels.items()):
        names = [name for name in names if name in logged]
        for name, color in zip(names, ACCENTS):
            x, y = zip(*((row["step"] / unit, row[name]) for row in rows if name in row))
            marker, size = ("o", 3) if len(x) < 30 else (None, 0)  # few points are marked, and a single one is larger
            axis.plot(x, y, color=color, label=name, marker=marker, markersize=5 if len(x) == 1 else size, linewidth=1,
                      clip_on=False)
        # from the whole number before the first point, so that there is a tick however few those are, to the last point
        axis.set(title=title, xlabel=label, xlim=(math.ceil(min(steps) / unit) - 1, max(steps) / unit))
        axis.locator_params(axis="x", integer=True, min_n_ticks=1)
        axis.set_ylim(bottom=0)
        if len(names) > 1:
            axis.legend(frameon=False)
    save_figure(figure, path)


@not_fatal
def plot_pr_curves(evaluated: Evaluated, *, path: str) -> None:
    """Precision over recall at IoU 0.5 by class as a PNG, by COCO's rule for VOC too."""
    curves = evaluated.curves()
    figure, (axis,) = new_figure(1, width=8.6, height=5.0)
    draw_curves(axis, {name: (curve, f"{curve.mean():.3f}") for name, curve in curves.items()},
                x=np.linspace(0, 1, 101), classes=evaluated.classes)
    if curves:
        mean = np.mean(list(curves.values()), axis=0)
        axis.plot(np.linspace(0, 1, 101), mean, color=INK, linewidth=2.6,
                  label=f"all {len(curves)} classes  {mean.mean():.3f}")
        axis.legend(frameon=False, title="AP50, COCO rule", alignment="left", loc="upper left",
                    bbox_to_anchor=(1.01, 1))
    axis.set(title="precision and recall at IoU .50, COCO rule (101 points)", xlim=(0, 1), ylim=(0, 1.02),
             xlabel="recall", ylabel="precision")
    save_figure(figure, path)


def draw_curves(axis: Axes, curves: dict[str, tuple[np.ndarray, str]], *, x: np.ndarray, classes: list[str],
                max_named: int = MAX_NAMED_CURVES) -> None:
    """One line a class in its colour; more than max_named classes are grey and without a name.

    curves: {class: (values [N] over x [N], what follows the name)}; classes: all, in the order of their labels.
    """
    for name, (values, note) in curves.items():
        if len(curves) > max_named:
            axis.plot(x, values, color=MUTED, alpha=0.3, linewidth=0.7)
        else:
            axis.plot(x, values, color=np.divide(class_color(classes.index(name) + 1), 255), linewidth=1.6,
                      label=f"{literal(name)}  {note}".rstrip())


@not_fatal
def plot_per_class(metrics: dict, *, path: str) -> None:
    """Two bars a class as a PNG, the best class on top: AP and behind it AP50, for VOC the averages of both rules."""
    from matplotlib.transforms import offset_copy
    names, rule = ("AP", "AP50"), "COCO rule: AP at IoU .50 to .95, AP50 at .50"
    if "AR100" not in metrics:
        names, rule = ("AP_area", "AP_11point"), "VOC rules at IoU .50: AP_area since 2010, AP_11point of 2007"
    ranked = sorted((entry[names[0]], entry[names[1]], f"{literal(name)}  ({entry['boxes']})")
                    for name, entry in metrics["per_class"].items() if entry["boxes"])
    rows = max(len(ranked), 4)
    figure, (axis,) = new_figure(1, width=7.2, height=1.6 + 0.24 * rows)
    back = axis.barh(range(len(ranked)), [row[1] for row in ranked], 0.78, color="#d3dae1", label=names[1])
    front = axis.barh(range(len(ranked)), [row[0] for row in ranked], 0.46, color="#4a5a6b", label=names[0])
    for place, (first, second, _) in enumerate(ranked):
        axis.text(1.01, place, f"{first:.3f} | {second:.3f}", va="center", fontsize=8, color=INK)
    axis.set_yticks(range(len(ranked)), [row[2] for row in ranked], fontsize=8)
    title = "average precision by class (number of boxes)" if ranked else "no class has a box that counts"
    axis.set(title=title, xlim=(0, 1), ylim=(-0.7, rows - 0.3), xlabel=rule)
    axis.set_xticks(np.linspace(0, 1, 6))
    axis.grid(False, axis="y")
    # in the order of the numbers, and 0.8 inches right of the bars: right of the numbers
    beside = offset_copy(axis.transAxes, figure, x=0.8)
    axis.legend(handles=[front, back], frameon=False, loc="upper left", bbox_to_anchor=(1, 1), bbox_transform=beside)
    save_figure(figure, path)


def new_figure(columns: int, *, width: float, height: float, rows: int = 1) -> tuple:
    """A matplotlib figure without a window, and its axes row by row; width and height of each in inches."""
    from matplotlib.figure import Figure
    figure = Figure((width * columns, height * rows), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.grid(True, color=GRID, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(MUTED)
        axis.tick_params(colors=INK, labelsize=9)
    return figure, axes


def save_figure(figure: Figure, path: str) -> None:
    """Writes a matplotlib figure as PNG."""
    write_atomic(path, figure_bytes(figure, "png"))


def figure_uri(figure: Figure) -> str:
    """A matplotlib figure as the address of an SVG for a page, whose text the browser writes in its own fonts."""
    from matplotlib import rc_context
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "page"}):
        return data_uri(figure_bytes(figure, "svg"), "svg+xml")


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """A matplotlib figure as the bytes of a file."""
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in letters that the font lacks
        figure.savefig(data, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return data.getvalue()
