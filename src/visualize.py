"""Boxes on images, grids of images, and the plots of a run. Images are [H, W, 3] uint8 RGB."""
import io
import itertools

import cv2
import numpy as np

from src.files import write_whole
from src.metrics import precision_curves

# Told apart on photographs and on white; label l has colour (l - 1) % 20, later rounds are paler.
PALETTE = ("e6194b 3cb44b 4363d8 f58231 a53bd0 00b3b3 f032e6 8db600 ff7f9f 12806a b0702c b07aff "
           "c0392b 6fcf97 8a8a1a ffb347 4b3fa7 7d93ab e0b000 0096ff").split()
INK, MUTED, GRID = "#26303b", "#8a949e", "#e4e8ec"
ACCENTS = ("#4363d8", "#f58231", "#3cb44b", "#911eb4")
RIM = (20, 20, 20)
FONT = cv2.FONT_HERSHEY_SIMPLEX
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
    for index in order:
        label = int(labels[index])
        text = str(classes[label - 1]) if 1 <= label <= len(classes) else str(label)
        if scores is not None:
            text += f" {scores[index]:.2f}"
        draw_label(canvas, text, *pixels[index, :2].tolist(), class_color(label))
    return canvas


def draw_label(canvas, text, x, y, color):
    """Writes text on a filled plate above the point x, y, or below where there is no room; never outside canvas."""
    height, width = canvas.shape[:2]
    scale = np.clip(min(height, width) / 900, 0.4, 1.6)
    scale *= min(1, (width - 6) / cv2.getTextSize(text, FONT, scale, 1)[0][0])
    (text_width, text_height), base = cv2.getTextSize(text, FONT, max(scale, 0.01), 1)
    plate_height = text_height + base + 3
    if scale < 0.2 or plate_height > height:
        return
    left = min(x, width - text_width - 6)
    top = y - plate_height if y >= plate_height else min(y, height - plate_height)
    for ink, thickness in ((color, -1), (RIM, 1)):
        cv2.rectangle(canvas, (left, top), (left + text_width + 5, top + plate_height - 1), ink, thickness)
    ink = RIM if np.dot(color, (0.299, 0.587, 0.114)) > 140 else (255, 255, 255)  # ITU-R BT.601 luma
    weight = max(1, round(scale * 1.6))
    cv2.putText(canvas, text, (left + 3, top + text_height + 2), FONT, scale, ink, weight, cv2.LINE_AA)


def plot_pictures(pictures, path, columns=4, titles=()):
    """Pictures [H, W, 3] uint8 RGB in a grid, each with its title, as a PNG."""
    figure, axes = new_figure(columns, 3, 3, rows=-(-len(pictures) // columns))
    for axis, picture, title in itertools.zip_longest(axes, pictures, titles):
        axis.axis("off")
        if picture is not None:
            axis.imshow(picture)
            axis.set_title(title or "", fontsize=9)
    save_figure(figure, path)


def save_png(path, image):
    """Writes image [H, W, 3] uint8 RGB as a PNG, whole. Raises EnvironmentFault where that is not possible."""
    write_whole(path, cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())


def plot_history(rows, path, steps_per_epoch):
    """Curves of a run as a PNG: loss with its parts, learning rate, AP; a panel without numbers is left out.

    rows: the dicts of log.jsonl; those of a training step or an evaluation have step, which counts from 1.
    """
    rows = [{name: value for name, value in row.items() if value is not None} for row in rows if "step" in row]
    panels = {title: [name for name in names if any(name in row for row in rows)] for title, names in PANELS.items()}
    panels = {title: names for title, names in panels.items() if names}
    figure, axes = new_figure(len(panels), 5.2, 3.8)
    for axis, (title, names) in zip(axes, panels.items()):
        for name, color in zip(names, ACCENTS):
            x, y = zip(*((row["step"] / steps_per_epoch, row[name]) for row in rows if name in row))
            axis.plot(x, y, color=color, label=name, marker="o" if len(y) < 30 else None, markersize=3, linewidth=1)
        axis.set(title=title, xlabel="epoch")
        axis.locator_params(axis="x", integer=axis.get_xlim()[1] > 4)
        axis.set_ylim(bottom=0)
        if len(names) > 1:
            axis.legend(frameon=False)
    save_figure(figure, path)


def plot_pr_curves(ground_truth, detections, path, engine="hotcoco"):
    """Precision over recall at IoU 0.5 for every class, as a PNG. Arguments as of metrics.coco_metrics."""
    curves = precision_curves(ground_truth, detections, engine)
    recall = np.linspace(0, 1, 101)
    figure, (axis,) = new_figure(1, 7.2, 5.0)
    for index, (name, precision) in enumerate(curves.items()):
        named = len(curves) <= NAMED_CURVES
        color = np.divide(class_color(index + 1), 255) if named else MUTED
        axis.plot(recall, precision, color=color, alpha=1 if named else 0.3, linewidth=1.6 if named else 0.7,
                  label=f"{name}  {precision.mean():.3f}" if named else None)
    if curves:
        mean = np.mean(list(curves.values()), axis=0)
        axis.plot(recall, mean, color=INK, linewidth=2.6, label=f"all {len(curves)} classes  {mean.mean():.3f}")
        axis.legend(frameon=False, title="AP at IoU .50", loc="upper left", bbox_to_anchor=(1.01, 1))
    axis.set(title="precision and recall at IoU 0.5", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    save_figure(figure, path)


def plot_per_class(metrics, path):
    """Bars of AP by class (pale: AP50, or for VOC the 11-point rule), best on top, as a PNG; metrics of metrics.py."""
    main, pale = ("AP", "AP50") if "AR100" in metrics else ("AP_area", "AP_11point")
    ranked = sorted((entry[main], entry[pale], f"{name}  ({entry['boxes']})")
                    for name, entry in metrics["per_class"].items() if entry["boxes"])
    rows = max(len(ranked), 4)
    figure, (axis,) = new_figure(1, 7.2, 1.4 + 0.24 * rows)
    axis.barh(range(len(ranked)), [row[1] for row in ranked], 0.78, color="#cdd6f5", label=pale)
    axis.barh(range(len(ranked)), [row[0] for row in ranked], 0.46, color=ACCENTS[0], label=main)
    for place, values in enumerate(ranked):
        text = f"{values[0]:.3f} | {values[1]:.3f}"
        axis.text(max(values[:2]) + 0.01, place, text, va="center", fontsize=8, color=INK)
    axis.set_yticks(range(len(ranked)), [row[2] for row in ranked], fontsize=8)
    axis.set(title="average precision by class (number of boxes)", xlim=(0, 1.17), ylim=(-0.7, rows - 0.3))
    axis.set_xticks(np.linspace(0, 1, 6))
    axis.grid(False, axis="y")
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    save_figure(figure, path)


def new_figure(columns, width, height, rows=1):
    """A matplotlib figure without a window, and its axes row by row; width and height of each in inches."""
    from matplotlib.figure import Figure
    figure = Figure((width * columns, height * rows), dpi=110, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
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
    figure.savefig(data, format="png")
    write_whole(path, data.getvalue())
