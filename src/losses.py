"""Losses of logits [B, A, C], deltas [B, A, 4], labels [B, A] int32, targets [B, A, 4], all in float32."""
from mindspore import dtype as mstype
from mindspore import nn, ops

from src.machine import compat


class FocalLoss(nn.Cell):
    """Sigmoid focal loss of each image [B], summed over all anchors and all C channels, background included as one.

    alpha weighs the one channel that is right, 1 - alpha the others. https://arxiv.org/abs/1708.02002; the background
    channel is the model zoo's (official/cv/SSD, SSDWithLossCell): a negative anchor is a positive of channel 0.
    gamma: any from 0 on.
    """

    def __init__(self, gamma=2.0, alpha=0.25):
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha

    def construct(self, logits, labels):
        one_hot = ops.one_hot(labels, logits.shape[-1], ops.ones((), mstype.float32), ops.zeros((), mstype.float32))
        # log(1 + exp(-|x|)) never overflows, whatever the logit; unlike relu, (x + |x|) / 2 has the right gradient at 0
        size = ops.abs(logits)
        soft = ops.log1p(ops.exp(-size))
        cross_entropy = (logits + size) * 0.5 - logits * one_hot + soft
        weight = one_hot * self.alpha + (1 - one_hot) * (1 - self.alpha)
        return (weight * self.focus(logits, one_hot, size, soft) * cross_entropy).sum((1, 2))

    def focus(self, logits, one_hot, size, soft):
        """(the probability that a channel gives to what is wrong) ** gamma. size: |x|, soft: log(1 + exp(-|x|))."""
        if self.gamma >= 1:
            probability = ops.sigmoid(logits)
            return ops.pow(one_hot + probability - 2 * one_hot * probability, self.gamma)
        # below 1 the gradient of pow is infinite at 0; that of exp(gamma * logarithm) is finite everywhere
        turned = logits - 2 * logits * one_hot
        return ops.exp(((turned - size) * 0.5 - soft) * self.gamma)


class MultiBoxLoss(nn.Cell):
    """Softmax cross-entropy of each image [B], over its positives and `ratio` times as many of its hardest negatives.

    The hardest are those of largest cross-entropy (SSD paper section 2.2); equals at the edge share the places left.
    An image without positives has no negatives either, or with empty_share that share of its anchors (Paddle: .01).
    """

    def __init__(self, ratio=3.0, empty_share=0.0):
        super().__init__()
        self.ratio = ratio
        self.empty_share = empty_share

    def construct(self, logits, labels):
        top = ops.stop_gradient(logits.max(-1, keepdims=True))
        log_sum = ops.log(ops.exp(logits - top).sum(-1)) + top.squeeze(-1)
        own = ops.gather_elements(logits, 2, labels.expand_dims(2).astype(mstype.int32)).squeeze(-1)
        cross_entropy = log_sum - own
        positive = (labels > 0).astype(mstype.float32)
        negatives = ops.stop_gradient(self.hardest(cross_entropy, positive))
        return (cross_entropy * (positive + negatives)).sum(1)

    def hardest(self, cross_entropy, positive):
        """Weights [B, A] of the negatives: 1 for the chosen ones, less for equals at the edge, else 0."""
        anchors = cross_entropy.shape[1]
        found = positive.sum(1, keepdims=True)
        wanted = ops.select(found > 0, ops.floor(found * self.ratio), ops.ones_like(found) *
                            float(-(-self.empty_share * anchors // 1)))
        wanted = ops.minimum(wanted, anchors - found)
        value = ops.select(positive > 0, -ops.ones_like(cross_entropy), cross_entropy)
        ranked, _ = compat.sort(value, 1, True)
        edge = ops.gather_elements(ranked, 1, ops.maximum(wanted - 1, ops.zeros_like(wanted)).astype(mstype.int32))
        above = (value > edge).astype(mstype.float32)
        equal = (value == edge).astype(mstype.float32)
        places = (wanted - above.sum(1, keepdims=True)) / equal.sum(1, keepdims=True)
        return ops.select((wanted > 0).broadcast_to(value.shape), above + equal * places, ops.zeros_like(value))


class DetectionLoss(nn.Cell):
    """Classification and smooth L1 of the positives, divided by the number of positives.

    classification: cell of logits, labels -> [B]. normalizer: "batch" divides the sums by the positives of the batch,
    at least 1; "image" (NVIDIA, MLPerf) divides each image by its own, takes 0 for an image without any, and means over
    the images. Returns loss, its classification and its box part (scalars, already divided) and the positives of the
    batch. The published focal loss divides by zero in a batch without objects; here it still trains its negatives.
    """

    def __init__(self, classification, normalizer="batch"):
        super().__init__()
        self.classification = classification
        self.by_image = normalizer == "image"

    def construct(self, logits, deltas, labels, targets):
        positive = (labels > 0).astype(mstype.float32)
        count = positive.sum(1)
        distance = ops.abs(deltas.astype(mstype.float32) - targets)
        # smooth L1 with beta 1 (https://arxiv.org/abs/1504.08083 eq. 3)
        smooth = ops.select(distance < 1, 0.5 * distance * distance, distance - 0.5).sum(-1)
        box = (smooth * positive).sum(1)
        classification = self.classification(logits.astype(mstype.float32), labels)
        if self.by_image:
            weight = (count > 0).astype(mstype.float32) / ops.maximum(count, ops.ones_like(count)) / count.shape[0]
            box, classification = (box * weight).sum(), (classification * weight).sum()
        else:
            total = ops.maximum(count.sum(), ops.ones((), mstype.float32))
            box, classification = box.sum() / total, classification.sum() / total
        return classification + box, classification, box, count.sum()
