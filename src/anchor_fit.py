"""Anchor shapes that fit the boxes of a data set better (numpy): each level keeps its grid and its number of shapes."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from src.anchors import Level, replace_shapes
from src.boxes import iou, to_centers, to_corners

MAX_MEASURED = 20000  # boxes of a data set, a random choice of more: COCO's 860,000 would take hours
CHUNK = 64            # boxes compared with all anchors at a time
MIN_SHARE = 0.01      # of the boxes that become matched: a smaller gain is not worth other anchors
MAX_BOXES = 4000    # the search looks at no more
MAX_ASPECT = 3.0    # octaves of width / height away from the present shapes
MAX_ROUNDS = 4      # over all levels in one pass
MIN_GAIN = 3e-4     # of Search.value, for a move: a level that hardly any box needs stays as it is
IOU_WEIGHT = 0.1    # of the mean IoU beside the share of matched boxes: leads where no box becomes matched
DECIMALS = 1        # of a pixel
# octaves between two sizes or aspect ratios that are tried; how many sizes and aspect ratios to each side
PASSES = ((0.5, 6, 4), (0.25, 2, 2), (0.125, 2, 2))


class Fit(NamedTuple):
    """What fit_anchors found."""
    shapes: list[np.ndarray]  # as of fit_shapes; [] where they match hardly more boxes than the present ones
    before: np.ndarray        # [N] IoU of each box with the best of the present anchors
    after: np.ndarray         # [N] the same with the shapes that were tried


def fit_anchors(boxes: np.ndarray, anchors: np.ndarray, levels: Sequence[Level], *, threshold: float,
                image_size: int) -> Fit:
    """Shapes for the levels that match more of the boxes [N, 4], N > 0, measured on all of them."""
    shapes = fit_shapes(boxes, anchors, levels, threshold=threshold, image_size=image_size)
    changed = replace_shapes(anchors, levels, [level / image_size for level in shapes])
    before, after = (best_overlaps(boxes, table)[0] for table in (anchors, changed))
    gain = (after >= threshold).mean() - (before >= threshold).mean()
    return Fit(shapes if gain >= MIN_SHARE else [], before, after)


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


def best_overlaps(boxes: np.ndarray, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The IoU of each box [N, 4] with its best anchor, and that anchor's number, both [N]."""
    corners = to_corners(anchors.astype(np.float64))
    best, anchor = np.zeros(len(boxes)), np.zeros(len(boxes), int)
    for start in range(0, len(boxes), CHUNK):
        part = slice(start, start + CHUNK)
        overlap = iou(boxes[part], corners)
        best[part], anchor[part] = overlap.max(axis=1), overlap.argmax(axis=1)
    return best, anchor


