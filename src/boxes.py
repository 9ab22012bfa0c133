"""Box arithmetic (numpy). Corner boxes are x1, y1, x2, y2, centre boxes cx, cy, w, h: float32 fractions of an image."""
import numpy as np

VARIANCES = (0.1, 0.2)  # SSD paper's released code: deltas of the centre are divided by 0.1, of the log size by 0.2
SMALLEST_SIDE = 1e-6    # keeps log() finite for a box without extent


def to_corners(boxes):
    """[..., 4] cx, cy, w, h -> x1, y1, x2, y2."""
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def to_centers(boxes):
    """[..., 4] x1, y1, x2, y2 -> cx, cy, w, h."""
    return np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], axis=-1)


def area(boxes):
    """[..., 4] corner boxes -> [...]; a reversed box has area 0."""
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)


def iou(first, second):
    """Intersection over union of every pair: [N, 4] and [A, 4] corner boxes -> [N, A], 0..1; 0 where both are empty."""
    first = first[:, None]
    corner = np.maximum(first[..., :2], second[:, :2])
    sides = np.maximum(np.minimum(first[..., 2:], second[:, 2:]) - corner, 0)
    shared = sides[..., 0] * sides[..., 1]
    union = area(first) + area(second) - shared
    return np.where(union > 0, shared / np.maximum(union, 1e-12), 0)


def encode(boxes, anchors, variances=VARIANCES):
    """Regression targets of corner boxes [N, 4] seen from centre anchors [N, 4] -> deltas [N, 4] (dx, dy, dw, dh)."""
    boxes = to_centers(boxes)
    offset = (boxes[:, :2] - anchors[:, :2]) / (anchors[:, 2:] * variances[0])
    size = np.log(np.maximum(boxes[:, 2:], SMALLEST_SIDE) / anchors[:, 2:]) / variances[1]
    return np.concatenate([offset, size], axis=1).astype(np.float32)


def decode(deltas, anchors, variances=VARIANCES):
    """Inverse of encode: deltas [..., A, 4] and centre anchors [A, 4] -> corner boxes [..., A, 4], not clipped."""
    center = deltas[..., :2] * variances[0] * anchors[:, 2:] + anchors[:, :2]
    size = np.exp(deltas[..., 2:] * variances[1]) * anchors[:, 2:]
    return to_corners(np.concatenate([center, size], axis=-1)).astype(np.float32)
