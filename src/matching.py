"""Assigns ground truth to anchors (numpy)."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from src.anchors import split_levels
from src.atss import Atss
from src.boxes import encode, iou, paired_iou, to_corners

ROUNDING = 1e-4  # more than float32 moves a place (fractions of the image) or an area (fractions of itself)
LEVEL = 100.0    # more than any place


class Matcher:
    """Ground truth of one image -> labels and regression targets of all anchors."""

    def __init__(self, anchors: np.ndarray, threshold: float = 0.5, rule: str = "zoo"):
        """anchors: [A, 4] cx, cy, w, h fractions. rule: of MATCHING_RULES. threshold: of IoU, not used by atss."""
        self.anchors = anchors
        self.rule = MATCHING_RULES[rule](anchors, threshold)

    def __call__(self, gt_boxes: np.ndarray, gt_labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """gt_boxes [N, 4] corners, gt_labels [N] 1..C-1 -> labels [A] int32 (background 0), targets [A, 4] float32."""
        labels = np.zeros(len(self.anchors), np.int32)
        targets = np.zeros((len(self.anchors), 4), np.float32)
        positive, positive_labels, deltas = self.match(gt_boxes, gt_labels)
        labels[positive], targets[positive] = positive_labels, deltas
        return labels, targets

    def match(self, gt_boxes: np.ndarray, gt_labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The positives alone: their anchor numbers [P] ascending, labels [P], targets [P, 4]."""
        owner = self.rule.owners(gt_boxes)
        positive = np.flatnonzero(owner >= 0)                   # [P]
        owner = owner[positive]
        return positive, gt_labels[owner], encode(gt_boxes[owner], self.anchors[positive])

    def unmatched(self, gt_boxes: np.ndarray) -> int:
        """How many of the boxes [N, 4] get no anchor, because another box took each that would be theirs."""
        owner = self.rule.owners(gt_boxes)
        return len(gt_boxes) - len(np.unique(owner[owner >= 0]))


class FixedThreshold:
    """An anchor takes the ground truth of highest IoU if that exceeds the threshold. Every ground truth also takes its
    best anchor, however low the IoU (SSD paper section 2.2).

    Example with threshold 0.5: IoU rows [.2 .6 .3], [.1 .7 .4] both have their best at anchor 1. With "zoo" it belongs
    to row 0, and row 1 gets nothing: its others are below 0.5. With "ssd" and "nvidia" it belongs to row 1.
    """

    def __init__(self, anchors: np.ndarray, threshold: float, *, inclusive: bool, last_wins: bool):
        """anchors: [A, 4] cx, cy, w, h fractions. inclusive: an IoU of exactly the threshold is a match. last_wins: of
        two ground truths with one best anchor the last takes it, otherwise the first."""
        self.anchors = anchors
        self.overlaps = Overlaps(anchors)
        self.threshold, self.inclusive, self.last_wins = threshold, inclusive, last_wins

    def owners(self, gt_boxes: np.ndarray) -> np.ndarray:
        """The number [A] of the ground truth of each anchor, -1 for none. gt_boxes: [N, 4] corners."""
        pairs = self.overlaps.find(gt_boxes, self.threshold)
        best = self.best_anchors(gt_boxes, pairs, self.threshold)
        if not self.inclusive:
            above = pairs.iou > self.threshold
            pairs = Pairs(*(part[above] for part in pairs))
        owner = np.full(len(self.anchors), -1)
        # of equal places numpy keeps what is written last: the highest IoU, of equals the first ground truth
        order = np.lexsort((-pairs.box, pairs.iou))
        owner[pairs.anchor[order]] = pairs.box[order]
        turns = np.arange(len(gt_boxes))
        if not self.last_wins:
            turns = turns[::-1]
        owner[best[turns]] = turns  # of ground truths with one best anchor the one written last keeps it
        return owner

    def best_anchors(self, gt_boxes: np.ndarray, pairs: Pairs, min_iou: float) -> np.ndarray:
        """Number [N] of each box's anchor of highest IoU, of equals the first. pairs: all that reach min_iou."""
        best = np.full(len(gt_boxes), -1)
        order = np.lexsort((-pairs.anchor, pairs.iou))
        best[pairs.box[order]] = pairs.anchor[order]
        rest = np.flatnonzero(best < 0)  # boxes without such a pair
        if len(rest) > 0:
            # They look again with a lower limit, 0 at last, which every anchor reaches: few pairs are quickly found.
            lower = min_iou / 4 if min_iou > 0.02 else 0
            pairs = self.overlaps.find(gt_boxes[rest], lower)
            best[rest] = self.best_anchors(gt_boxes[rest], pairs, lower)
        return best


MATCHING_RULES: dict[str, Callable[[np.ndarray, float], FixedThreshold | Atss]] = {
    "zoo": partial(FixedThreshold, inclusive=False, last_wins=False),    # model zoo official/cv/SSD, ssd_bboxes_encode
    "ssd": partial(FixedThreshold, inclusive=True, last_wins=True),      # torchvision, lufficc/SSD, PaddleDetection
    "nvidia": partial(FixedThreshold, inclusive=False, last_wins=True),  # NVIDIA, MLPerf, uvipen/SSD-pytorch
    "atss": lambda anchors, threshold: Atss(anchors),                    # https://arxiv.org/abs/1912.02424
}


