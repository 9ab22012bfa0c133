"""Losses of predicted boxes: deltas and targets [B, A, 4] of boxes.encode -> loss [B, A] and IoU [B, A] in float32.

They take all anchors, and read no labels [B, A]; training/fused_loss.py takes those with positive ones alone.
The IoU of each predicted box with its ground truth comes without a gradient: it is a target for the classification. A
compiled graph leaves out what nobody uses. Both numbers are finite for any finite deltas, and so are the gradients.
"""
from __future__ import annotations

import math

import numpy as np
from mindspore import Tensor, nn, ops

from src.boxes import MAX_LOG_SCALE, VARIANCES
from src.machine import compat

# e^-20 of the anchor is far below a pixel. It keeps sides, areas and what they divide above 0.
MIN_LOG_SCALE = -20.0


class SmoothL1Loss(nn.Cell):
    """Smooth L1 of the deltas with beta 1 (https://arxiv.org/abs/1504.08083 eq. 3), summed over the four."""

    def construct(self, deltas: Tensor, targets: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        distance = ops.abs(deltas - targets)                                        # [B, A, 4]
        smooth = ops.select(distance < 1, 0.5 * distance * distance, distance - 0.5).sum(-1)
        return smooth, ops.stop_gradient(compare(deltas, targets)[0])


class GIoULoss(nn.Cell):
    """1 - GIoU, 0..2: IoU less the share of the hull that neither box fills (https://arxiv.org/abs/1902.09630 alg. 1).

    The hull is the smallest box around both.
    """

    def construct(self, deltas: Tensor, targets: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        iou, union, hull, _, _ = compare(deltas, targets)
        filled = union / hull[..., 0] / hull[..., 1]  # the product of the sides could overflow
        return 2 - iou - filled, ops.stop_gradient(iou)


class CIoULoss(nn.Cell):
    """1 - CIoU: 1 - IoU, plus the squared distance of the centres by the squared diagonal of the hull, plus alpha * v.

    v is the squared difference of the angles arctan(w / h), times 4 / pi^2; alpha = v / (1 - IoU + v) has no gradient
    (https://arxiv.org/abs/1911.08287 eq. 8 to 11). The paper replaces the gradient of arctan, which grows without limit
    in small boxes; that for deltas, logarithms of sides, is at most 1/2 and needs no such change.
    anchors: [A, 4] cx, cy, w, h.
    """

    def __init__(self, anchors: np.ndarray):
        super().__init__()
        self.sizes = Tensor(anchors[:, 2:])                                         # [A, 2]
        self.ratio = Tensor(anchors[:, 2] / anchors[:, 3])                          # [A]

    def construct(self, deltas: Tensor, targets: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        iou, _, hull, distance, sides = compare(deltas, targets)
        hull, distance = hull * self.sizes, distance * self.sizes                   # [B, A, 2], of the image
        unit = ops.stop_gradient(hull.max(-1, keepdims=True))                       # [B, A, 1], against overflow
        apart = ops.square(distance / unit).sum(-1) / ops.square(hull / unit).sum(-1)  # [B, A]
        predicted, true = sides
        turn = self.angle(true) - self.angle(predicted)                             # [B, A]
        shape = 4 / math.pi ** 2 * turn * turn
        alpha = ops.stop_gradient(shape / ops.maximum(1 - iou + shape, 1e-7))       # 0 / 0 where both boxes are equal
        return 1 - iou + apart + alpha * shape, ops.stop_gradient(iou)

    def angle(self, sides: Tensor) -> Tensor:
        """arctan(w / h) [B, A] of sides [B, A, 2] in units of the anchor."""
        return ops.atan(sides[..., 0] / sides[..., 1] * self.ratio)


def compare(deltas: Tensor, targets: Tensor) -> tuple:
    """Predicted and true boxes of each anchor, compared in units of that anchor's width and height.

    Areas by areas, so IoU and GIoU, are the same in these units, and small boxes keep their precision. Returns IoU
    [B, A], union [B, A], sides of the hull [B, A, 2], distances of the centres [B, A, 2] in x and y, and the sides of
    both boxes, a pair of [B, A, 2].
    """
    distance = ops.abs(deltas[..., :2] - targets[..., :2]) * VARIANCES[0]
    predicted, true = decode_sides(deltas), decode_sides(targets)
    # Along one axis two intervals of lengths a, b with centres d apart share min(a, b, (a + b) / 2 - d), at least 0.
    # Differences of corners would lose a box that is small by its distance from 0.
    middle = (predicted + true) / 2
    shared = ops.maximum(ops.minimum(ops.minimum(predicted, true), middle - distance), 0.0)
    hull = ops.maximum(ops.maximum(predicted, true), middle + distance)
    intersection = shared[..., 0] * shared[..., 1]                                  # [B, A]
    union = predicted[..., 0] * predicted[..., 1] + true[..., 0] * true[..., 1] - intersection
    return intersection / union, union, hull, distance, (predicted, true)


def decode_sides(deltas: Tensor) -> Tensor:
    """Width and height [B, A, 2] of the boxes of deltas [B, A, 4], in units of the anchor."""
    return ops.exp(compat.clamp(deltas[..., 2:] * VARIANCES[1], MIN_LOG_SCALE, MAX_LOG_SCALE))
