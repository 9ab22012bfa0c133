"""Losses of logits [B, A, C], deltas [B, A, 4], labels [B, A] int32, targets [B, A, 4], all in float32."""
from __future__ import annotations

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.box_losses import SmoothL1Loss
from src.machine import compat


def softplus_parts(logits: Tensor) -> tuple[Tensor, Tensor]:
    """|x| and log(1 + exp(-|x|)) of logits x, of which both log(p) and log(1 - p) of p = sigmoid(x) are made.

    -log(1 - p) = log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), which never overflows, and -log(p) is the same of
    -x. max(x, 0) is written (x + |x|) / 2, which has the right gradient at 0; relu has not.
    """
    magnitude = ops.abs(logits)
    return magnitude, ops.log1p(ops.exp(-magnitude))


def binary_cross_entropy(logits: Tensor, targets: Tensor, parts: tuple[Tensor, Tensor]) -> Tensor:
    """-t log(p) - (1 - t) log(1 - p) for p = sigmoid(logit) and a target t of 0..1. parts: softplus_parts(logits)."""
    magnitude, log_term = parts
    return (logits + magnitude) * 0.5 - logits * targets + log_term


def one_hot_labels(labels: Tensor, channels: int) -> Tensor:
    """labels [B, A] -> [B, A, channels] float32: 1 in the channel of the label, else 0."""
    return ops.one_hot(labels, channels, ops.ones((), mstype.float32), ops.zeros((), mstype.float32))


