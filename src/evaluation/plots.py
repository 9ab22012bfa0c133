"""Boxes on images, grids of images, and the plots of a run. Images are [H, W, 3] uint8 RGB."""
import functools
import inspect
import io
import itertools
import math
import sys
import warnings

import numpy as np

from src.drawing import class_color
from src.errors import SSDError
from src.files import write_atomic
from src.metrics import precision_curves
from src.text import one_line

INK, MUTED, GRID = "#26303b", "#8a949e", "#e4e8ec"
ACCENTS = ("#4363d8", "#f58231", "#3cb44b", "#911eb4")
CELL, GAP, HEAD = 3.4, 0.06, 0.24  # inches: mean width of a picture in a grid, what is left between two, for a title
DPI = 110
NAMED_CURVES = 12  # more precision-recall curves than this are drawn without a name
PANELS = {"loss": ("loss", "loss_cls", "loss_box"), "learning rate": ("lr",),
          "average precision": ("AP", "AP50", "mAP_area", "mAP_11point")}


def not_fatal(plot):
    """A plot that cannot be made is a warning and False: what it shows was written before. A full disk is an error."""
    @functools.wraps(plot)
    def attempt(*arguments, **named):
        try:
            return plot(*arguments, **named)
        except SSDError:
            raise
        except Exception as error:
            path = inspect.signature(plot).bind(*arguments, **named).arguments["path"]
            reason = f"{type(error).__name__}: {one_line(error)[:200]}"
            print(f"warning: '{path}' could not be drawn ({reason})", file=sys.stderr, flush=True)
            return False
    return attempt


def plain(text, most=30):
    """A name for matplotlib as it is: `$` starts a formula there, and a legend leaves out what starts with `_`."""
    name = one_line(text)[:most]
    return f"{' ' * name.startswith('_')}{name}".replace("$", r"\$")


@not_fatal
def plot_pictures(pictures, path, columns=4, titles=()):
    """Pictures [H, W, 3] uint8 RGB in rows that fill the width, each with its title, as a PNG."""
    from matplotlib.figure import Figure
    places, page = lay_out([picture.shape[1] / picture.shape[0] for picture in pictures], columns, bool(titles) * HEAD)
    figure = Figure(page, dpi=DPI, facecolor="white")
    for picture, place, title in itertools.zip_longest(pictures, places, titles, fillvalue=""):
        axis = figure.add_axes(place / (page * 2))
        axis.axis("off")
        axis.imshow(picture)
        fitting = place[2] * 72 / (0.6 * max(len(title), 1))  # points; a letter is about 0.6 of them wide
        axis.set_title(plain(title, 200), fontsize=min(9, fitting), color=INK, pad=3)
    save_figure(figure, path)


def lay_out(aspects, columns, head):
    """Places of pictures in rows that fill the page; those of a row have one height.

    aspects [N]: width / height of each, taken as 1:2 or 2:1 where beyond; columns: pictures a row; head: inches left
    above each row. Returns [N, 4] left, bottom, width, height and the (width, height) of the page, all in inches.
    """
    aspects, columns = np.clip(aspects, 0.5, 2), min(columns, len(aspects))
    places, top, height = [], 0, np.inf
    for first in range(0, len(aspects), columns):
        row = aspects[first:first + columns]
        # the last row may have fewer pictures: no higher than the row above
        height = min(height if len(row) < columns else np.inf, (columns * CELL - (len(row) - 1) * GAP) / row.sum())
        lefts = np.cumsum([GAP, *(row[:-1] * height + GAP)])
        top += head + GAP + height
        places += [(left, -top, wide, height) for left, wide in zip(lefts, row * height)]
    page = columns * CELL + 2 * GAP, top + GAP
    return np.array(places) + (0, page[1], 0, 0), page


@not_fatal
def plot_history(rows, path, steps_per_epoch):
    """Curves of a run as a PNG: loss with its parts, learning rate, AP; a panel without numbers is left out.

    rows: of log.jsonl; those with a step, which counts from 1, are shown over epochs, in the first epoch over steps.
    """
    rows = [{name: value for name, value in row.items() if isinstance(value, (int, float)) and value >= 0}
            for row in rows if "step" in row]  # an AP of -1 does not exist
    panels = {title: [name for name in names if any(name in row for row in rows)] for title, names in PANELS.items()}
    panels = {title: names for title, names in panels.items() if names}
    steps = [row["step"] for row in rows]
    unit, word = (steps_per_epoch, "epoch") if max(steps) > steps_per_epoch else (1, "step")
    figure, axes = new_figure(len(panels), 5.2, 3.8)
    for axis, (title, names) in zip(axes, panels.items()):
        for name, color in zip(names, ACCENTS):
            draw_curve(axis, *zip(*((row["step"] / unit, row[name]) for row in rows if name in row)), color, name)
        # from the whole number before the first point, so that there is a tick however few those are, to the last point
        axis.set(title=title, xlabel=word, xlim=(math.ceil(min(steps) / unit) - 1, max(steps) / unit))
        axis.locator_params(axis="x", integer=True, min_n_ticks=1)
        axis.set_ylim(bottom=0)
        if len(names) > 1:
            axis.legend(frameon=False)
    save_figure(figure, path)


