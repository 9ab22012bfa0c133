"""Assigns ground truth to anchors (numpy)."""
import numpy as np

from src import boxes as box_ops


class Matcher:
    """Ground truth of one image -> labels and regression targets of all anchors.

    An anchor takes the ground truth of highest IoU if that exceeds `threshold`; every ground truth also takes its best
    anchor, whatever the IoU (SSD paper section 2.2). Where two ground truths share the best anchor, the first keeps it.
    Worked example with threshold .5: IoU rows [.2 .6 .3], [.1 .7 .4] both have their best at anchor 1. Forced matches
    count as IoU 2, so anchor 1 belongs to row 0 (first of equals) and row 1 gets nothing: its others are below .5.
    Source: model zoo official/cv/SSD, ssd_bboxes_encode.
    """

    def __init__(self, anchors, threshold=0.5):
        """anchors: [A, 4] cx, cy, w, h fractions."""
        self.anchors = anchors
        self.corners = box_ops.to_corners(anchors)
        self.threshold = threshold

    def __call__(self, boxes, labels):
        """boxes [N, 4] corners, labels [N] 1..C-1 -> labels [A] int32 (0 = background), targets [A, 4] float32."""
        matched = np.zeros(len(self.anchors), np.int32)
        targets = np.zeros((len(self.anchors), 4), np.float32)
        if len(boxes) == 0:
            return matched, targets
        overlap = box_ops.iou(boxes, self.corners)
        overlap[np.arange(len(boxes)), overlap.argmax(axis=1)] = 2
        best = overlap.argmax(axis=0)
        positive = np.flatnonzero(overlap.max(axis=0) > self.threshold)
        owner = best[positive]
        matched[positive] = labels[owner]
        targets[positive] = box_ops.encode(boxes[owner], self.anchors[positive])
        return matched, targets
