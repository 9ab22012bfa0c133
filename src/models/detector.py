"""Raw pixels to final boxes in one Cell: what is evaluated is what is exported."""
import math

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.boxes import VARIANCES
from src.machine import compat
from src.models.layers import Normalize

LARGEST_GROWTH = math.log(1000 / 16)


class Detector(nn.Cell):
    """Normalisation, network, score function, box decoding and class-wise greedy NMS.

    images [B, S, S, 3] uint8 RGB -> boxes [B, K, 4] x1, y1, x2, y2 in 0..1, scores [B, K] descending, labels [B, K]
    int32 (1..C-1), count [B] int32. Rows from count on are zero. K is max_boxes.

    Only the topk_candidates best (anchor, class) pairs reach NMS, which bounds its quadratic cost; a score must exceed
    min_score, and of two boxes of one class the weaker goes when their IoU exceeds nms_threshold. Boxes are clipped to
    the image before NMS compares them or, as the model's source has it, after. Of equal scores the device chooses which
    is tried first, and which is a candidate where not all can be; the result is that of greedy NMS in this order.
    """

    def __init__(self, model, *, min_score=0.1, nms_threshold=0.6, topk_candidates=1000, max_boxes=100):
        super().__init__(auto_prefix=False)  # the network keeps the names of its parameters
        self.network = model.network
        self.normalize = Normalize(model.mean, model.std)
        self.center = Tensor(model.anchors[:, :2])
        self.size = Tensor(model.anchors[:, 2:])
        # sigmoid does not change an order, so it can wait until few logits are left
        self.compare, self.score = {"sigmoid": (nn.Identity(), nn.Sigmoid()),
                                    "softmax": (nn.Softmax(-1), nn.Identity())}[model.score]
        self.foreground = model.num_classes - 1
        self.topk_anchors = min(topk_candidates, len(model.anchors))
        self.topk_candidates = min(topk_candidates, len(model.anchors) * self.foreground)
        self.max_boxes = min(max_boxes, self.topk_candidates)
        self.min_score = min_score
        self.mod = ops.Mod()
        self.nms = ops.NMSWithMask(nms_threshold)
        self.low, self.high = (0.0, 1.0) if model.clip_before_nms else (-1.0, 2.0)
        # Boxes lie in low..high, so a shift of that much a class keeps classes apart in one NMS. On a square of images
        # the largest shift is sqrt(C), which leaves float32 a thousandth of a pixel; in a row it would be C.
        side = math.ceil(math.sqrt(self.foreground))
        index = np.arange(self.foreground)
        corner = np.stack([index % side, index // side], axis=1) * (self.high - self.low)
        self.shift = Tensor(np.concatenate([corner, corner], axis=1).astype(np.float32))
        # n .. 1, which float32 tells apart up to 16.7 million candidates
        self.rank = Tensor(np.arange(self.topk_candidates, 0, -1).astype(np.float32))

    def decode(self, deltas, anchor):
        """deltas [B, n, 4] of the anchors with these numbers [B, n] -> corner boxes [B, n, 4] in low..high."""
        size = ops.gather(self.size, anchor, 0)
        center = deltas[..., :2] * VARIANCES[0] * size + ops.gather(self.center, anchor, 0)
        # the limit keeps exp() finite; it is torchvision's, and no box of an image is 62 times its anchor
        half = ops.exp(ops.minimum(deltas[..., 2:] * VARIANCES[1], LARGEST_GROWTH)) * size / 2
        return compat.clamp(ops.concat((center - half, center + half), -1), self.low, self.high)

    def find_candidates(self, logits, deltas):
        """logits [B, A, C], deltas [B, A, 4] -> the best (anchor, class) pairs of each image, best first.

        scores [B, n], classes [B, n] from 0 without the background, boxes [B, n, 4].
        """
        # The n best pairs are in the n anchors whose own best pairs are best. Sorting the pairs of all anchors, four
        # million for an FPN, would take most of the time.
        values = self.compare(logits)
        _, anchor = compat.topk(ops.amax(values[..., 1:], -1), self.topk_anchors)
        scores = self.score(rows_of(values, anchor))[..., 1:]
        scores, index = compat.topk(scores.reshape((scores.shape[0], -1)), self.topk_candidates)
        # ONNX has no whole division here: `place` rounds a quotient that is whole but for float32's last bit
        label = self.mod(index, self.foreground)
        place = ((index - label).astype(mstype.float32) / self.foreground + 0.5).astype(mstype.int32)
        anchor = ops.gather_elements(anchor, 1, place)
        return scores, label, self.decode(rows_of(deltas, anchor), anchor)

    def suppress(self, score, label, box):
        """NMS of one image's candidates [n], [n], [n, 4] -> its K boxes, scores, labels and their count."""
        shifted = box + ops.gather(self.shift, label, 0)
        # NMSWithMask sorts its rows, equal scores in any order. Ranks fall strictly: row i of its mask is candidate i.
        _, _, keep = self.nms(ops.concat((shifted, self.rank.expand_dims(1)), 1))
        kept = ops.select(ops.logical_and(keep, score > self.min_score), self.rank, ops.zeros_like(self.rank))
        kept, order = compat.topk(kept, self.max_boxes)
        score = ops.select(kept > 0, ops.gather(score, order, 0), ops.zeros_like(kept))
        found = (kept > 0).astype(mstype.int32)
        box = compat.clamp(ops.gather(box, order, 0), 0.0, 1.0) * found.expand_dims(1).astype(mstype.float32)
        label = (ops.gather(label, order, 0) + 1).astype(mstype.int32) * found
        return box, score, label, found.sum().astype(mstype.int32)

    def finish(self, logits, deltas):
        """logits [B, A, C] and deltas [B, A, 4] of the network -> boxes, scores, labels, count."""
        scores, labels, boxes = self.find_candidates(logits.astype(mstype.float32), deltas.astype(mstype.float32))
        rows = [self.suppress(scores[image], labels[image], boxes[image]) for image in range(logits.shape[0])]
        # joined, not stacked: ONNX as MindSpore writes it would stack through a sequence
        return tuple([ops.concat([row[output].expand_dims(0) for row in rows]) for output in range(4)])

    def construct(self, images):
        logits, deltas = self.network(self.normalize(images))
        return self.finish(logits, deltas)


class TracedDetector(Detector):
    """A Detector that also gives logits and deltas, the border between its two parts."""

    def construct(self, images):
        logits, deltas = self.network(self.normalize(images))
        return self.finish(logits, deltas) + (logits, deltas)


class AnyBatchDetector(Detector):
    """A Detector whose graph is exported for any number of images: it loops over them where Detector repeats itself."""

    def __init__(self, model, **thresholds):
        super().__init__(model, **thresholds)
        self.shape = ops.TensorShape()

    def finish(self, logits, deltas):
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


def write_row(outputs, row, place):
    """outputs, a tuple of arrays [B, ..], with the arrays [..] of row at place [1, 1]."""
    return tuple([ops.tensor_scatter_update(all_rows, place, one.expand_dims(0))
                  for all_rows, one in zip(outputs, row)])


def rows_of(table, index):
    """The rows index [B, n] of table [B, A, k] -> [B, n, k]. Indexing a batch of one would copy it value by value."""
    return ops.gather_elements(table, 1, index.expand_dims(2).broadcast_to(index.shape + table.shape[2:]))


class RawDetector(nn.Cell):
    """images [B, S, S, 3] uint8 RGB -> logits [B, A, C], deltas [B, A, 4]: the network without its post-processing."""

    def __init__(self, model):
        super().__init__(auto_prefix=False)  # the network keeps the names of its parameters
        self.network = model.network
        self.normalize = Normalize(model.mean, model.std)

    def construct(self, images):
        return self.network(self.normalize(images))
