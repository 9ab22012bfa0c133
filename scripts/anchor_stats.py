"""How well the anchors of a model fit the boxes of a data set.

    python scripts/anchor_stats.py --model=ssd300_resnet50 --data=FOLDER [--output_path=runs/anchors]

Of the training boxes (crowd boxes left out), by COCO's size classes: the share that some anchor overlaps by at least
--match_threshold, and quantiles of the best overlap (IoU). A box below the threshold still takes its best anchor in
training, but only that one. Level by level: the anchor sizes and the boxes whose best anchor is there. Then shapes for
the same levels that fit these boxes better, as train.py --anchors=auto finds them, with the share before and after, or
that there are none. --output_path also writes anchor_stats.png and anchors.json, for --anchors=FILE; with that option
here the anchors of a file are measured.
"""
from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

import numpy as np
from easydict import EasyDict

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src import boxes as box_ops
from src.anchor_file import write_shapes
from src.anchor_fit import Fit, fit_anchors, read_boxes, share_matched
from src.config import read_options, split_options, take_data
from src.data.formats import identify
from src.errors import DataError, run_main
from src.files import output_folder, read_json
from src.machine import process

if TYPE_CHECKING:
    from src.models.ssd import Model

CHUNK = 64                       # boxes compared with all anchors at a time
SMALL, LARGE = 32 ** 2, 96 ** 2  # COCO's limits of the area in pixels of the original image
QUANTILES = (5, 25, 50, 75)      # percent
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # of the axis of sizes, pixels


def main() -> None:
    """Reads the options, builds the model, measures."""
    options, note = take_data(read_options(sys.argv[1:], "scripts/anchor_stats.py", doc=__doc__, strict=True),
                              identify)
    if note:
        print(note)
    process.prepare()
    from src.models.ssd import build_model
    from src.training.anchors import with_file

    model = build_model(options.model, 2, image_size=options.image_size, width=options.width)
    if options.anchors not in ("", "auto"):  # what auto gives is printed at the end
        model = with_file(model, options.anchors)
    folder = options.output_path if "output_path" in options.typed else None
    with output_folder(folder) if folder else contextlib.nullcontext():
        measure(options, model, folder)


def measure(options: EasyDict, model: Model, folder: str | None) -> None:
    """Prints the tables for the boxes of the training split; draws the picture into folder, None for none."""
    from src.data.prepare import prepare_split
    split = prepare_split(**split_options(options, "train"), classes=options.classes)
    boxes, areas, total = read_boxes(read_json(split.ground_truth), options.seed)
    if not total:
        raise DataError(f"{split.name} has no boxes to measure")
    best, anchor = best_overlaps(boxes, model.anchors)
    some = "" if len(boxes) == total else f", {len(boxes):,} of them drawn at random"
    print(f"{model.name}: {len(model.anchors):,} anchors at {model.image_size} pixels; {split.name}: {split.count:,} "
          f"images, {total:,} boxes{some}\n")
    print(overlap_table(best, areas, options.match_threshold))
    print("\n" + level_table(model, anchor))
    fit = fit_anchors(boxes, model.anchors, model.levels(), threshold=options.match_threshold,
                      image_size=model.image_size)
    print("\n" + suggestion(fit, areas, threshold=options.match_threshold))
    if folder:
        if fit.shapes:
            write_shapes(os.path.join(folder, "anchors.json"), fit.shapes, model.image_size)
        path = os.path.join(folder, "anchor_stats.png")
        sides = np.sqrt(box_ops.area(boxes)) * model.image_size
        draw(best, areas, sides, model=model, threshold=options.match_threshold, path=path)
        print(f"\n{path}")


