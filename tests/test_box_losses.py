"""Box losses by hand and against float64, in both modes: values, gradients, and what is finite at extremes."""
import math

import mindspore as ms
import numpy as np
import pytest

from src.box_losses import CIoULoss, GIoULoss, SmoothL1Loss, compare
from src.boxes import MAX_LOG_SCALE, encode
from src.config import read_options
from src.losses import DetectionLoss
from src.option_rules import RULES
from src.training.build import build_loss

ANCHORS = np.array([[0.5, 0.5, 0.4, 0.2], [0.25, 0.5, 0.5, 0.5]], np.float32)
# two predictions by two ground truths, x1, y1, x2, y2
PREDICTED = np.array([[0.0, 0.0, 0.2, 0.2], [0.0, 0.25, 0.5, 0.75]])
TRUE = np.array([[0.1, 0.1, 0.3, 0.3], [0.25, 0.25, 0.5, 0.75]])


def deltas_of(boxes, anchors=ANCHORS):
    """[1, A, 4] for corner boxes [A, 4], in float32."""
    return encode(boxes.astype(np.float32), anchors)[None]


def reference(kind, deltas, targets, anchors):
    """The loss [A] from corners in float64; deltas, targets [A, 4]."""
    def decode(values):
        center = anchors[:, :2] + values[:, :2] * 0.1 * anchors[:, 2:]
        side = anchors[:, 2:] * np.exp(values[:, 2:] * 0.2)
        return center - side / 2, center + side / 2, side
    low, high, side = decode(np.asarray(deltas, np.float64))
    true_low, true_high, true_side = decode(np.asarray(targets, np.float64))
    shared = np.maximum(np.minimum(high, true_high) - np.maximum(low, true_low), 0).prod(1)
    union = side.prod(1) + true_side.prod(1) - shared
    hull = np.maximum(high, true_high) - np.minimum(low, true_low)
    if kind == "giou":
        return 1 - shared / union + 1 - union / hull.prod(1)
    apart = (((low + high - true_low - true_high) / 2) ** 2).sum(1) / (hull ** 2).sum(1)
    turn = np.arctan(true_side[:, 0] / true_side[:, 1]) - np.arctan(side[:, 0] / side[:, 1])
    return shared / union, apart, 4 / np.pi ** 2 * turn ** 2


def graded(cell, deltas, targets):
    """The sum of the losses, and its gradient for deltas. Both are [1, A, 4]."""
    def total(values, others):
        return cell(values, others)[0].sum()
    value, gradient = ms.value_and_grad(total)(ms.Tensor(deltas), ms.Tensor(targets))
    return value.asnumpy(), gradient.asnumpy()


def losses():
    return {"giou": GIoULoss(), "ciou": CIoULoss(ANCHORS), "smooth_l1": SmoothL1Loss()}


def test_giou_by_hand(mode):
    loss, iou = GIoULoss()(*map(ms.Tensor, (deltas_of(PREDICTED), deltas_of(TRUE))))
    # squares of .04 share .01: union .07, hull .09; a half inside: union and hull .25
    assert iou.asnumpy()[0] == pytest.approx([1 / 7, 1 / 2], rel=1e-5)
    assert loss.asnumpy()[0] == pytest.approx([1 - 1 / 7 + 2 / 9, 1 / 2], rel=1e-5)


def test_ciou_by_hand(mode):
    loss, iou = CIoULoss(ANCHORS)(*map(ms.Tensor, (deltas_of(PREDICTED), deltas_of(TRUE))))
    assert iou.asnumpy()[0] == pytest.approx([1 / 7, 1 / 2], rel=1e-5)
    # centres are .1 apart in both axes, the hull has .3; both are squares. The second: .125 apart, the hull has .5
    v = 4 / math.pi ** 2 * (math.atan(0.5) - math.atan(1)) ** 2
    expected = [1 - 1 / 7 + 0.02 / 0.18, 1 / 2 + 0.125 ** 2 / 0.5 + v * v / (0.5 + v)]
    assert loss.asnumpy()[0] == pytest.approx(expected, rel=1e-5)