class FocalLoss(nn.Cell):
    """Sigmoid focal loss of each image [B], summed over all anchors and all C channels, the background's too.

    gamma: any from 0 on. alpha: weight of the right channel of an anchor; the others have 1 - alpha.
    https://arxiv.org/abs/1708.02002; the channel of the background is the model zoo's (official/cv/SSD,
    SSDWithLossCell): a negative anchor is a positive of channel 0.
    label_smoothing: s makes the targets of the cross-entropy 1 - s / 2 in the right channel and s / 2 in the others;
    the weights are those of the labels as they are (google/automl, efficientdet).
    """

    def __init__(self, gamma: float = 2.0, alpha: float = 0.25, *, label_smoothing: float = 0.0):
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha
        self.label_smoothing = label_smoothing

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        one_hot = one_hot_labels(labels, logits.shape[-1])  # [B, A, C], as all up to the last line
        targets = one_hot
        if self.label_smoothing > 0:
            targets = one_hot * (1 - self.label_smoothing) + self.label_smoothing / 2
        magnitude, log_term = softplus_parts(logits)
        cross_entropy = binary_cross_entropy(logits, targets, (magnitude, log_term))
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
    label_smoothing: s makes the targets 1 - s + s / C in the right channel and s / C in the others
    (https://arxiv.org/abs/1512.00567 section 7). The hardest negatives are still those whose background is least
    probable.
    """

    def __init__(self, negative_ratio: float = 3.0, empty_negatives: float = 0.0, *, label_smoothing: float = 0.0):
        super().__init__()
        self.negative_ratio = negative_ratio
        self.empty_negatives = empty_negatives
        self.label_smoothing = label_smoothing

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        top = ops.stop_gradient(logits.max(-1, keepdims=True))                       # [B, A, 1]
        log_sum = ops.log(ops.exp(logits - top).sum(-1)) + top.squeeze(-1)           # [B, A]
        own = ops.gather_elements(logits, 2, labels.expand_dims(2).astype(mstype.int32)).squeeze(-1)
        cross_entropy = log_sum - own                                                # [B, A]
        positive = (labels > 0).astype(mstype.float32)
        negatives = ops.stop_gradient(self.hardest(cross_entropy, positive))
        if self.label_smoothing > 0:  # log_sum - (1 - s) * own - s * mean
            cross_entropy = cross_entropy + self.label_smoothing * (own - logits.mean(-1))
        return (cross_entropy * (positive + negatives)).sum(1)                       # [B]

    def least_negatives(self, anchors: int) -> float:
        """How many negatives an image without positives has."""
        # rounded up, with operators that a graph of MindSpore 1.10 knows too
        return float(-(-self.empty_negatives * anchors // 1))

    def hardest(self, cross_entropy: Tensor, positive: Tensor) -> Tensor:
        """Weights [B, A] of the negatives: 1 for the chosen ones, less for ties at the last place, else 0."""
        anchors = cross_entropy.shape[1]
        positives = positive.sum(1, keepdims=True)                                   # [B, 1]
        wanted = ops.select(positives > 0, ops.floor(positives * self.negative_ratio),
                            ops.ones_like(positives) * self.least_negatives(anchors))
        wanted = ops.minimum(wanted, anchors - positives)
        value = ops.select(positive > 0, -ops.ones_like(cross_entropy), cross_entropy)  # [B, A]
        ranked, _ = compat.sort(value, 1, True)
        last = ops.maximum(wanted - 1, ops.zeros_like(wanted)).astype(mstype.int32)
        edge = ops.gather_elements(ranked, 1, last)                                  # [B, 1]
        above = (value > edge).astype(mstype.float32)
        tied = (value == edge).astype(mstype.float32)
        share = (wanted - above.sum(1, keepdims=True)) / tied.sum(1, keepdims=True)
        return ops.select((wanted > 0).broadcast_to(value.shape), above + tied * share, ops.zeros_like(value))


class QualityFocalLoss(nn.Cell):
    """Quality focal loss of each image [B] (https://arxiv.org/abs/2006.04388 eq. 2), with sigmoid scores.

    The target of a positive's class is the IoU of its predicted box with the ground truth, so a score says how good the
    box is; all others are 0. Each cross-entropy is multiplied by |target - p| ** gamma; gamma, any from 0 on, is the
    paper's beta. The channel of the background has no part in it, and so no gradient: as in the paper each class is
    told from all else by itself, and the detector does not read that channel.
    """
    uses_iou = True  # the third input

    def __init__(self, gamma: float = 2.0):
        super().__init__()
        self.gamma = gamma

    def construct(self, logits: Tensor, labels: Tensor, iou: Tensor) -> Tensor:
        logits, targets = quality_targets(logits, labels, iou)
        distance = ops.abs(targets - ops.sigmoid(logits))              # [B, A, C - 1]
        if self.gamma < 1:
            distance = ops.maximum(distance, 1e-6)  # the gradient of pow would be infinite at 0
        cross_entropy = binary_cross_entropy(logits, targets, softplus_parts(logits))
        return (ops.pow(distance, self.gamma) * cross_entropy).sum((1, 2))


class VarifocalLoss(nn.Cell):
    """Varifocal loss of each image [B] (https://arxiv.org/abs/2008.13367 eq. 2): targets as in QualityFocalLoss.

    The weight of a positive's class is its target, so good boxes count most. The weight of all others, and of a
    positive with IoU 0, is (1 - alpha) * p ** gamma. 1 - alpha is that of the negatives as in FocalLoss, so .25 is the
    published value: the paper calls the .75 alpha.
    """
    uses_iou = True

    def __init__(self, gamma: float = 2.0, alpha: float = 0.25):
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha

    def construct(self, logits: Tensor, labels: Tensor, iou: Tensor) -> Tensor:
        logits, targets = quality_targets(logits, labels, iou)
        magnitude, log_term = softplus_parts(logits)                   # [B, A, C - 1], as all below
        # p ** gamma; the gradient of pow would be infinite at 0 for a gamma below 1
        modulating = ops.exp(((logits - magnitude) * 0.5 - log_term) * self.gamma)
        weight = ops.select(targets > 0, targets, modulating * (1 - self.alpha))
        return (weight * binary_cross_entropy(logits, targets, (magnitude, log_term))).sum((1, 2))


def quality_targets(logits: Tensor, labels: Tensor, iou: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and targets [B, A, C - 1] of all classes but the background: the IoU [B, A] in the label's channel."""
    targets = one_hot_labels(labels, logits.shape[-1]) * iou.expand_dims(2)
    return logits[..., 1:], targets[..., 1:]


class DetectionLoss(nn.Cell):
    """Classification of all anchors and boxes of the positives, divided by the number of positives.

    classification: cell of logits, labels and, where it has uses_iou, the IoU [B, A] of the boxes -> [B]. box: cell of
    deltas, targets, labels -> loss [B, A] and IoU [B, A] (box_losses.py). box_weight: factor of the box part.
    normalizer: "batch" divides the sums by the positives of the batch, at least 1; "image" (NVIDIA, MLPerf) divides
    each image by its own, takes 0 for an image without any, and averages over the images. The option's "local" is
    "batch" here: TrainStep then leaves out its correction to the positives of all processes (training/build.py).
    Returns loss, its classification and its box part (scalars, already weighted and divided) and the positives of the
    batch. The published focal loss divides by zero in a batch without objects; here it still trains its negatives.
    """

    def __init__(self, classification: nn.Cell, normalizer: str = "batch", *, box: nn.Cell | None = None,
                 box_weight: float = 1.0):
        super().__init__()
        self.classification = classification
        self.box = SmoothL1Loss() if box is None else box
        self.box_weight = box_weight
        self.uses_iou = getattr(classification, "uses_iou", False)
        self.by_image = normalizer == "image"

    def construct(self, logits: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor) -> tuple:
        positive = (labels > 0).astype(mstype.float32)                     # [B, A]
        count = positive.sum(1)                                            # [B]
        box, iou = self.box(deltas.astype(mstype.float32), targets, labels)  # [B, A]
        box = (box * positive).sum(1) * self.box_weight                    # [B]
        logits = logits.astype(mstype.float32)
        if self.uses_iou:
            classification = self.classification(logits, labels, iou)      # [B]
        else:
            classification = self.classification(logits, labels)
        if self.by_image:
            weight = (count > 0).astype(mstype.float32) / ops.maximum(count, ops.ones_like(count)) / count.shape[0]
            box, classification = (box * weight).sum(), (classification * weight).sum()
        else:
            total = ops.maximum(count.sum(), ops.ones((), mstype.float32))
            box, classification = box.sum() / total, classification.sum() / total
        return classification + box, classification, box, count.sum()