def fit_shapes(boxes: np.ndarray, anchors: np.ndarray, levels: Sequence[Level], *, threshold: float,
               image_size: int) -> list[np.ndarray]:
    """For each level w, h in pixels [n, 2], rounded, which more boxes overlap by an IoU of at least the threshold.

    boxes: [N, 4] corner fractions; anchors: [A, 4] with their levels. All shapes of a level are scaled and stretched
    together. A level gets no smaller than the distance of its centres, unless it is so already: boxes would fall
    between them. The search starts at the present shapes and at sizes that the boxes suggest. The caller measures what
    is gained.
    """
    boxes = boxes[::max(1, -(-len(boxes) // MAX_BOXES))]
    sides = to_centers(boxes)[:, 2:]                                                      # [N, 2]
    present = np.array([np.exp(np.log(level.shapes).mean()) for level in levels])         # [levels] geometric means
    min_scales = np.minimum(1, [1 / level.side / size for level, size in zip(levels, present)])
    suggested = suggest_sizes(np.sqrt(np.maximum(sides.prod(axis=1), 1e-12)), len(levels))
    search = Search(sides, center_offsets(boxes, anchors, levels), [level.shapes for level in levels],
                    threshold=threshold)
    best_value, best_shapes = -1.0, []
    for scales in (np.ones(len(levels)), np.maximum(suggested / present, min_scales)):
        value = search.run(scales, min_scales)
        if value > best_value:
            best_value, best_shapes = value, search.shapes()
    return [np.maximum((shapes * image_size).round(DECIMALS), 10.0 ** -DECIMALS) for shapes in best_shapes]


class Search:
    """Coordinate descent over a size factor and an aspect factor a level.

    sides [N, 2]: of the boxes. offsets: [N, 2] per level, as of center_offsets. given: shapes [n, 2] of each level.
    """

    def __init__(self, sides: np.ndarray, offsets: list[np.ndarray], given: list[np.ndarray], *, threshold: float):
        self.sides, self.offsets, self.given, self.threshold = sides, offsets, given, threshold
        self.octaves = np.array([np.log2(shapes).mean() for shapes in given])  # of the mean sizes of the levels
        self.factors = np.zeros((len(given), 2))       # octaves of size and of width / height
        self.best = np.zeros((len(given), len(sides)))  # IoU of each box with the best shape of a level

    def run(self, scales: np.ndarray, min_scales: np.ndarray) -> float:
        """Searches from size factors [levels] on, none below min_scales [levels] -> the value that was reached."""
        self.factors = np.stack([np.log2(scales), np.zeros(len(scales))], axis=1)
        for level, factors in enumerate(self.factors):
            self.best[level] = self.overlap(level, factors)
        value = self.value(self.best.max(axis=0))
        for octaves, sizes, aspects in PASSES:
            moves = [(size * octaves, aspect * octaves) for size in range(-sizes, sizes + 1)
                     for aspect in range(-aspects, aspects + 1)]
            for _ in range(MAX_ROUNDS):
                before = value
                for level, min_scale in enumerate(min_scales):
                    value = self.improve(level, moves, min_size=np.log2(min_scale), value=value)
                if value - before < 1e-4:
                    break
        return value

    def size_limits(self, level: int) -> tuple[float, float]:
        """The size factors of a level at which it is as large as the level before and as the next one, in octaves."""
        sizes = np.concatenate([[-np.inf], self.octaves + self.factors[:, 0], [np.inf]])
        return sizes[level] - self.octaves[level], sizes[level + 2] - self.octaves[level]

    def improve(self, level: int, moves: list[tuple[float, float]], *, min_size: float, value: float) -> float:
        """Makes the best of the moves of one level, if any is good -> the value then."""
        low, high = self.size_limits(level)
        low = max(low, min_size)
        others = np.delete(self.best, level, axis=0).max(axis=0, initial=0)               # [N]
        start = self.factors[level].copy()
        for move in moves:
            factors = start + move
            if not low - 1e-9 <= factors[0] <= high + 1e-9 or abs(factors[1]) > MAX_ASPECT:
                continue
            overlap = self.overlap(level, factors)
            reached = self.value(np.maximum(others, overlap))
            if reached > value + MIN_GAIN:
                value, self.factors[level], self.best[level] = reached, factors, overlap
        return value

    def value(self, best: np.ndarray) -> float:
        """What the search raises: the share of boxes whose best IoU [N] is a match, and a bit of the mean IoU."""
        return (best >= self.threshold).mean() + IOU_WEIGHT * best.mean()

    def overlap(self, level: int, factors: np.ndarray) -> np.ndarray:
        """The best IoU [N] of each box with the shapes of a level under size and aspect factors in octaves."""
        return best_of_level(self.sides, self.offsets[level], self.change(level, factors))

    def change(self, level: int, factors: np.ndarray) -> np.ndarray:
        """Shapes [n, 2] of a level under factors; no side grows longer than the image."""
        (size, aspect), given = factors, self.given[level]
        return np.minimum(given * np.exp2([size + aspect / 2, size - aspect / 2]), np.maximum(given, 1))

    def shapes(self) -> list[np.ndarray]:
        """The shapes that were found, [n, 2] per level."""
        return [self.change(level, factors) for level, factors in enumerate(self.factors)]


def center_offsets(boxes: np.ndarray, anchors: np.ndarray, levels: Sequence[Level]) -> list[np.ndarray]:
    """Distances [N, 2] along x and y of boxes [N, 4] from the nearest anchor centre, one array per level."""
    centers, offsets = to_centers(boxes)[:, :2], []
    for start, side, shapes in levels:
        count = len(shapes)
        cells = anchors[start:start + side * side * count:count, :2].reshape(side, side, 2)
        grid = np.stack([cells[0, :, 0], cells[:, 0, 1]], axis=1)                         # [side, 2] x, y
        offsets.append(np.abs(centers[:, None] - grid).min(axis=1))                       # [N, side, 2] -> [N, 2]
    return offsets


def best_of_level(sides: np.ndarray, offsets: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Best IoU [N] of boxes with sides [N, 2] and shapes [n, 2] at the nearest centre, the one of most overlap."""
    sides = sides[:, None]                                                                # [N, 1, 2]
    reach = (sides + shapes) / 2 - offsets[:, None]                                       # [N, n, 2]
    shared = np.clip(np.minimum(np.minimum(sides, shapes), reach), 0, None).prod(axis=2)  # [N, n]
    union = sides.prod(axis=2) + shapes.prod(axis=1) - shared
    return (shared / np.maximum(union, 1e-12)).max(axis=1)


def suggest_sizes(sides: np.ndarray, count: int) -> np.ndarray:
    """`count` rising sizes by k-means over the logarithms of sides [N] (above 0), started at their quantiles.

    Logarithms, because an IoU depends on the ratio of two sizes and not on their difference.
    """
    values = np.log(np.maximum(sides, 1e-3))
    centers = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(100):
        nearest = np.abs(values[:, None] - centers).argmin(axis=1)
        for index in np.unique(nearest):
            centers[index] = values[nearest == index].mean()
    return np.exp(np.sort(centers))
