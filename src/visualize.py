"""Boxes on images, grids of images, and the plots of a run. Images are [H, W, 3] uint8 RGB."""
import functools
import inspect
import io
import itertools
import math
import sys
import warnings

import cv2
import numpy as np

from src.boxes import area
from src.errors import SSDError
from src.files import write_whole
from src.metrics import precision_curves
from src.text import one_line

# Told apart on photographs and on white; label l has colour (l - 1) % 20, later rounds are paler.
PALETTE = ("e6194b 3cb44b 4363d8 f58231 a53bd0 00b3b3 f032e6 8db600 ff7f9f 12806a b0702c b07aff "
           "c0392b 6fcf97 8a8a1a ffb347 4b3fa7 7d93ab e0b000 0096ff").split()
INK, MUTED, GRID = "#26303b", "#8a949e", "#e4e8ec"
ACCENTS = ("#4363d8", "#f58231", "#3cb44b", "#911eb4")
RIM = (20, 20, 20)
FONT = cv2.FONT_HERSHEY_SIMPLEX
TILE_SIDE, TILE_MOST = 300, 900  # pixels: shorter side of a picture in a grid, and the most of the longer one
CELL, GAP, HEAD = 3.4, 0.06, 0.24  # inches: mean width of a picture in a grid, what is left between two, for a title
DPI = 110
NAMED_CURVES = 12  # more precision-recall curves than this are drawn without a name
PANELS = {"loss": ("loss", "loss_cls", "loss_box"), "learning rate": ("lr",),
          "average precision": ("AP", "AP50", "mAP_area", "mAP_11point")}


def class_color(label):
    """Fixed RGB colour (three ints) of a label 1, 2, .."""
    paler, index = divmod(label - 1, len(PALETTE))
    color = np.array([int(PALETTE[index][at:at + 2], 16) for at in (0, 2, 4)])
    return tuple(np.rint(color + (255 - color) * 0.2 * (paler % 4)).astype(int).tolist())


def draw_boxes(image, boxes, labels, scores=None, classes=()):
    """A copy of image with boxes and their names.

    boxes [N, 4] x1, y1, x2, y2 fractions of the image; labels [N] 1..C-1; scores [N] or None; classes: names without
    background, label l is classes[l - 1] (the bare number where the list is too short). Better scores are drawn on top.
    """
    canvas = np.ascontiguousarray(image).copy()
    height, width = canvas.shape[:2]
    order = range(len(boxes)) if scores is None else np.argsort(scores)
    inside = np.clip(np.nan_to_num(np.asarray(boxes, float).reshape(-1, 4)), 0, 1)
    pixels = np.minimum(np.rint(inside * ((width, height) * 2)), (width - 1, height - 1) * 2).astype(int)
    line = 1 + min(height, width) // 240
    for index in order:
        corners = pixels[index, :2].tolist(), pixels[index, 2:].tolist()
        cv2.rectangle(canvas, *corners, RIM, line + 2)  # keeps the line visible where the picture has its colour
        cv2.rectangle(canvas, *corners, class_color(int(labels[index])), line)
    texts = [class_name(int(label), classes) for label in labels]
    if scores is not None:
        texts = [f"{text} {score:.2f}" for text, score in zip(texts, scores)]
    draw_labels(canvas, [(texts[index], pixels[index], class_color(int(labels[index]))) for index in order])
    return canvas


def class_name(label, classes):
    """Name of a label 1, 2, ..; the bare number where the list of names is too short."""
    return one_line(classes[label - 1]) if 1 <= label <= len(classes) else str(label)


def draw_labels(canvas, labels):
    """Writes the names of boxes on plates, none outside canvas; the last is on top and chooses its place first.

    labels: of each text, its box [4] x1, y1, x2, y2 in pixels, colour.
    """
    boxes = np.array([box for _, box, _ in labels]).reshape(-1, 4)
    plates, plans = np.zeros((0, 4)), []
    for text, box, color in reversed(labels):
        scale, size = label_size(canvas, text)
        if scale < 0.2 or size[1] > canvas.shape[0]:
            continue
        plate = free_place(size, box, canvas.shape, plates, boxes)
        plates = np.vstack([plates, plate])
        plans.append((text, scale, plate.tolist(), color))
    for plan in reversed(plans):
        draw_plate(canvas, *plan)


def label_size(canvas, text):
    """Font scale of a label on canvas, and width and height of its plate in pixels."""
    height, width = canvas.shape[:2]
    scale = np.clip(min(height, width) / 900, 0.4, 1.6)
    scale *= min(1, (width - 6) / cv2.getTextSize(text, FONT, scale, 1)[0][0])
    (text_width, text_height), base = cv2.getTextSize(text, FONT, max(scale, 0.01), 1)
    return scale, (text_width + 6, text_height + base + 3)


def free_place(size, box, shape, plates, boxes):
    """Where a plate of size (width, height) at its box hides least: x1, y1, x2, y2 [4], all in pixels.

    Tried in this order: above and below the box at its left end, the same at its right end, right and left of it.
    shape: of the image; plates, boxes [N, 4]: what a plate should not cover; a name is worth four times a box.
    """
    (x1, y1, x2, y2), (width, height) = box, size
    left = np.clip([x1, x1, x2 - width, x2 - width, x2 + 2, x1 - width - 1], 0, shape[1] - width)
    top = np.clip([y1 - height, y2 + 1, y1 - height, y2 + 1, y1, y1], 0, shape[0] - height)
    places = np.stack([left, top, left + width, top + height], axis=1)
    hidden = 4 * shared_areas(places, plates).sum(axis=1) + shared_areas(places, boxes).sum(axis=1)
    return places[hidden.argmin()]


def shared_areas(one, other):
    """Areas that boxes [N, 4] and boxes [M, 4] share: [N, M]; corners x1, y1, x2, y2."""
    one = one[:, None]
    corners = np.maximum(one[..., :2], other[:, :2]), np.minimum(one[..., 2:], other[:, 2:])
    return area(np.concatenate(corners, axis=-1))


def draw_plate(canvas, text, scale, place, color):
    """Writes text on a filled plate at place x1, y1, x2, y2 in pixels."""
    x1, y1, x2, y2 = place
    for ink, thickness in ((color, -1), (RIM, 1)):
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), ink, thickness)
    ink = RIM if np.dot(color, (0.299, 0.587, 0.114)) > 140 else (255, 255, 255)  # ITU-R BT.601 luma
    (_, height), _ = cv2.getTextSize(text, FONT, scale, 1)
    weight = max(1, round(scale * 1.6))
    cv2.putText(canvas, text, (x1 + 3, y1 + height + 2), FONT, scale, ink, weight, cv2.LINE_AA)


def to_tile(image):
    """Image [H, W, 3] at the size a grid shows it, shorter side 300 pixels: names on it are legible and of one size."""
    height, width = image.shape[:2]
    factor = min(TILE_SIDE / min(height, width), TILE_MOST / max(height, width))
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)


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


def save_png(path, image):
    """Writes image [H, W, 3] uint8 RGB as a PNG, whole. Raises EnvironmentFault where that is not possible."""
    write_whole(path, cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())


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
    write_whole(path, data.getvalue())
