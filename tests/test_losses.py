"""Losses by hand, in both modes."""
import math

import mindspore as ms
import numpy as np
import pytest

from src.losses import DetectionLoss, FocalLoss, MultiBoxLoss


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def mode(request):
    ms.set_context(mode=request.param)
    yield request.param
    ms.set_context(mode=ms.GRAPH_MODE)


def tensors(*arrays):
    return [ms.Tensor(np.asarray(array)) for array in arrays]


def test_focal_loss_by_hand(mode):
    # one anchor, two channels, label 1: channel 0 is a negative with logit 0 (p .5), channel 1 a positive with p .75
    logits, labels = tensors(np.array([[[0.0, math.log(3)]]], np.float32), np.array([[1]], np.int32))
    expected = 0.75 * 0.5 ** 2 * math.log(2) + 0.25 * 0.25 ** 2 * math.log(4 / 3)
    assert FocalLoss(gamma=2.0, alpha=0.25)(logits, labels).asnumpy() == pytest.approx(expected, rel=1e-6)


def test_focal_loss_is_finite_for_huge_logits(mode):
    logits, labels = tensors(np.array([[[1e4, -1e4], [-1e4, 1e4]]], np.float32), np.zeros((1, 2), np.int32))
    # anchor 0 is right; anchor 1 is wrong in both channels: alpha * 1e4 + (1 - alpha) * 1e4
    assert FocalLoss()(logits, labels).asnumpy() == pytest.approx(1e4)


def test_detection_loss_by_hand(mode):
    class Zero(ms.nn.Cell):
        def construct(self, logits, labels):
            return logits.sum((1, 2)) * 0 + 6.0

    deltas = np.array([[[0.5, 0, 0, -3.0], [9, 9, 9, 9], [1, 0, 0, 0]]], np.float32)
    labels = np.array([[1, 0, 2]], np.int32)
    inputs = tensors(np.zeros((1, 3, 3), np.float32), deltas, labels, np.zeros_like(deltas))
    loss, cls, box, count = DetectionLoss(Zero())(*inputs)
    # smooth L1: .5 * .25 + (3 - .5) for anchor 0, .5 for anchor 2, anchor 1 is background
    assert count.asnumpy() == 2 and cls.asnumpy() == 3
    assert box.asnumpy() == pytest.approx((0.125 + 2.5 + 0.5) / 2) and loss.asnumpy() == pytest.approx(3 + 3.125 / 2)


def test_a_batch_without_objects_has_a_finite_loss_and_gradient(mode):
    logits, deltas, labels, targets = tensors(np.zeros((2, 5, 3), np.float32), np.ones((2, 5, 4), np.float32),
                                              np.zeros((2, 5), np.int32), np.zeros((2, 5, 4), np.float32))
    loss = DetectionLoss(FocalLoss())

    def forward(logits, deltas):
        return loss(logits, deltas, labels, targets)[0]

    values, gradients = ms.value_and_grad(forward, (0, 1))(logits, deltas)
    assert np.isfinite(values.asnumpy()) and values.asnumpy() > 0
    assert np.isfinite(gradients[0].asnumpy()).all() and (gradients[1].asnumpy() == 0).all()


def test_multibox_loss_by_hand(mode):
    # two classes, logit of class 1 is 0 everywhere, so the cross-entropy of background at logit x is log(1 + e^-x)
    background = np.array([[2.0, 1.0, -1.0, 0.5, 3.0], [9.0, 1.0, 0.0, -2.0, 0.0]], np.float32)
    labels = np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], np.int32)
    logits = np.stack([background, np.zeros_like(background)], -1)
    values = MultiBoxLoss(negative_ratio=2.0)(*tensors(logits, labels)).asnumpy()
    positive, hardest = math.log(1 + math.e ** 2), [math.log(1 + math.e), math.log(1 + math.e ** -0.5)]
    assert values == pytest.approx([positive + sum(hardest), 0.0], rel=1e-6)  # no positives, no negatives
    empty = MultiBoxLoss(negative_ratio=2.0, empty_negatives=0.3)(*tensors(logits, labels)).asnumpy()
    # .3 of 5 anchors are 2: the hardest, and half of each of the two at logit 0
    assert empty[1] == pytest.approx(math.log(1 + math.e ** 2) + math.log(2), rel=1e-6)