def test_boxes_that_do_not_meet(mode):
    boxes, targets = deltas_of(np.array([[0, 0, 0.1, 0.1]] * 2)), deltas_of(np.array([[0.8, 0, 0.9, 0.1]] * 2))
    pair = ms.Tensor(boxes), ms.Tensor(targets)
    giou, iou = GIoULoss()(*pair)
    assert (iou.asnumpy() == 0).all() and giou.asnumpy()[0] == pytest.approx([2 - 0.02 / 0.09] * 2, rel=1e-5)
    ciou, _ = CIoULoss(ANCHORS)(*pair)
    assert ciou.asnumpy()[0] == pytest.approx([1 + 0.64 / 0.82] * 2, rel=1e-5)


@pytest.mark.parametrize("kind", ["giou", "ciou", "smooth_l1"])
def test_equal_boxes_lose_nothing(mode, kind):
    deltas = np.array([[[0, 0, 0, 0], [3, -2, 1.5, -7]]], np.float32)
    loss, iou = losses()[kind](ms.Tensor(deltas), ms.Tensor(deltas))
    assert np.allclose(loss.asnumpy(), 0, atol=1e-6) and np.allclose(iou.asnumpy(), 1, atol=1e-6)
    assert np.isfinite(graded(losses()[kind], deltas, deltas)[1]).all()


@pytest.mark.parametrize("kind", ["giou", "ciou"])
def test_values_and_gradients_are_those_of_float64(mode, kind):
    rng = np.random.default_rng(0)
    anchors = np.column_stack([rng.random((300, 2)), rng.uniform(0.02, 1, (300, 2))]).astype(np.float32)
    deltas, targets = (rng.normal(0, 2, (300, 4)).astype(np.float32) for _ in range(2))
    cell = GIoULoss() if kind == "giou" else CIoULoss(anchors)
    if kind == "giou":
        def wide(values):
            return reference(kind, values, targets, anchors)
    else:
        iou, _, shape = reference(kind, deltas, targets, anchors)
        alpha = shape / (1 - iou + shape)  # a constant

        def wide(values):
            overlap, apart, shape = reference(kind, values, targets, anchors)
            return 1 - overlap + apart + alpha * shape
    value, gradient = graded(cell, deltas[None], targets[None])
    assert value == pytest.approx(wide(deltas).sum(), rel=1e-5)
    moves = np.eye(4) * 1e-5
    expected = np.stack([(wide(deltas + move) - wide(deltas - move)) / 2e-5 for move in moves], 1)
    assert np.allclose(gradient[0], expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["giou", "ciou", "smooth_l1"])
def test_extreme_deltas_and_boxes_without_extent(mode, kind):
    edges = np.array([0, 1e30, -1e30, 1e4, -1e4, 30, -30, 1e-30], np.float32)
    deltas = np.stack(np.meshgrid(edges, edges, edges, edges), -1).reshape(1, -1, 4)
    empty = encode(np.array([[0.5, 0.5, 0.5, 0.5]], np.float32), ANCHORS[:1])
    cell = CIoULoss(np.resize(ANCHORS, deltas.shape[1:])) if kind == "ciou" else losses()[kind]
    for target in (np.zeros((1, 4), np.float32), empty):
        targets = np.broadcast_to(target, deltas.shape).copy()
        loss, iou = (one.asnumpy() for one in cell(ms.Tensor(deltas), ms.Tensor(targets)))
        assert np.isfinite(loss).all() and np.isfinite(graded(cell, deltas, targets)[1]).all()
        assert (iou >= 0).all() and (iou <= 1).all()
        assert kind == "smooth_l1" or ((loss > -1e-6).all() and (loss < 3.1).all())


def test_a_box_far_from_0_that_is_smaller_than_its_rounding(mode):
    target = encode(np.array([[0.7, 0.7, 0.7, 0.7]], np.float32), ANCHORS[:1])[None]  # 1e-6 wide and high
    twice = target + np.array([0, 0, np.log(2) / 0.2, 0], np.float32)
    iou = compare(ms.Tensor(twice), ms.Tensor(target))[0].asnumpy()
    assert iou == pytest.approx(0.5, rel=1e-4)