def best_overlaps(boxes: np.ndarray, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The IoU of each box [N, 4] with its best anchor, and that anchor's number, both [N]."""
    corners = box_ops.to_corners(anchors.astype(np.float64))
    best, anchor = np.zeros(len(boxes)), np.zeros(len(boxes), int)
    for start in range(0, len(boxes), CHUNK):
        part = slice(start, start + CHUNK)
        overlap = box_ops.iou(boxes[part], corners)
        best[part], anchor[part] = overlap.max(axis=1), overlap.argmax(axis=1)
    return best, anchor


def size_classes(areas: np.ndarray) -> dict[str, np.ndarray]:
    """{name: [N] bool} of COCO's size classes, and of all."""
    return {"small": areas < SMALL, "medium": (areas >= SMALL) & (areas < LARGE), "large": areas >= LARGE,
            "all": np.ones(len(areas), bool)}


def overlap_table(best: np.ndarray, areas: np.ndarray, threshold: float) -> str:
    """Share of boxes at the threshold and quantiles of the best IoU, by size class, as text."""
    title = f"IoU >= {threshold:g}"
    percents = "".join(f"{percent:>6} %" for percent in QUANTILES)
    lines = [f"{'boxes':<8}{'count':>9}{title:>13}{percents}   quantiles of the best IoU"]
    for name, chosen in size_classes(areas).items():
        if chosen.any():
            share = share_matched(best[chosen], threshold)
            quantiles = "".join(f"{value:>8.3f}" for value in np.percentile(best[chosen], QUANTILES))
            lines.append(f"{name:<8}{chosen.sum():>9,}{share:>13.1%}{quantiles}")
    return "\n".join(lines)


def level_table(model: Model, anchor: np.ndarray) -> str:
    """Level by level the sizes of the anchors and how many of the boxes have their best anchor [N] there, as text."""
    levels = model.levels()
    starts = [level.start for level in levels]
    counts = np.bincount(np.searchsorted(starts, anchor, side="right") - 1, minlength=len(levels))
    lines = ["sizes in network pixels: square roots of areas", f"{'cells':<11}{'best of boxes':>14}{'sizes now':>16}"]
    for (_, side, shapes), count in zip(levels, counts):
        now = np.sqrt(shapes.prod(axis=1)) * model.image_size
        span = f"{now.min():.0f}" if np.isclose(now.min(), now.max()) else f"{now.min():.0f} .. {now.max():.0f}"
        cells, share = f"{side} x {side}", f"{count:,} = {count / len(anchor):.1%}"
        lines.append(f"{cells:<11}{share:>14}{span:>16}")
    return "\n".join(lines)


def suggestion(fit: Fit, areas: np.ndarray, *, threshold: float) -> str:
    """Text: the shapes of a fit with the share of boxes they match, or that the present ones are best.

    areas [N]: of the boxes in pixels.
    """
    now, then = (share_matched(best, threshold) for best in (fit.before, fit.after))
    if not fit.shapes:
        return (f"no better shapes were found: the present anchors match {now:.1%} of the boxes at IoU {threshold:g}, "
                f"the best others tried {then:.1%}; keep the present ones")
    lines = [f"fitted shapes match {then:.1%} of these boxes at IoU {threshold:g}, the present ones {now:.1%}; mean "
             f"best IoU {fit.before.mean():.3f} -> {fit.after.mean():.3f}"]
    shares = [(name, share_matched(fit.before[chosen], threshold), share_matched(fit.after[chosen], threshold))
              for name, chosen in size_classes(areas).items() if chosen.any()]
    lines.append(f"by size: {', '.join(f'{name} {before:.1%} -> {after:.1%}' for name, before, after in shares)}")
    lines.append("width x height in network pixels, a line a level; train.py --anchors=auto uses them:")
    lines += ["  " + "  ".join(f"{width:g}x{height:g}" for width, height in level) for level in fit.shapes]
    return "\n".join(lines)


def draw(best: np.ndarray, areas: np.ndarray, sides: np.ndarray, *, model: Model, threshold: float, path: str) -> None:
    """Histograms as a PNG: best IoU [N] by size class; sides [N] of the boxes in pixels with those of the anchors."""
    from src.drawing import class_color
    from src.evaluation.plots import ACCENTS, INK, new_figure, save_figure
    figure, (left, right) = new_figure(2, width=6.2, height=4.0)
    classes = {name: chosen for name, chosen in size_classes(areas).items() if name != "all" and chosen.any()}
    left.hist([best[chosen] for chosen in classes.values()], np.linspace(0, 1, 41), stacked=True,
              color=ACCENTS[:len(classes)], label=[f"{name} ({chosen.sum():,})" for name, chosen in classes.items()])
    left.axvline(threshold, color=INK, linestyle="--", label=f"threshold {threshold:g}")
    left.set(title="best IoU of each box with an anchor", xlabel="IoU", ylabel="boxes", xlim=(0, 1))
    left.legend(frameon=False)
    bins = np.geomspace(max(sides.min() * 0.99, 1), model.image_size, 50)
    right.hist(sides, bins, color="#c3cad2")
    for index, (_, side, shapes) in enumerate(model.levels(), 1):
        sizes = np.unique(np.sqrt(shapes.prod(axis=1)).round(3)) * model.image_size
        right.vlines(sizes, 0, 1, np.divide(class_color(index), 255), label=f"{side} x {side}",
                     transform=right.get_xaxis_transform())
    right.set(title="sizes of boxes (bars) and of anchors (lines)", xscale="log", ylabel="boxes",
              xlabel="square root of the area in network pixels")
    ticks = [tick for tick in TICKS if bins[0] <= tick <= bins[-1]]
    right.set_xticks(ticks, ticks)
    right.set_xticks([], minor=True)
    right.legend(frameon=False, loc="upper left")
    save_figure(figure, path)


if __name__ == "__main__":
    run_main(main)
