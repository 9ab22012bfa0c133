"""Losses of logits [B, A, C], deltas [B, A, 4], labels [B, A] int32, targets [B, A, 4]: sums over a batch, float32."""
from mindspore import dtype as mstype
from mindspore import nn, ops


class FocalLoss(nn.Cell):
    """Sigmoid focal loss summed over all anchors and all C channels, background included as a channel of its own.

    alpha weighs the one channel that is right, 1 - alpha the others. https://arxiv.org/abs/1708.02002; the background
    channel is the model zoo's (official/cv/SSD, SSDWithLossCell): a negative anchor is a positive of channel 0.
    """

    def __init__(self, gamma=2.0, alpha=0.25):
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha

    def construct(self, logits, labels):
        one_hot = ops.one_hot(labels, logits.shape[-1], ops.ones((), mstype.float32), ops.zeros((), mstype.float32))
        # log(1 + exp(-|x|)) never overflows, whatever the logit
        cross_entropy = ops.relu(logits) - logits * one_hot + ops.log1p(ops.exp(-ops.abs(logits)))
        probability = ops.sigmoid(logits)
        wrong = one_hot + probability - 2 * one_hot * probability
        weight = one_hot * self.alpha + (1 - one_hot) * (1 - self.alpha)
        return (weight * ops.pow(wrong, self.gamma) * cross_entropy).sum()


class DetectionLoss(nn.Cell):
    """(classification + smooth L1 of the positives) / number of positives in the batch, at least 1.

    Returns loss, its classification and its box part (scalars, already divided) and the number of positives. The
    published loss divides by zero in a batch without objects; here such a batch still trains its negatives.
    """

    def __init__(self, classification):
        super().__init__()
        self.classification = classification

    def construct(self, logits, deltas, labels, targets):
        positive = (labels > 0).astype(mstype.float32)
        count = positive.sum()
        normalizer = ops.maximum(count, ops.ones((), mstype.float32))
        distance = ops.abs(deltas.astype(mstype.float32) - targets)
        # smooth L1 with beta 1 (https://arxiv.org/abs/1504.08083 eq. 3)
        smooth = ops.select(distance < 1, 0.5 * distance * distance, distance - 0.5).sum(-1)
        box = (smooth * positive).sum() / normalizer
        classification = self.classification(logits.astype(mstype.float32), labels) / normalizer
        return classification + box, classification, box, count
