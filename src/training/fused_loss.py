"""Losses on CPU by our own kernels (machine/cpu_kernels/loss.cc), each in one call with its gradient."""
from __future__ import annotations

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.box_losses import MIN_LOG_SCALE, GIoULoss, SmoothL1Loss
from src.boxes import MAX_LOG_SCALE, VARIANCES
from src.losses import DetectionLoss, MultiBoxLoss

BOX_KERNELS = {SmoothL1Loss: "smooth_l1", GIoULoss: "giou"}


def use_own_losses(loss: DetectionLoss, library: str) -> None:
    """Changes a loss in place where there are kernels for its parts. library: path of the compiled kernels."""
    if type(loss.classification) is MultiBoxLoss:
        loss.classification = FusedMultiBox(library, loss.classification)
    if type(loss.box) in BOX_KERNELS:
        loss.box = FusedBoxLoss(library, BOX_KERNELS[type(loss.box)])


class FusedMultiBox(nn.Cell):
    """What a MultiBoxLoss does."""

    def __init__(self, library: str, loss: MultiBoxLoss):
        super().__init__()
        self.loss = loss

        def bprop(logits: Tensor, labels: Tensor, numbers: Tensor, outputs: tuple, changes: tuple) -> tuple:
            return outputs[1] * changes[0].reshape((-1, 1, 1)), ops.zeros_like(labels), ops.zeros_like(numbers)
        self.kernel = ops.Custom(f"{library}:multibox", lambda logits, *_: (logits[:1], logits),
                                 lambda logits, *_: (logits, logits), "aot", bprop=bprop)

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        numbers = self.loss.negative_ratio, self.loss.least_negatives(logits.shape[1]), self.loss.label_smoothing
        return self.kernel(logits, labels, Tensor(numbers, mstype.float32))[0]


class FusedBoxLoss(nn.Cell):
    """What a box loss does, for positive anchors; the numbers of the others, which nobody reads, are 0."""

    def __init__(self, library: str, kind: str):
        super().__init__()
        self.numbers = Tensor([*VARIANCES, MIN_LOG_SCALE, MAX_LOG_SCALE], mstype.float32)

        def bprop(deltas: Tensor, targets: Tensor, labels: Tensor, numbers: Tensor, outputs: tuple,
                  changes: tuple) -> tuple:
            return (outputs[2] * changes[0].expand_dims(2), ops.zeros_like(targets), ops.zeros_like(labels),
                    ops.zeros_like(numbers))
        self.kernel = ops.Custom(f"{library}:{kind}", lambda deltas, *_: (deltas[:2], deltas[:2], deltas),
                                 lambda deltas, *_: (deltas,) * 3, "aot", bprop=bprop)

    def construct(self, deltas: Tensor, targets: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.kernel(deltas, targets, labels, self.numbers)
        return outputs[0], ops.stop_gradient(outputs[1])
