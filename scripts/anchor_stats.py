"""How well the anchors of a model fit the boxes of a data set.

    python scripts/anchor_stats.py --model=ssd300_resnet50 --dataset=voc --voc_root=DATA [--output_path=runs/anchors]

Of the training boxes (crowd boxes left out), by COCO's size classes: the share that some anchor overlaps by at least
--match_threshold, and quantiles of the best overlap (IoU). A box below the threshold still takes its best anchor in
training, but only that one. Level by level: the anchor sizes and the boxes whose best anchor is there. Then shapes for
the same levels that match more of these boxes, with the share before and after, or that there are none;
docs/new_model.md says how to use them. --output_path also writes anchor_stats.png.
"""
import contextlib
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src import boxes as box_ops
from src.anchor_fit import fit_shapes
from src.anchors import replace_shapes, split_levels
from src.config import read_options, split_options
from src.errors import DataError, run_main
from src.machine import process

MOST_BOXES = 20000  # further ones are left out at random: COCO's 860,000 would take hours
CHUNK = 64          # boxes compared with all anchors at a time
SMALL, LARGE = 32 ** 2, 96 ** 2  # COCO's limits of the area in pixels of the original image
LEAST_GAIN = 0.01  # share of the boxes: less is no reason to give up trained heads
QUANTILES = (5, 25, 50, 75)      # percent
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # of the axis of sizes, pixels


def main():
    """Reads the options, builds the model, measures."""
    options = read_options(sys.argv[1:], "scripts/anchor_stats.py", doc=__doc__, strict=True)
    process.prepare()
    from src.files import output_folder
    from src.models.ssd import build_model

    model = build_model(options.model, 2, image_size=options.image_size, width=options.width)
    folder = options.output_path if "output_path" in options.typed else None
    with output_folder(folder) if folder else contextlib.nullcontext():
        measure(options, model, folder)


def measure(options, model, folder):
    """Prints the tables for the boxes of the training split; draws the picture into folder, None for none."""
    from src.data.prepare import prepare_split
    split = prepare_split(**split_options(options, "train"), classes=options.classes)
    with open(split.ground_truth, encoding="utf-8") as file:
        boxes, areas, total = read_boxes(json.load(file), options.seed)
    if not total:
        raise DataError(f"{split.name} has no boxes to measure")
    best, anchor = best_overlaps(boxes, model.anchors)
    some = "" if len(boxes) == total else f", {len(boxes):,} of them drawn at random"
    print(f"{model.name}: {len(model.anchors):,} anchors at {model.image_size} pixels; {split.name}: {split.count:,} "
          f"images, {total:,} boxes{some}\n")
    print(overlap_table(best, areas, options.match_threshold))
    sides = np.sqrt(box_ops.area(boxes)) * model.image_size
    print("\n" + level_table(model, anchor))
    print("\n" + suggestion(model, boxes, areas, best=best, threshold=options.match_threshold))
    if folder:
        path = os.path.join(folder, "anchor_stats.png")
        draw(best, areas, sides, model, options.match_threshold, path)
        print(f"\n{path}")


def read_boxes(truth, seed, most=MOST_BOXES):
    """A ground_truth.json -> boxes [N, 4] corner fractions, areas [N] in its pixels, and how many there are in all.

    Crowd boxes are left out; of more than `most` boxes a random choice is returned.
    """
    frames = {image["id"]: (image["width"], image["height"]) * 2 for image in truth["images"]}
    rows = [(*item["bbox"], *frames[item["image_id"]], item["area"]) for item in truth["annotations"]
            if not item["iscrowd"]]
    total = len(rows)
    if total > most:
        rows = [rows[index] for index in np.random.default_rng(seed).choice(total, most, replace=False)]
    table = np.array(rows, np.float64).reshape(-1, 9)
    corners = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    return np.clip(corners / table[:, 4:8], 0, 1), table[:, 8], total


def best_overlaps(boxes, anchors):
    """The IoU of each box [N, 4] with its best anchor, and that anchor's number, both [N]."""
    corners = box_ops.to_corners(anchors.astype(np.float64))
    best, anchor = np.zeros(len(boxes)), np.zeros(len(boxes), int)
    for start in range(0, len(boxes), CHUNK):
        part = slice(start, start + CHUNK)
        overlap = box_ops.iou(boxes[part], corners)
        best[part], anchor[part] = overlap.max(axis=1), overlap.argmax(axis=1)
    return best, anchor


