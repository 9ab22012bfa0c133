"""Assigns ground truth to anchors (numpy)."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from src.anchors import split_levels
from src.atss import Atss
from src.boxes import area, encode, iou, to_corners


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

    Two facts about grids spare nearly all of the N x A comparisons. Anchors of one shape share x1 and x2 down a column
    of cells, y1 and y2 along a row, so an intersection is a width, one per column, times a height, one per row.
    And a shape whose IoU would be too small even with one of the two inside the other need not be compared.
    anchors: [A, 4] cx, cy, w, h as tile_anchors makes them; any others are compared one by one.
    """

    def __init__(self, anchors: np.ndarray):
        self.corners = to_corners(anchors)
        self.grids = find_grids(anchors, self.corners)

    def find(self, boxes: np.ndarray, min_iou: float) -> Pairs:
        """The pairs of boxes [N, 4] x1, y1, x2, y2 and anchors whose IoU is at least min_iou."""
        if not self.grids:
            overlap = iou(boxes, self.corners)
            box, anchor = np.nonzero(overlap >= min_iou)
            return Pairs(box, anchor, overlap[box, anchor])
        found = [find_in_grid(grid, boxes, min_iou) for grid in self.grids]
        return Pairs(*(np.concatenate(part) for part in zip(*found)))


class Grid(NamedTuple):
    """The anchors of one level, of n shapes."""
    start: int          # number of the first anchor
    shapes: np.ndarray  # [n, 2] w, h
    edges: np.ndarray   # [n, 2, 2, side] low and high edges: x of the columns, y of the rows
    areas: np.ndarray   # [n, side * side]


def find_grids(anchors: np.ndarray, corners: np.ndarray) -> list[Grid]:
    """The levels of anchors [A, 4] with these corners [A, 4] as grids; none where one is not (as after clipping)."""
    grids = []
    for start, side, shapes in split_levels(anchors):
        level = corners[start:start + side * side * len(shapes)]
        if len(level) < side * side * len(shapes):
            return []
        # row, column, shape, low or high, x or y -> shape, low or high, x or y, row, column
        cells = level.reshape(side, side, -1, 2, 2).transpose(2, 3, 4, 0, 1)
        x, y = cells[:, :, 0], cells[:, :, 1]                                        # [n, 2, side, side]
        if (x != x[:, :, :1]).any() or (y != y[:, :, :, :1]).any():
            return []
        edges = np.stack([x[:, :, 0], y[:, :, :, 0]], axis=2)                        # [n, 2, 2, side]
        areas = area(level).reshape(-1, len(shapes)).T
        grids.append(Grid(start, shapes, edges, np.ascontiguousarray(areas)))
    return grids


def find_in_grid(grid: Grid, boxes: np.ndarray, min_iou: float) -> Pairs:
    """The pairs of boxes [N, 4] and anchors of one level whose IoU is at least min_iou."""
    areas = area(boxes)                                                              # [N]
    most_shared = np.minimum(boxes[:, 2:] - boxes[:, :2], grid.shapes[:, None]).prod(axis=2)  # [n, N]
    highest = most_shared / (areas + grid.shapes.prod(axis=1)[:, None] - most_shared)  # IoU at the best place
    # the margin: sides of anchors are rounded in their corners
    shape, box = np.nonzero(highest >= min_iou - 1e-4)                               # [Q] pairs of a shape and a box
    low, high = boxes[box, :2, None], boxes[box, 2:, None]                           # [Q, 2, 1]
    edges = grid.edges[shape]                                                        # [Q, 2, 2, side]
    sides = np.maximum(np.minimum(high, edges[:, 1]) - np.maximum(low, edges[:, 0]), 0)
    widths, heights = sides[:, 0, None, :], sides[:, 1, :, None]                     # [Q, 1, side], [Q, side, 1]
    union = grid.areas[shape]                                                        # [Q, side * side], a copy
    shared = (heights * widths).reshape(union.shape)
    # in place: new arrays of this size would take most of the time
    union += areas[box, None]
    union -= shared
    overlap = np.divide(shared, union, out=union)                                    # IoU
    pair, cell = np.divmod(np.flatnonzero(overlap >= min_iou), grid.areas.shape[1])  # [P]
    return Pairs(box[pair], grid.start + cell * len(grid.shapes) + shape[pair], overlap[pair, cell])
