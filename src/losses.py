"""Losses of logits [B, A, C], deltas [B, A, 4], labels [B, A] int32, targets [B, A, 4], all in float32."""
from __future__ import annotations

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.box_losses import SmoothL1Loss
from src.machine import compat


class FocalLoss(nn.Cell):
    """Sigmoid focal loss of each image [B], summed over all anchors and all C channels, the background's too.

    gamma: any from 0 on. alpha: weight of the right channel of an anchor; the others have 1 - alpha.
    https://arxiv.org/abs/1708.02002; the channel of the background is the model zoo's (official/cv/SSD,
    SSDWithLossCell): a negative anchor is a positive of channel 0.
    """

    def __init__(self, gamma: float = 2.0, alpha: float = 0.25):
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        one_hot = ops.one_hot(labels, logits.shape[-1], ops.ones((), mstype.float32), ops.zeros((), mstype.float32))
        # log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), which never overflows. max(x, 0) is written (x + |x|) / 2,
        # which has the right gradient at 0; relu has not.
        magnitude = ops.abs(logits)                      # [B, A, C], as all up to the last line
        log_term = ops.log1p(ops.exp(-magnitude))
        cross_entropy = (logits + magnitude) * 0.5 - logits * one_hot + log_term
        weight = one_hot * self.alpha + (1 - one_hot) * (1 - self.alpha)
        if self.gamma >= 1:
            probability = ops.sigmoid(logits)
            wrong = one_hot + probability - 2 * one_hot * probability  # 1 - p in the right channel, p in the others
            modulating = ops.pow(wrong, self.gamma)
        else:
            # below 1 the gradient of pow is infinite at 0; that of exp(gamma * log(wrong)) is finite everywhere
            wrong_logit = logits - 2 * logits * one_hot  # wrong = sigmoid(wrong_logit): -x in the right channel, else x
            modulating = ops.exp(((wrong_logit - magnitude) * 0.5 - log_term) * self.gamma)
        return (weight * modulating * cross_entropy).sum((1, 2))  # [B]


class MultiBoxLoss(nn.Cell):
    """Softmax cross-entropy of each image [B], over its positives and its hardest negatives.

    negative_ratio: negatives for each positive. The hardest have the largest cross-entropy (SSD paper section 2.2);
    ties at the last place share the places left. empty_negatives: an image without positives has this share of its
    anchors as negatives, by default none (Paddle: 0.01).
    """

    def __init__(self, negative_ratio: float = 3.0, empty_negatives: float = 0.0):
        super().__init__()
        self.negative_ratio = negative_ratio
        self.empty_negatives = empty_negatives

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        top = ops.stop_gradient(logits.max(-1, keepdims=True))                       # [B, A, 1]
        log_sum = ops.log(ops.exp(logits - top).sum(-1)) + top.squeeze(-1)           # [B, A]
        own = ops.gather_elements(logits, 2, labels.expand_dims(2).astype(mstype.int32)).squeeze(-1)
        cross_entropy = log_sum - own                                                # [B, A]
        positive = (labels > 0).astype(mstype.float32)
        negatives = ops.stop_gradient(self.hardest(cross_entropy, positive))
        return (cross_entropy * (positive + negatives)).sum(1)                       # [B]

    def hardest(self, cross_entropy: Tensor, positive: Tensor) -> Tensor:
        """Weights [B, A] of the negatives: 1 for the chosen ones, less for ties at the last place, else 0."""
        anchors = cross_entropy.shape[1]
        positives = positive.sum(1, keepdims=True)                                   # [B, 1]
        # rounded up, with operators that a graph of MindSpore 1.10 knows too
        without_positives = -(-self.empty_negatives * anchors // 1)
        wanted = ops.select(positives > 0, ops.floor(positives * self.negative_ratio),
                            ops.ones_like(positives) * float(without_positives))
        wanted = ops.minimum(wanted, anchors - positives)
        value = ops.select(positive > 0, -ops.ones_like(cross_entropy), cross_entropy)  # [B, A]
        ranked, _ = compat.sort(value, 1, True)
        last = ops.maximum(wanted - 1, ops.zeros_like(wanted)).astype(mstype.int32)
        edge = ops.gather_elements(ranked, 1, last)                                  # [B, 1]
        above = (value > edge).astype(mstype.float32)
        tied = (value == edge).astype(mstype.float32)
        share = (wanted - above.sum(1, keepdims=True)) / tied.sum(1, keepdims=True)
        return ops.select((wanted > 0).broadcast_to(value.shape), above + tied * share, ops.zeros_like(value))


class DetectionLoss(nn.Cell):
    """Classification of all anchors and boxes of the positives, divided by the number of positives.

    classification: cell of logits, labels -> [B]. box: cell of deltas, targets -> loss [B, A] and IoU [B, A]
    (box_losses.py). box_weight: factor of the box part. normalizer: "batch" divides the sums by the positives of the
    batch, at least 1; "image" (NVIDIA, MLPerf) divides each image by its own, takes 0 for an image without any, and
    averages over the images. The option's "local" is "batch" here: TrainStep then leaves out its correction to the
    positives of all processes (training/build.py). Returns loss, its classification and its box part (scalars, already
    weighted and divided) and the positives of the batch. The published focal loss divides by zero in a batch without
    objects; here it still trains its negatives.
    """

    def __init__(self, classification: nn.Cell, normalizer: str = "batch", *, box: nn.Cell | None = None,
                 box_weight: float = 1.0):
        super().__init__()
        self.classification = classification
        self.box = SmoothL1Loss() if box is None else box
        self.box_weight = box_weight
        self.by_image = normalizer == "image"

    def construct(self, logits: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor) -> tuple:
        positive = (labels > 0).astype(mstype.float32)                     # [B, A]
        count = positive.sum(1)                                            # [B]
        box, _ = self.box(deltas.astype(mstype.float32), targets)          # [B, A]
        box = (box * positive).sum(1) * self.box_weight                    # [B]
        classification = self.classification(logits.astype(mstype.float32), labels)
        if self.by_image:
            weight = (count > 0).astype(mstype.float32) / ops.maximum(count, ops.ones_like(count)) / count.shape[0]
            box, classification = (box * weight).sum(), (classification * weight).sum()
        else:
            total = ops.maximum(count.sum(), ops.ones((), mstype.float32))
            box, classification = box.sum() / total, classification.sum() / total
        return classification + box, classification, box, count.sum()