def size_classes(areas):
    """{name: [N] bool} of COCO's size classes, and of all."""
    return {"small": areas < SMALL, "medium": (areas >= SMALL) & (areas < LARGE), "large": areas >= LARGE,
            "all": np.ones(len(areas), bool)}


def overlap_table(best, areas, threshold):
    """Share of boxes at the threshold and quantiles of the best IoU, by size class, as text."""
    lines = [f"{'boxes':<8}{'count':>9}{f'IoU >= {threshold:g}':>13}" + "".join(f"{f'{one} %':>8}" for one in QUANTILES)
             + "   quantiles of the best IoU"]
    for name, chosen in size_classes(areas).items():
        if chosen.any():
            share = (best[chosen] >= threshold).mean()
            quantiles = "".join(f"{value:>8.3f}" for value in np.percentile(best[chosen], QUANTILES))
            lines.append(f"{name:<8}{chosen.sum():>9,}{share:>13.1%}{quantiles}")
    return "\n".join(lines)


def level_table(model, anchor):
    """Level by level the sizes of the anchors and how many of the boxes have their best anchor [N] there, as text."""
    levels = split_levels(model.anchors)
    starts = [level.start for level in levels]
    counts = np.bincount(np.searchsorted(starts, anchor, side="right") - 1, minlength=len(levels))
    lines = ["sizes in network pixels: square roots of areas", f"{'cells':<11}{'best of boxes':>14}{'sizes now':>16}"]
    for (_, side, shapes), count in zip(levels, counts):
        now = np.sqrt(shapes.prod(axis=1)) * model.image_size
        span = f"{now.min():.0f}" if np.isclose(now.min(), now.max()) else f"{now.min():.0f} .. {now.max():.0f}"
        lines.append(f"{f'{side} x {side}':<11}{f'{count:,} = {count / len(anchor):.1%}':>14}{span:>16}")
    return "\n".join(lines)


def suggestion(model, boxes, areas, *, best, threshold):
    """Text: better shapes level by level with the share of boxes they match, measured on the same boxes [N, 4], or that
    the present ones are best.

    best [N]: IoU of each box with the present anchors.
    """
    shapes = fit_shapes(boxes, model.anchors, threshold=threshold, image_size=model.image_size)
    after, _ = best_overlaps(boxes, replace_shapes(model.anchors, [one / model.image_size for one in shapes]))
    now, then = (best >= threshold).mean(), (after >= threshold).mean()
    if then - now < LEAST_GAIN:
        return (f"no better shapes were found: the present anchors match {now:.1%} of the boxes at IoU {threshold:g}, "
                f"the best others tried {then:.1%}; keep the present ones")
    lines = [f"suggested shapes match {then:.1%} of these boxes at IoU {threshold:g}, the present ones {now:.1%}:"]
    shares = {name: [(one[chosen] >= threshold).mean() for one in (best, after)]
              for name, chosen in size_classes(areas).items() if chosen.any()}
    lines.append("by size: " + ", ".join(f"{name} {one:.1%} -> {other:.1%}" for name, (one, other) in shares.items()))
    lines.append(f"SHAPES = (  # width, height in pixels of {model.image_size}, a line a level; docs/new_model.md")
    lines += [f"    ({', '.join(f'({w:g}, {h:g})' for w, h in one)})," for one in shapes]
    return "\n".join([*lines, ")"])


def draw(best, areas, sides, model, threshold, path):
    """Histograms as a PNG: best IoU by size class; sizes of the boxes with those of the anchors."""
    from src.drawing import class_color
    from src.evaluation.plots import ACCENTS, INK, new_figure, save_figure
    figure, (left, right) = new_figure(2, width=6.2, height=4.0)
    chosen = {name: one for name, one in size_classes(areas).items() if name != "all" and one.any()}
    left.hist([best[one] for one in chosen.values()], np.linspace(0, 1, 41), stacked=True, color=ACCENTS[:len(chosen)],
              label=[f"{name} ({one.sum():,})" for name, one in chosen.items()])
    left.axvline(threshold, color=INK, linestyle="--", label=f"threshold {threshold:g}")
    left.set(title="best IoU of each box with an anchor", xlabel="IoU", ylabel="boxes", xlim=(0, 1))
    left.legend(frameon=False)
    bins = np.geomspace(max(sides.min() * 0.99, 1), model.image_size, 50)
    right.hist(sides, bins, color="#c3cad2")
    for index, (_, side, shapes) in enumerate(split_levels(model.anchors), 1):
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
