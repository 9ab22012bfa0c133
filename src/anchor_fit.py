"""Anchor shapes that fit the boxes of a data set better (numpy): each level keeps its grid and its number of shapes."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from src.anchors import Level
from src.boxes import to_centers

MAX_MEASURED = 20000  # boxes of a data set, a random choice of more: COCO's 860,000 would take hours
IOU_WEIGHT = 0.5      # of the mean IoU beside the share of matched boxes: leads where no box becomes matched
MIN_GAIN = 0.01       # of the fitness: less is not worth other anchors
MAX_BOXES = 4000      # the search looks at no more
MAX_ROUNDS = 4        # over all shapes in one pass
MIN_STEP = 3e-4       # gain of the fitness by a move: a shape that hardly any box needs stays as it is
DECIMALS = 1          # of a pixel
# octaves between two sizes or aspect ratios that are tried; how many sizes and aspect ratios to each side
PASSES = ((0.5, 2, 1), (0.25, 1, 1), (0.125, 1, 1))
# Smallest size on the first level, in distances of its centres; 1 on the others. Of boxes of 0.5 and 0.75 distances
# 0.1 % and 10 % match anchors of one distance, 9 % and 18 % smaller ones; a limit of 0.25 gives no more.
MIN_DISTANCES = 0.5


class Fit(NamedTuple):
    """What fit_anchors found."""
    shapes: list[np.ndarray]  # as of fit_shapes; [] where they are hardly fitter than the present ones
    before: np.ndarray        # [N] IoU of each box with the best of the present anchors
    after: np.ndarray         # [N] the same with the shapes that were tried


def fit_anchors(boxes: np.ndarray, anchors: np.ndarray, levels: Sequence[Level], *, threshold: float,
                image_size: int) -> Fit:
    """Shapes for the levels that fit the boxes [N, 4], N > 0, better; measured on all of them."""
    shapes = fit_shapes(boxes, anchors, levels, threshold=threshold, image_size=image_size)
    sides, offsets = to_centers(boxes)[:, 2:], center_offsets(boxes, anchors, levels)
    before = best_ious(sides, offsets, [level.shapes for level in levels])
    after = best_ious(sides, offsets, [level / image_size for level in shapes])
    gain = fitness(after, threshold) - fitness(before, threshold)
    return Fit(shapes if gain >= MIN_GAIN else [], before, after)


def fitness(best: np.ndarray, threshold: float) -> np.ndarray:
    """The share of boxes that match an anchor, and a part of the mean IoU. best: IoU [N, ..] with the best anchor."""
    return share_matched(best, threshold) + IOU_WEIGHT * best.mean(axis=0)


def share_matched(best: np.ndarray, threshold: float) -> np.ndarray:
    """The share of boxes whose best IoU [N, ..] reaches the threshold, but for rounding."""
    return (best >= threshold - 1e-6).mean(axis=0)


def read_boxes(truth: dict, seed: int, max_boxes: int = MAX_MEASURED) -> tuple[np.ndarray, np.ndarray, int]:
    """A ground_truth.json -> boxes [N, 4] corner fractions, areas [N] in its pixels, and how many boxes there are.

    Crowd boxes are left out; of more than max_boxes a random choice is returned.
    """
    frames = {image["id"]: (image["width"], image["height"]) * 2 for image in truth["images"]}
    rows = [(*item["bbox"], *frames[item["image_id"]], item["area"]) for item in truth["annotations"]
            if not item["iscrowd"]]
    total = len(rows)
    if total > max_boxes:
        rows = [rows[index] for index in np.random.default_rng(seed).choice(total, max_boxes, replace=False)]
    table = np.array(rows, np.float64).reshape(-1, 9)
    corners = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    return np.clip(corners / table[:, 4:8], 0, 1), table[:, 8], total


def fit_shapes(boxes: np.ndarray, anchors: np.ndarray, levels: Sequence[Level], *, threshold: float,
               image_size: int) -> list[np.ndarray]:
    """For each level w, h in pixels [n, 2], rounded, with which the fitness at a threshold of IoU is higher.

    boxes: [N, 4] corner fractions; anchors: [A, 4] with their levels. The search starts at the present shapes and keeps
    what it cannot make better. The mean size of a level stays between those of its neighbours. A shape gets no smaller
    than the distance of its level's centres, for boxes would fall between them and a finer level has more centres; on
    the first level, which has no finer one, half of that. The caller measures what is gained.
    """
    boxes = boxes[::max(1, -(-len(boxes) // MAX_BOXES))]
    search = Search(to_centers(boxes)[:, 2:], center_offsets(boxes, anchors, levels), levels, threshold=threshold)
    search.run()
    return [np.maximum((shapes * image_size).round(DECIMALS), 10.0 ** -DECIMALS) for shapes in search.shapes()]


class Search:
    """Coordinate descent over the size and the aspect ratio of every shape.

    sides [N, 2]: of the boxes. offsets: [N, 2] per level, as of center_offsets.
    """

    def __init__(self, sides: np.ndarray, offsets: list[np.ndarray], levels: Sequence[Level], *, threshold: float):
        self.sides, self.offsets, self.threshold = sides, offsets, threshold
        self.level = np.repeat(np.arange(len(levels)), [len(level.shapes) for level in levels])  # [K] of each shape
        self.logs = np.log2(np.concatenate([level.shapes for level in levels]).astype(np.float64))  # [K, 2] w, h
        self.max_logs = np.maximum(self.logs, 0)                     # no side grows longer than the image
        distances = np.array([1 / level.side for level in levels])
        distances[0] *= MIN_DISTANCES
        self.min_sizes = np.minimum(np.log2(distances)[self.level], self.logs.mean(axis=1))      # [K]
        self.best = np.concatenate([overlaps(sides, offset, level.shapes).T
                                    for offset, level in zip(offsets, levels)])                  # [K, N] IoU

    def run(self) -> None:
        """Moves the shapes until no move helps."""
        reached = float(fitness(self.best.max(axis=0), self.threshold))
        for octaves, sizes, aspects in PASSES:
            moves = octaves * np.array([(size + aspect / 2, size - aspect / 2) for size in range(-sizes, sizes + 1)
                                        for aspect in range(-aspects, aspects + 1)])
            for _ in range(MAX_ROUNDS):
                before = reached
                for shape in range(len(self.logs)):
                    reached = self.improve(shape, moves, reached)
                if reached == before:
                    break

    def improve(self, shape: int, moves: np.ndarray, reached: float) -> float:
        """Makes the best of the moves [M, 2] of one shape, if any is good -> the fitness then, before it `reached`."""
        logs = np.minimum(self.logs[shape] + moves, self.max_logs[shape])
        logs = logs[self.is_allowed(shape, logs)]                                                # [m, 2]
        if len(logs) == 0:
            return reached
        others = np.delete(self.best, shape, axis=0).max(axis=0, initial=0)                      # [N]
        overlap = overlaps(self.sides, self.offsets[self.level[shape]], np.exp2(logs))           # [N, m]
        values = fitness(np.maximum(others[:, None], overlap), self.threshold)                   # [m]
        move = values.argmax()
        if values[move] <= reached + MIN_STEP:
            return reached
        self.logs[shape], self.best[shape] = logs[move], overlap[:, move]
        return float(values[move])

    def is_allowed(self, shape: int, logs: np.ndarray) -> np.ndarray:
        """Whether a shape may have the sides logs [m, 2], [m] bool: it is not too small, and the levels keep rising."""
        level, sizes = self.level[shape], logs.mean(axis=1)
        means = [-np.inf, *(self.logs[self.level == index].mean() for index in range(self.level[-1] + 1)), np.inf]
        mean = means[level + 1] + (sizes - self.logs[shape].mean()) / (self.level == level).sum()
        rising = (mean >= means[level] - 1e-9) & (mean <= means[level + 2] + 1e-9)
        return rising & (sizes >= self.min_sizes[shape] - 1e-9)

    def shapes(self) -> list[np.ndarray]:
        """The shapes that were found, [n, 2] per level."""
        return [np.exp2(self.logs[self.level == level]) for level in range(self.level[-1] + 1)]


def center_offsets(boxes: np.ndarray, anchors: np.ndarray, levels: Sequence[Level]) -> list[np.ndarray]:
    """Distances [N, 2] along x and y of boxes [N, 4] from the nearest anchor centre, one array per level."""
    centers, offsets = to_centers(boxes)[:, :2], []
    for start, side, shapes in levels:
        count = len(shapes)
        cells = anchors[start:start + side * side * count:count, :2].reshape(side, side, 2)
        grid = np.stack([cells[0, :, 0], cells[:, 0, 1]], axis=1)                         # [side, 2] x, y
        offsets.append(np.abs(centers[:, None] - grid).min(axis=1))                       # [N, side, 2] -> [N, 2]
    return offsets


def overlaps(sides: np.ndarray, offsets: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """IoU [N, n] of boxes with sides [N, 2] and shapes [n, 2] at the nearest centre, which is that of most overlap."""
    sides = sides[:, None]                                                                # [N, 1, 2]
    reach = (sides + shapes) / 2 - offsets[:, None]                                       # [N, n, 2]
    shared = np.clip(np.minimum(np.minimum(sides, shapes), reach), 0, None).prod(axis=2)  # [N, n]
    union = sides.prod(axis=2) + shapes.prod(axis=1) - shared
    return shared / np.maximum(union, 1e-12)


def best_ious(sides: np.ndarray, offsets: list[np.ndarray], shapes: Sequence[np.ndarray]) -> np.ndarray:
    """IoU [N] of boxes with sides [N, 2] with the best of all anchors. offsets [N, 2], shapes [n, 2]: of each level."""
    return np.max([overlaps(sides, offset, level).max(axis=1) for offset, level in zip(offsets, shapes)], axis=0)
