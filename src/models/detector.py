"""Raw pixels to final boxes in one Cell: what is evaluated is what is exported."""
from __future__ import annotations

import math

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.boxes import MAX_LOG_SCALE, VARIANCES
from src.machine import compat
from src.models.layers import Normalize
from src.models.ssd import Model


class RawDetector(nn.Cell):
    """images [B, S, S, 3] uint8 RGB -> logits [B, A, C], deltas [B, A, 4]: the network without its post-processing."""

    def __init__(self, model: Model):
        super().__init__(auto_prefix=False)  # the network keeps the names of its parameters
        self.network = model.network
        self.normalize = Normalize(model.mean, model.std)

    def construct(self, images: Tensor) -> tuple:
        return self.network(self.normalize(images))


class Detector(RawDetector):
    """Normalisation, network, score function, box decoding and class-wise greedy NMS.

    images [B, S, S, 3] uint8 RGB -> boxes [B, K, 4] x1, y1, x2, y2 in 0..1, scores [B, K] descending, labels [B, K]
    int32 (1..C-1), count [B] int32. Rows from count on are zero. K is max_boxes.

    Only the topk_candidates best (anchor, class) pairs reach NMS, which bounds its quadratic cost; a score must exceed
    min_score, and of two boxes of one class the weaker goes when their IoU exceeds nms_threshold. Boxes are clipped to
    the image before NMS compares them or, as the model's source has it, after. Of equal scores the device chooses which
    is tried first, and which is a candidate where not all can be; the result is that of greedy NMS in this order.
    """

    def __init__(self, model: Model, *, min_score: float = 0.1, nms_threshold: float = 0.6,
                 topk_candidates: int = 1000, max_boxes: int = 100):
        super().__init__(model)
        self.anchor_centers = Tensor(model.anchors[:, :2])
        self.anchor_sizes = Tensor(model.anchors[:, 2:])
        # sigmoid does not change an order, so it can wait until few logits are left
        softmax = model.score == "softmax"
        self.score_all = nn.Softmax(-1) if softmax else nn.Identity()
        self.score_few = nn.Identity() if softmax else nn.Sigmoid()
        self.foreground = model.num_classes - 1
        self.topk_anchors = min(topk_candidates, len(model.anchors))
        self.topk_candidates = min(topk_candidates, len(model.anchors) * self.foreground)
        self.max_boxes = min(max_boxes, self.topk_candidates)
        self.min_score = min_score
        # the largest of each row; on CPU four times as fast as amax
        self.best = nn.MaxPool2d((1, self.foreground), (1, self.foreground))
        self.mod = ops.Mod()
        self.nms = ops.NMSWithMask(nms_threshold)
        self.low, self.high = (0.0, 1.0) if model.clip_before_nms else (-1.0, 2.0)
        self.shift = Tensor(class_shifts(self.foreground, self.high - self.low))
        # n .. 1, which float32 tells apart up to 16.7 million candidates
        self.rank = Tensor(np.arange(self.topk_candidates, 0, -1).astype(np.float32))

    def decode(self, deltas: Tensor, anchor: Tensor) -> Tensor:
        """deltas [B, n, 4] of the anchors with these numbers [B, n] -> corner boxes [B, n, 4] in low..high."""
        size = ops.gather(self.anchor_sizes, anchor, 0)                             # [B, n, 2]
        center = deltas[..., :2] * VARIANCES[0] * size + ops.gather(self.anchor_centers, anchor, 0)
        half = ops.exp(ops.minimum(deltas[..., 2:] * VARIANCES[1], MAX_LOG_SCALE)) * size / 2
        return compat.clamp(ops.concat((center - half, center + half), -1), self.low, self.high)

    def find_candidates(self, logits: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """logits [B, A, C], deltas [B, A, 4] -> the best (anchor, class) pairs of each image, best first.

        scores [B, n], classes [B, n] from 0 without the background, boxes [B, n, 4].
        """
        # The n best pairs are in the n anchors whose own best pairs are best. Sorting the pairs of all anchors, four
        # million for an FPN, would take most of the time.
        values = self.score_all(logits)
        best = self.best(values[..., 1:].expand_dims(1)).reshape((values.shape[0], -1))  # [B, A]
        _, anchor = compat.topk(best, self.topk_anchors)                            # [B, m]
        scores = self.score_few(rows_of(values, anchor))[..., 1:]                   # [B, m, C - 1]
        scores, index = compat.topk(scores.reshape((scores.shape[0], -1)), self.topk_candidates)  # [B, n]
        # ONNX has no whole division here: `place` rounds a quotient that is whole but for float32's last bit
        label = self.mod(index, self.foreground)
        place = ((index - label).astype(mstype.float32) / self.foreground + 0.5).astype(mstype.int32)
        anchor = ops.gather_elements(anchor, 1, place)                              # [B, n]
        return scores, label, self.decode(rows_of(deltas, anchor), anchor)

    def suppress(self, score: Tensor, label: Tensor, box: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """NMS of one image's candidates [n], [n], [n, 4] -> its K boxes, scores, labels and their count."""
        shifted = box + ops.gather(self.shift, label, 0)                            # [n, 4]
        # NMSWithMask sorts its rows, equal scores in any order. Ranks fall strictly: row i of its mask is candidate i.
        _, _, keep = self.nms(ops.concat((shifted, self.rank.expand_dims(1)), 1))   # [n]
        kept = ops.select(ops.logical_and(keep, score > self.min_score), self.rank, ops.zeros_like(self.rank))
        kept, order = compat.topk(kept, self.max_boxes)                             # [K]
        score = ops.select(kept > 0, ops.gather(score, order, 0), ops.zeros_like(kept))
        found = (kept > 0).astype(mstype.int32)
        box = compat.clamp(ops.gather(box, order, 0), 0.0, 1.0) * found.expand_dims(1).astype(mstype.float32)
        label = (ops.gather(label, order, 0) + 1).astype(mstype.int32) * found
        return box, score, label, found.sum().astype(mstype.int32)

    def finish(self, logits: Tensor, deltas: Tensor) -> tuple:
        """logits [B, A, C] and deltas [B, A, 4] of the network -> boxes, scores, labels, count."""
        scores, labels, boxes = self.find_candidates(logits.astype(mstype.float32), deltas.astype(mstype.float32))
        rows = [self.suppress(scores[image], labels[image], boxes[image]) for image in range(logits.shape[0])]
        # joined, not stacked: ONNX as MindSpore writes it would stack through a sequence
        return tuple([ops.concat([row[output].expand_dims(0) for row in rows]) for output in range(4)])

    def construct(self, images: Tensor) -> tuple:
        logits, deltas = self.network(self.normalize(images))
        return self.finish(logits, deltas)


class TracedDetector(Detector):
    """A Detector that also gives logits and deltas, the border between its two parts."""

    def construct(self, images: Tensor) -> tuple:
        logits, deltas = self.network(self.normalize(images))
        return self.finish(logits, deltas) + (logits, deltas)


class AnyBatchDetector(Detector):
    """A Detector whose graph is exported for any number of images: it loops over them where Detector repeats itself."""

    def __init__(self, model: Model, **thresholds: float):
        super().__init__(model, **thresholds)
        self.shape = ops.TensorShape()

    def finish(self, logits: Tensor, deltas: Tensor) -> tuple:
        scores, labels, boxes = self.find_candidates(logits.astype(mstype.float32), deltas.astype(mstype.float32))
        total = self.shape(scores)[0].astype(mstype.int32)
        outputs = (ops.zeros_like(boxes[:, :self.max_boxes]), ops.zeros_like(scores[:, :self.max_boxes]),
                   ops.zeros_like(labels[:, :self.max_boxes]), ops.zeros_like(labels[:, 0]))
        image = total * 0
        while image < total:
            row = self.suppress(ops.gather(scores, image, 0), ops.gather(labels, image, 0), ops.gather(boxes, image, 0))
            outputs = write_row(outputs, row, image.reshape((1, 1)))
            image = image + 1
        return outputs


def class_shifts(classes: int, extent: float) -> np.ndarray:
    """What to add to the boxes of each class, [classes, 4] float32, so that no two classes overlap in one NMS.

    extent: side of the square that holds all boxes. Its copies form a square: the largest shift is sqrt(classes), which
    leaves float32 a thousandth of a pixel; in a row it would be `classes`.
    """
    side = math.ceil(math.sqrt(classes))
    index = np.arange(classes)
    corner = np.stack([index % side, index // side], axis=1) * extent
    return np.concatenate([corner, corner], axis=1).astype(np.float32)


def write_row(outputs: tuple, row: tuple, place: Tensor) -> tuple:
    """outputs, a tuple of arrays [B, ..], with the arrays [..] of row at place [1, 1]."""
    return tuple([ops.tensor_scatter_update(output, place, value.expand_dims(0))
                  for output, value in zip(outputs, row)])


def rows_of(table: Tensor, index: Tensor) -> Tensor:
    """The rows index [B, n] of table [B, A, k] -> [B, n, k]. Indexing a batch of one would copy it value by value."""
    return ops.gather_elements(table, 1, index.expand_dims(2).broadcast_to(index.shape + table.shape[2:]))
