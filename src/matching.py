"""Assigns ground truth to anchors (numpy)."""
from collections import namedtuple

import numpy as np

from src import boxes as box_ops

# inclusive: an IoU of exactly the threshold is a match. last_wins: who keeps a best anchor that two boxes share.
Rule = namedtuple("Rule", "inclusive last_wins")
RULES = {"zoo": Rule(False, False), "ssd": Rule(True, True), "nvidia": Rule(False, True)}


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
        self.corners = box_ops.to_corners(anchors)
        self.threshold = threshold
        self.rule = RULES[rule]

    def __call__(self, boxes, labels):
        """boxes [N, 4] corners, labels [N] 1..C-1 -> labels [A] int32 (0 = background), targets [A, 4] float32."""
        matched = np.zeros(len(self.anchors), np.int32)
        targets = np.zeros((len(self.anchors), 4), np.float32)
        if len(boxes) == 0:
            return matched, targets
        overlap = box_ops.iou(boxes, self.corners)
        forced = overlap.argmax(axis=1)
        best, value = overlap.argmax(axis=0), overlap.max(axis=0)
        value[forced] = 2
        order = np.arange(len(boxes)) if self.rule.last_wins else np.arange(len(boxes))[::-1]
        best[forced[order]] = order  # of equal places numpy keeps what is written last
        positive = np.flatnonzero(value >= self.threshold if self.rule.inclusive else value > self.threshold)
        owner = best[positive]
        matched[positive] = labels[owner]
        targets[positive] = box_ops.encode(boxes[owner], self.anchors[positive])
        return matched, targets