def test_sides_are_limited_as_in_the_detector(mode):
    deltas = np.array([[[0, 0, 1e4, -1e4]]], np.float32)
    predicted, _ = compare(ms.Tensor(deltas), ms.Tensor(deltas))[4]
    assert predicted.asnumpy()[0, 0] == pytest.approx([1000 / 16, math.exp(-20)], rel=1e-5)
    assert math.exp(MAX_LOG_SCALE) == pytest.approx(62.5)


class Zero(ms.nn.Cell):
    """A classification loss of 0."""

    def construct(self, logits, labels):
        return logits.sum((1, 2)) * 0


@pytest.mark.parametrize("kind", ["giou", "ciou", "smooth_l1"])
@pytest.mark.parametrize("normalizer", ["batch", "image"])
def test_weight_and_normalizer(mode, kind, normalizer):
    deltas = np.concatenate([deltas_of(PREDICTED)] * 2)
    targets = np.concatenate([deltas_of(TRUE)] * 2)
    each = losses()[kind](ms.Tensor(deltas), ms.Tensor(targets))[0].asnumpy()
    labels = np.array([[1, 2], [0, 1]], np.int32)
    cell = DetectionLoss(Zero(), normalizer, box=losses()[kind], box_weight=2.5)
    loss, _, box, count = cell(*map(ms.Tensor, (np.zeros((2, 2, 3), np.float32), deltas, labels, targets)))
    expected = each[0].mean() + each[1, 1] if normalizer == "image" else (each[0].sum() + each[1, 1]) * 2 / 3
    assert box.asnumpy() == pytest.approx(2.5 * expected / 2, rel=1e-6)
    assert loss.asnumpy() == box.asnumpy() and count.asnumpy() == 3


@pytest.mark.parametrize("kind", ["giou", "ciou", "smooth_l1"])
def test_a_batch_without_objects_has_no_box_loss_and_no_gradient(mode, kind):
    cell = DetectionLoss(Zero(), box=losses()[kind])
    logits, labels = ms.Tensor(np.zeros((2, 2, 3), np.float32)), ms.Tensor(np.zeros((2, 2), np.int32))

    def forward(deltas):
        return cell(logits, deltas, labels, ms.ops.zeros_like(deltas))[0]
    value, gradient = ms.value_and_grad(forward)(ms.Tensor(np.full((2, 2, 4), 1e4, np.float32)))
    assert value.asnumpy() == 0 and (gradient.asnumpy() == 0).all()


def test_the_options_choose_the_loss():
    cells = {"smooth_l1": SmoothL1Loss, "giou": GIoULoss, "ciou": CIoULoss}
    assert set(RULES["box_loss"].choices) == set(cells)
    for kind, cell in cells.items():
        loss = build_loss(read_options([f"--box_loss={kind}", "--box_weight=2"]), "sigmoid", ANCHORS)
        assert isinstance(loss.box, cell) and loss.box_weight == 2
    default = build_loss(read_options([]), "sigmoid", ANCHORS)
    assert isinstance(default.box, SmoothL1Loss) and default.box_weight == 1


def test_the_default_is_smooth_l1_as_it_was(mode):
    """To the last bit, the gradient too."""
    rng = np.random.default_rng(0)
    deltas, targets = (ms.Tensor(rng.normal(0, 2, (2, 50, 4)).astype(np.float32)) for _ in range(2))
    labels = ms.Tensor(rng.integers(0, 3, (2, 50)).astype(np.int32))
    cell, logits = DetectionLoss(Zero()), ms.Tensor(np.zeros((2, 50, 3), np.float32))

    def before(values):
        positive = (labels > 0).astype(ms.float32)
        distance = ms.ops.abs(values - targets)
        smooth = ms.ops.select(distance < 1, 0.5 * distance * distance, distance - 0.5).sum(-1)
        return (smooth * positive).sum(1).sum() / positive.sum()
    value, gradient = ms.value_and_grad(before)(deltas)

    def now(values):
        return cell(logits, values, labels, targets)[0]
    own = ms.value_and_grad(now)(deltas)
    assert np.array_equal(value.asnumpy(), own[0].asnumpy()) and np.array_equal(gradient.asnumpy(), own[1].asnumpy())
