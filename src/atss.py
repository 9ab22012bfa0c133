"""ATSS, adaptive training sample selection (numpy): which anchor belongs to which ground truth. arXiv 1912.02424."""
from __future__ import annotations

import numpy as np

from src.anchors import split_levels
from src.boxes import paired_iou, to_centers, to_corners

NEAREST = 9  # k of the paper, in which AP hardly differs from 7 to 17


class Atss:
    """Each ground truth finds its own threshold of IoU (algorithm 1).

    Its candidates are the anchors of the 9 cells of each level whose centres are nearest, all shapes of a cell, as in
    the authors' code (the paper has one shape a cell). Those whose IoU reaches the mean plus the standard deviation
    of all its candidates, and whose centre is inside the box, are positive. An anchor that several ground truths claim
    goes to the one of highest IoU, of equals to the first.

    Unlike in the paper no ground truth is left out: see keep_each. The paper loses a small box between the centres.
    """

    def __init__(self, anchors: np.ndarray):
        """anchors: [A, 4] cx, cy, w, h as tile_anchors makes them."""
        self.anchors, self.corners = anchors, to_corners(anchors)
        self.levels = split_levels(anchors)

    def owners(self, gt_boxes: np.ndarray) -> np.ndarray:
        """The number [A] of the ground truth of each anchor, -1 for none. gt_boxes: [N, 4] corners."""
        owner = np.full(len(self.anchors), -1)
        if len(gt_boxes) == 0:
            return owner
        candidates = self.candidates(to_centers(gt_boxes)[:, :2])                        # [N, K] numbers of anchors
        overlap = paired_iou(gt_boxes[:, None], self.corners[candidates])                # [N, K]
        center = self.anchors[candidates, :2]                                            # [N, K, 2]
        inside = ((center > gt_boxes[:, None, :2]) & (center < gt_boxes[:, None, 2:])).all(axis=2)
        box, place = np.nonzero(inside & (overlap >= thresholds(overlap)[:, None]))      # [P]
        # of equal places numpy keeps what is written last: the highest IoU, of equals the first ground truth
        order = np.lexsort((-box, overlap[box, place]))
        owner[candidates[box, place][order]] = box[order]
        keep_each(owner, candidates, overlap)
        return owner

    def candidates(self, centers: np.ndarray) -> np.ndarray:
        """The anchors [N, K] of the cells nearest to the centres [N, 2] of the ground truths."""
        found = []
        for start, side, shapes in self.levels:
            count = len(shapes)
            cells = self.anchors[start:start + side * side * count:count, :2].reshape(side, side, 2)
            nearest = nearest_cells(centers, cells[0, :, 0], cells[:, 0, 1])             # [N, k]
            numbers = start + nearest[..., None] * count + np.arange(count)              # [N, k, count]
            found.append(numbers.reshape(len(centers), -1))
        return np.concatenate(found, axis=1)


def nearest_cells(centers: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Numbers [N, k] of the cells nearest to each centre [N, 2], k = 9 or all, nearest first, of equals the first.

    columns [side], rows [side]: cx and cy of the cells, which are numbered row by row. Each of the 9 nearest cells lies
    in one of the 9 nearest columns and one of the 9 nearest rows; so 81 cells are compared, however large the level is.
    """
    x_away, column = nearest_places(centers[:, 0], columns)                              # [N, m]
    y_away, row = nearest_places(centers[:, 1], rows)
    away = (y_away[:, :, None] ** 2 + x_away[:, None] ** 2).reshape(len(centers), -1)    # [N, m * m]
    cells = (row[:, :, None] * len(columns) + column[:, None]).reshape(len(centers), -1)
    return np.take_along_axis(cells, away.argsort(axis=1, kind="stable")[:, :NEAREST], axis=1)


def nearest_places(values: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 9 places [side], or all, nearest to each value [N]: distances [N, m], numbers [N, m] ascending."""
    away = np.abs(values[:, None] - places)                                              # [N, side]
    numbers = np.sort(away.argsort(axis=1, kind="stable")[:, :NEAREST], axis=1)
    return np.take_along_axis(away, numbers, axis=1), numbers


def thresholds(overlap: np.ndarray) -> np.ndarray:
    """Mean plus standard deviation [N] of the IoUs [N, K] of the candidates; divided by K - 1, as the authors' code."""
    mean = overlap.mean(axis=1)
    squares = ((overlap - mean[:, None]) ** 2).sum(axis=1)
    return mean + np.sqrt(squares / max(overlap.shape[1] - 1, 1))


def keep_each(owner: np.ndarray, candidates: np.ndarray, overlap: np.ndarray) -> None:
    """Gives each ground truth without an anchor its candidate of highest IoU, but never another one's only anchor.

    Changes owner [A]. candidates: [N, K] numbers of anchors; overlap: [N, K] their IoUs.
    """
    held = np.bincount(owner[owner >= 0], minlength=len(candidates))                     # [N] anchors of each
    for box in np.flatnonzero(held == 0):
        ranked = candidates[box, np.argsort(-overlap[box], kind="stable")]
        holder = owner[ranked]
        free = ranked[(holder < 0) | (held[holder] > 1)]
        if len(free) == 0:  # more boxes than anchors
            continue
        anchor = free[0]
        if owner[anchor] >= 0:
            held[owner[anchor]] -= 1
        owner[anchor], held[box] = box, 1