def test_more_negatives_wanted_than_there_are(mode):
    labels = np.array([[1, 2, 0]], np.int32)
    logits = np.zeros((1, 3, 3), np.float32)
    assert MultiBoxLoss()(*tensors(logits, labels)).asnumpy() == pytest.approx([3 * math.log(3)], rel=1e-6)


def test_normalising_by_image_or_by_batch(mode):
    class Four(ms.nn.Cell):
        def construct(self, logits, labels):
            return logits.sum((1, 2)) * 0 + 4.0

    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], np.int32)
    zeros = np.zeros((3, 3, 4), np.float32)
    deltas = np.zeros((3, 3, 4), np.float32)
    deltas[:, 0, 0] = 1.5  # smooth L1 of one coordinate: 1
    inputs = tensors(np.zeros((3, 3, 2), np.float32), deltas, labels, zeros)
    _, cls, box, count = DetectionLoss(Four(), "image")(*inputs)
    assert cls.asnumpy() == pytest.approx((4 / 2 + 4 / 1 + 0) / 3) and box.asnumpy() == pytest.approx((1 / 2 + 1) / 3)
    _, cls, box, count = DetectionLoss(Four(), "batch")(*inputs)
    assert cls.asnumpy() == pytest.approx(12 / 3) and box.asnumpy() == pytest.approx(2 / 3) and count.asnumpy() == 3


def test_label_smoothing_of_the_focal_loss_by_hand(mode):
    # label 1 with logits 0 and ln 3: targets .1 and .9, p .5 and .75, the weights those of 0 and 1
    logits, labels = tensors(np.array([[[0.0, math.log(3)]]], np.float32), np.array([[1]], np.int32))
    right = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    expected = 0.75 * 0.5 ** 2 * math.log(2) + 0.25 * 0.25 ** 2 * right
    value = FocalLoss(gamma=2.0, alpha=0.25, label_smoothing=0.2)(logits, labels).asnumpy()
    assert value == pytest.approx(expected, rel=1e-6)


def test_label_smoothing_of_the_multibox_loss_by_hand(mode):
    # the background has .5, .25, .2, .1 of the four anchors, anchor 0 is positive: one negative, anchor 3
    p = np.array([[[0.5, 0.3, 0.2], [0.25, 0.5, 0.25], [0.2, 0.4, 0.4], [0.1, 0.8, 0.1]]])
    inputs = tensors(np.log(p).astype(np.float32), np.array([[1, 0, 0, 0]], np.int32))
    target = np.array([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1]])  # 1 - .3 + .3 / 3
    value = MultiBoxLoss(negative_ratio=1.0, label_smoothing=0.3)(*inputs).asnumpy()
    assert value == pytest.approx([-(target * np.log(p[0, [0, 3]])).sum()], rel=1e-6)
    # smoothing all of it makes every class as right as another
    value = MultiBoxLoss(negative_ratio=1.0, label_smoothing=1.0)(*inputs).asnumpy()
    assert value == pytest.approx([-np.log(p[0, [0, 3]]).mean(1).sum()], rel=1e-6)


def test_the_hardest_negatives_are_those_of_the_labels(mode):
    # the background has .2 and .3 of the two negatives; smoothed, the second would lose more: 2.6 against 1.5
    p = np.array([[[0.5, 0.3, 0.2], [0.2, 0.4, 0.4], [0.3, 0.6999999, 0.0000001]]])
    logits, labels = tensors(np.log(p).astype(np.float32), np.array([[1, 0, 0]], np.int32))
    loss = MultiBoxLoss(negative_ratio=1.0, label_smoothing=0.3)

    def forward(values):
        return loss(values, labels).sum()
    gradient = ms.grad(forward)(logits).asnumpy()
    assert (gradient[0, 1] != 0).all() and (gradient[0, 2] == 0).all()