class Pairs(NamedTuple):
    """Boxes and anchors that overlap."""
    box: np.ndarray     # [P] numbers of boxes
    anchor: np.ndarray  # [P] numbers of anchors
    iou: np.ndarray     # [P] float32


class Overlaps:
    """Finds the anchors that overlap a box by at least some IoU; the numbers are those of boxes.iou, to the last bit.

    Two boxes whose IoU is t share t / (1 + t) of the sum of their areas. So for a box most shapes are out of the
    question, and the centres of the others must lie in a rectangle: only the few anchors in it are compared.
    anchors: [A, 4] cx, cy, w, h as tile_anchors makes them; any others are compared one by one.
    """

    def __init__(self, anchors: np.ndarray):
        self.corners = to_corners(anchors)
        self.shapes = find_shapes(anchors)

    def find(self, boxes: np.ndarray, min_iou: float) -> Pairs:
        """The pairs of boxes [N, 4] x1, y1, x2, y2 and anchors whose IoU is at least min_iou."""
        if self.shapes is None or min_iou <= 0:
            overlap = iou(boxes, self.corners)
            box, anchor = np.nonzero(overlap >= min_iou)
            return Pairs(box, anchor, overlap[box, anchor])
        box, anchor = list_near(self.shapes, boxes, min_iou)
        overlap = paired_iou(boxes[box], self.corners[anchor])
        found = overlap >= min_iou
        return Pairs(box[found], anchor[found], overlap[found])


class Shapes(NamedTuple):
    """The shapes of all levels, and the square grid of anchors that each of them stands on."""
    sides: np.ndarray    # [S, 2] w, h
    start: np.ndarray    # [S] number of the first anchor
    step: np.ndarray     # [S] from the number of an anchor to that of its neighbour
    length: np.ndarray   # [S] of the grid, in cells
    line: np.ndarray     # [S] where the centres of its columns, which its rows have too, begin in `centers`
    centers: np.ndarray  # of all levels, ascending: LEVEL is added for each level before
    above: np.ndarray    # [S] what was added to those of this shape


def find_shapes(anchors: np.ndarray) -> Shapes | None:
    """The shapes of anchors [A, 4]; None where a level is not a square grid (as after clipping)."""
    rows, centers = [], np.zeros(0)
    for number, (start, length, shapes) in enumerate(split_levels(anchors)):
        step = len(shapes)
        line = anchors[start:start + length * step:step, 0].astype(float)
        cells = np.empty((length, length, step, 4))
        cells[..., 0], cells[..., 1], cells[..., 2:] = line[:, None], line[:, None, None], shapes
        level = anchors[start:start + cells.size // 4]
        if (np.diff(line) < 0).any() or not np.array_equal(cells.reshape(-1, 4), level):
            return None
        of_level = (step, length, len(centers), LEVEL * number)
        rows += [(shape, start + place, *of_level) for place, shape in enumerate(shapes)]
        centers = np.concatenate([centers, line + LEVEL * number])
    *columns, above = map(np.array, zip(*rows))
    return Shapes(*columns, centers, above)


def list_near(shapes: Shapes, boxes: np.ndarray, min_iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Numbers [P] of boxes [N, 4] and [P] of anchors: all pairs whose IoU is at least min_iou > 0, and some others."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)                            # [N, 2]
    areas = sides.prod(axis=1) + shapes.sides.prod(axis=1)[:, None]               # [S, N] of both
    needed = min_iou / (1 + min_iou) * (1 - ROUNDING) * areas                     # of it must be shared
    shareable = np.minimum(sides, shapes.sides[:, None])                          # [S, N, 2]
    shape, box = np.nonzero(shareable.prod(axis=2) >= needed)                     # [Q]
    # even where all of the height is shared this much of the width must be, and the other way round
    needed = needed[shape, box, None] / shareable[shape, box, ::-1]               # [Q, 2]
    away = needed - shapes.sides[shape] / 2 - ROUNDING
    edges = np.stack([boxes[box, :2] + away, boxes[box, 2:] - away])              # of the centres, [2, Q, 2]
    edges = np.clip(edges, -LEVEL / 3, LEVEL / 3) + shapes.above[shape, None]
    first, end = np.searchsorted(shapes.centers, edges) - shapes.line[shape, None]  # column and row, [Q, 2] each
    columns, rows = np.maximum(end - first, 0).T
    pair = np.repeat(np.arange(len(shape)), columns * rows)                       # [P]
    place = np.arange(len(pair)) - (np.cumsum(columns * rows) - columns * rows)[pair]
    row, column = np.divmod(place, columns[pair])
    first, shape = first[pair], shape[pair]
    cell = (first[:, 1] + row) * shapes.length[shape] + first[:, 0] + column
    return box[pair], shapes.start[shape] + cell * shapes.step[shape]
