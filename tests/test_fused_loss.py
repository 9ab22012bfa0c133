"""The fused losses on CPU compute what the losses of losses.py and box_losses.py do, and their gradients."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from src.box_losses import CIoULoss, GIoULoss, SmoothL1Loss
from src.losses import DetectionLoss, FocalLoss, MultiBoxLoss, QualityFocalLoss
from src.training.fused_loss import FusedBoxLoss, FusedMultiBox, use_own_losses


def drawn(anchors, classes, *, scale=2.0):
    """logits, deltas, labels, targets of three images: one in ten, one and no positives."""
    rng = np.random.default_rng(0)
    labels = np.zeros((3, anchors), np.int32)
    labels[0] = rng.integers(1, classes, anchors) * (rng.random(anchors) < 0.1)
    labels[0, 0] = labels[1, anchors // 2] = classes - 1
    targets = rng.normal(size=(3, anchors, 4)) * (labels > 0)[..., None]
    return (rng.normal(0, scale, (3, anchors, classes)).astype(np.float32),
            rng.normal(0, scale, (3, anchors, 4)).astype(np.float32), labels, targets.astype(np.float32))


def compare(loss, other, inputs):
    """Both losses and their gradients of logits and deltas are equal, within float32."""
    numbers = []
    for cell in (loss, other):
        cell.set_train()
        (value, *parts), gradients = ops.value_and_grad(cell, (0, 1), has_aux=True)(*map(ms.Tensor, inputs))
        numbers.append([part.asnumpy() for part in (value, *parts, *gradients)])
    for one, two in zip(*numbers):
        assert one.shape == two.shape and np.abs(one - two).max() <= 1e-5 * np.abs(two).max()


@pytest.mark.parametrize("box", [SmoothL1Loss, GIoULoss])
@pytest.mark.parametrize("anchors, classes, settings", [
    (2000, 4, {}), (700, 81, {"negative_ratio": 2.5, "label_smoothing": 0.1}), (50, 2, {"empty_negatives": 0.07})])
def test_they_equal_the_plain_ones(library, mode, box, anchors, classes, settings):
    losses = [DetectionLoss(MultiBoxLoss(**settings), box=box(), box_weight=2.0) for _ in range(2)]
    use_own_losses(losses[0], library)
    assert isinstance(losses[0].classification, FusedMultiBox) and isinstance(losses[0].box, FusedBoxLoss)
    compare(*losses, drawn(anchors, classes))


def test_equal_negatives_share_the_places_left(library):
    """All logits are equal: 3 of 9 negatives, each with a third of a place; log 2 for each, and for the positive."""
    logits, labels = np.zeros((1, 10, 2), np.float32), np.zeros((1, 10), np.int32)
    labels[0, 4] = 1
    cell = FusedMultiBox(library, MultiBoxLoss())
    loss, gradient = ops.value_and_grad(cell)(ms.Tensor(logits), ms.Tensor(labels))
    assert np.allclose(loss.asnumpy(), 4 * np.log(2), rtol=1e-6)
    expected = np.tile([-0.5 / 3, 0.5 / 3], (10, 1))
    expected[4] = 0.5, -0.5
    assert np.allclose(gradient.asnumpy()[0], expected, atol=1e-6)


@pytest.mark.parametrize("box", [SmoothL1Loss, GIoULoss])
def test_far_and_small_boxes(library, box):
    """Deltas up to the limits of a side, and boxes that do not meet."""
    losses = [DetectionLoss(MultiBoxLoss(), box=box()) for _ in range(2)]
    use_own_losses(losses[0], library)
    compare(*losses, drawn(500, 3, scale=30.0))


def test_a_loss_that_is_not_finite_stays_so(library):
    logits, deltas, labels, targets = drawn(50, 3)
    logits[0, 7, 1] = np.nan
    loss = DetectionLoss(MultiBoxLoss())
    use_own_losses(loss, library)
    assert np.isnan(loss(*map(ms.Tensor, (logits, deltas, labels, targets)))[0].asnumpy())


def test_other_losses_keep_their_operators_and_get_the_iou(library):
    losses = [DetectionLoss(QualityFocalLoss(), box=GIoULoss()) for _ in range(2)]
    use_own_losses(losses[0], library)
    compare(*losses, drawn(300, 4))
    plain = DetectionLoss(FocalLoss(), box=CIoULoss(np.ones((1, 4), np.float32)))
    use_own_losses(plain, library)
    assert type(plain.classification) is FocalLoss and type(plain.box) is CIoULoss

