"""Box arithmetic (numpy). Corner boxes are x1, y1, x2, y2, centre boxes cx, cy, w, h: float32 fractions of an image."""
import math

import numpy as np

VARIANCES = (0.1, 0.2)  # SSD paper's released code: deltas of the centre are divided by 0.1, of the log size by 0.2
MIN_SIDE = 1e-6         # keeps log() finite for a box without extent
MAX_LOG_SCALE = math.log(1000 / 16)  # of a box to its anchor; torchvision's (BoxCoder). It keeps exp() finite.


def to_corners(boxes: np.ndarray) -> np.ndarray:
    """[..., 4] cx, cy, w, h -> x1, y1, x2, y2."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([center - half, center + half], axis=-1)


def to_centers(boxes: np.ndarray) -> np.ndarray:
    """[..., 4] x1, y1, x2, y2 -> cx, cy, w, h."""
    return np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], axis=-1)


def area(boxes: np.ndarray) -> np.ndarray:
    """[..., 4] corner boxes -> [...]; a reversed box has area 0."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]  # np.prod over two takes five times as long


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair: corner boxes [N, 4] and [A, 4] -> [N, A]."""
    return paired_iou(first[:, None], second)


def paired_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union: corner boxes [..., 4] with [..., 4], broadcast -> [...]; 0 where both are empty."""
    corner = np.maximum(first[..., :2], second[..., :2])                        # [..., 2]
    sides = np.maximum(np.minimum(first[..., 2:], second[..., 2:]) - corner, 0)
    shared = sides[..., 0] * sides[..., 1]                                      # [...]
    union = area(first) + area(second) - shared
    return np.where(union > 0, shared / np.maximum(union, 1e-12), 0)


def encode(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Regression targets of corner boxes [N, 4], each for its anchor [N, 4] -> deltas [N, 4] (dx, dy, dw, dh)."""
    boxes = to_centers(boxes)
    offset = (boxes[:, :2] - anchors[:, :2]) / (anchors[:, 2:] * VARIANCES[0])
    size = np.log(np.maximum(boxes[:, 2:], MIN_SIDE) / anchors[:, 2:]) / VARIANCES[1]
    return np.concatenate([offset, size], axis=1).astype(np.float32)


def decode(deltas: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Inverse of encode: deltas [..., A, 4] and centre anchors [A, 4] -> corner boxes [..., A, 4], not clipped."""
    center = deltas[..., :2] * VARIANCES[0] * anchors[:, 2:] + anchors[:, :2]
    size = np.exp(deltas[..., 2:] * VARIANCES[1]) * anchors[:, 2:]
    return to_corners(np.concatenate([center, size], axis=-1)).astype(np.float32)