def draw_curve(axis, x, y, color, name):
    """One curve of plot_history; the fewer its points, the better they show."""
    size = 5 if len(y) == 1 else 3 if len(y) < 30 else 0
    axis.plot(x, y, color=color, label=name, marker="o" if size else None, markersize=size, linewidth=1, clip_on=False)


@not_fatal
def plot_pr_curves(ground_truth, detections, path, engine="hotcoco"):
    """Precision over recall at IoU 0.5 for every class, by COCO's rule for VOC too, as a PNG.

    Arguments as of metrics.coco_metrics; the categories in the order of the labels, which gives each its colour.
    """
    curves = precision_curves(ground_truth, detections, engine)
    labels = {category["name"]: label for label, category in enumerate(ground_truth["categories"], 1)}
    recall = np.linspace(0, 1, 101)
    figure, (axis,) = new_figure(1, 8.6, 5.0)
    for name, precision in curves.items():
        named = len(curves) <= NAMED_CURVES
        color = np.divide(class_color(labels[name]), 255) if named else MUTED
        axis.plot(recall, precision, color=color, alpha=1 if named else 0.3, linewidth=1.6 if named else 0.7,
                  label=f"{plain(name)}  {precision.mean():.3f}" if named else None)
    if curves:
        mean = np.mean(list(curves.values()), axis=0)
        axis.plot(recall, mean, color=INK, linewidth=2.6, label=f"all {len(curves)} classes  {mean.mean():.3f}")
        axis.legend(frameon=False, title="AP50, COCO rule", alignment="left", loc="upper left",
                    bbox_to_anchor=(1.01, 1))
    difficult = any(item.get("difficult") for item in ground_truth["annotations"])
    axis.set(title="precision and recall at IoU .50, COCO rule (101 points)", xlim=(0, 1), ylim=(0, 1.02),
             xlabel="recall (difficult boxes count)" if difficult else "recall", ylabel="precision")
    save_figure(figure, path)


@not_fatal
def plot_per_class(metrics, path):
    """Bars of AP by class (pale: AP50, or for VOC the 11-point rule), best on top, as a PNG; metrics of metrics.py."""
    from matplotlib.transforms import offset_copy
    main, pale, rule = (("AP", "AP50", "COCO rule: AP at IoU .50 to .95, AP50 at .50") if "AR100" in metrics else
                        ("AP_area", "AP_11point", "VOC rules at IoU .50: AP_area since 2010, AP_11point of 2007"))
    ranked = sorted((entry[main], entry[pale], f"{plain(name)}  ({entry['boxes']})")
                    for name, entry in metrics["per_class"].items() if entry["boxes"])
    rows = max(len(ranked), 4)
    figure, (axis,) = new_figure(1, 7.2, 1.6 + 0.24 * rows)
    bars = [axis.barh(range(len(ranked)), [row[column] for row in ranked], width, color=color, label=name)
            for column, width, color, name in ((1, 0.78, "#d3dae1", pale), (0, 0.46, "#4a5a6b", main))]
    for place, values in enumerate(ranked):
        axis.text(1.01, place, f"{values[0]:.3f} | {values[1]:.3f}", va="center", fontsize=8, color=INK)
    axis.set_yticks(range(len(ranked)), [row[2] for row in ranked], fontsize=8)
    title = "average precision by class (number of boxes)" if ranked else "no class has a box that counts"
    axis.set(title=title, xlim=(0, 1), ylim=(-0.7, rows - 0.3), xlabel=rule)
    axis.set_xticks(np.linspace(0, 1, 6))
    axis.grid(False, axis="y")
    # in the order of the numbers, and 0.8 inches right of the bars: right of the numbers
    beside = offset_copy(axis.transAxes, figure, x=0.8)
    axis.legend(handles=bars[::-1], frameon=False, loc="upper left", bbox_to_anchor=(1, 1), bbox_transform=beside)
    save_figure(figure, path)


def new_figure(columns, width, height):
    """A matplotlib figure without a window, and its axes side by side; width and height of each in inches."""
    from matplotlib.figure import Figure
    figure = Figure((width * columns, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(1, columns, squeeze=False).ravel()
    for axis in axes:
        axis.grid(True, color=GRID, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(MUTED)
        axis.tick_params(colors=INK, labelsize=9)
    return figure, axes


def save_figure(figure, path):
    """Writes a matplotlib figure as PNG, whole."""
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in letters that the font lacks
        figure.savefig(data, format="png")
    write_atomic(path, data.getvalue())
