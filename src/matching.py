"""Assigns ground truth to anchors (numpy)."""
from collections import namedtuple

import numpy as np

from src import boxes as box_ops
from src.anchors import split_levels

# inclusive: an IoU of exactly the threshold is a match. last_wins: who keeps a best anchor that two boxes share.
Rule = namedtuple("Rule", "inclusive last_wins")
RULES = {"zoo": Rule(False, False), "ssd": Rule(True, True), "nvidia": Rule(False, True)}


class Overlaps:
    """Finds the anchors that overlap a box by at least some IoU; the numbers are those of boxes.iou, to the last bit.

    Two facts about grids spare nearly all of the N x A comparisons. Anchors of one shape share x1 and x2 down a column
    of cells, y1 and y2 along a row, so an intersection is a product of two numbers known once a column and once a row.
    And a shape whose IoU would be too small even with one of the two inside the other need not be looked at.
    anchors: [A, 4] cx, cy, w, h as tile_anchors makes them; any others are compared one by one.
    """

    def __init__(self, anchors):
        self.corners = box_ops.to_corners(anchors)
        levels = split_levels(anchors)
        self.shapes = np.concatenate([shapes for _, shapes in levels])
        self.levels, start, first = [], 0, 0  # of a level: its first anchor, its first shape, lines, areas
        for side, shapes in levels:
            corners = self.corners[start:start + side * side * len(shapes)]
            if len(corners) < side * side * len(shapes):
                break
            # shape, low or high, x or y, row, column
            grid = corners.reshape(side, side, -1, 2, 2).transpose(2, 3, 4, 0, 1)
            lines = np.stack([grid[:, :, 0, 0], grid[:, :, 1, :, 0]], axis=2)
            if (grid[:, :, 0] != lines[:, :, 0, None]).any() or (grid[:, :, 1] != lines[:, :, 1, :, None]).any():
                break
            areas = box_ops.area(corners).reshape(-1, len(shapes)).T
            self.levels.append((start, first, lines, np.ascontiguousarray(areas)))
            start, first = start + len(corners), first + len(shapes)
        self.are_grids = start == len(anchors)

    def __call__(self, boxes, least):
        """boxes [N, 4] corners, least: IoU -> the pairs that reach it: box numbers [P], anchor numbers [P], IoU [P]."""
        if not self.are_grids:
            overlap = box_ops.iou(boxes, self.corners)
            number, anchor = np.nonzero(overlap >= least)
            return number, anchor, overlap[number, anchor]
        area = box_ops.area(boxes)
        inside = np.minimum(boxes[:, 2:] - boxes[:, :2], self.shapes[:, None]).prod(axis=2)  # [shapes, N]
        most = inside / (area + self.shapes.prod(axis=1)[:, None] - inside)
        shape, number = np.nonzero(most >= least - 1e-4)  # sides of anchors are rounded in their corners
        found = [[np.zeros(0, int)] * 2 + [np.zeros(0, np.float32)]]
        for start, first, lines, areas in self.levels:
            low, high = np.searchsorted(shape, (first, first + len(lines)))
            if low < high:
                found.append(self.in_level(boxes, area, least, number[low:high], shape[low:high] - first, lines, areas))
                found[-1][1] += start
        return [np.concatenate(part) for part in zip(*found)]

    @staticmethod
    def in_level(boxes, area, least, number, shape, lines, areas):
        """The pairs among boxes `number` and anchors of the shapes `shape`, both [Q], all in one level."""
        (low, high), (anchor_low, anchor_high) = (one.swapaxes(0, 1) for one in
                                                  (boxes[number].reshape(-1, 2, 2, 1), lines[shape]))
        sides = np.maximum(np.minimum(high, anchor_high) - np.maximum(low, anchor_low), 0)  # [Q, x or y, column or row]
        shared = (sides[:, 1, :, None] * sides[:, 0, None]).reshape(len(number), -1)
        overlap = areas[shape]
        overlap += area[number, None]
        overlap -= shared
        np.divide(shared, overlap, out=overlap)
        pair, cell = np.divmod(np.flatnonzero(overlap >= least), areas.shape[1])
        return [number[pair], cell * len(lines) + shape[pair], overlap[pair, cell]]


class Matcher:
    """Ground truth of one image -> labels and regression targets of all anchors.

    An anchor takes the ground truth of highest IoU if that exceeds `threshold`; every ground truth also takes its best
    anchor, whatever the IoU (SSD paper section 2.2). Where two ground truths share the best anchor, the rule decides:
    "zoo" (model zoo official/cv/SSD, ssd_bboxes_encode) leaves it to the first, "nvidia" (also MLPerf, uvipen) and
    "ssd" (torchvision, lufficc, Paddle; a match from the threshold on) to the last.
    Worked example with threshold .5: IoU rows [.2 .6 .3], [.1 .7 .4] both have their best at anchor 1. With "zoo" it
    belongs to row 0 and row 1 gets nothing: its others are below .5. With "ssd" it is the other way round.
    """

    def __init__(self, anchors, threshold=0.5, rule="zoo"):
        """anchors: [A, 4] cx, cy, w, h fractions. rule: of RULES."""
        self.anchors = anchors
        self.overlaps = Overlaps(anchors)
        self.threshold = threshold
        self.rule = RULES[rule]

    def __call__(self, boxes, labels):
        """boxes [N, 4] corners, labels [N] 1..C-1 -> labels [A] int32 (0 = background), targets [A, 4] float32."""
        matched = np.zeros(len(self.anchors), np.int32)
        targets = np.zeros((len(self.anchors), 4), np.float32)
        positive, own_labels, deltas = self.match(boxes, labels)
        matched[positive], targets[positive] = own_labels, deltas
        return matched, targets

    def match(self, boxes, labels):
        """The positives alone: their anchor numbers [P] ascending, labels [P], targets [P, 4]."""
        number, anchor, overlap = self.overlaps(boxes, self.threshold)
        best = self.best(boxes, self.threshold, number, anchor, overlap)
        above = slice(None) if self.rule.inclusive else overlap > self.threshold
        number, anchor, overlap = number[above], anchor[above], overlap[above]
        # of equal places numpy keeps what is written last: the highest IoU, of equals the first box
        order = np.lexsort((-number, overlap))
        owner = np.full(len(self.anchors), -1)
        owner[anchor[order]] = number[order]
        order = np.arange(len(boxes))[:: 1 if self.rule.last_wins else -1]
        owner[best[order]] = order
        positive = np.flatnonzero(owner >= 0)
        owner = owner[positive]
        return positive, labels[owner], box_ops.encode(boxes[owner], self.anchors[positive])

    def best(self, boxes, least, number, anchor, overlap):
        """Each box's anchor of highest IoU [N], of equals the first. The pairs are those that reach `least`."""
        best = np.full(len(boxes), -1)
        order = np.lexsort((-anchor, overlap))
        best[number[order]] = anchor[order]
        rest = np.flatnonzero(best < 0)
        if len(rest) > 0:
            least = least / 4 if least > 0.02 else 0
            best[rest] = self.best(boxes[rest], least, *self.overlaps(boxes[rest], least))
        return best
