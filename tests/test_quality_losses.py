"""Quality focal and varifocal loss by hand, against float64 and at extremes; every loss through the options."""
import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from test_models import small

from src.anchors import tile_anchors
from src.boxes import encode
from src.config import read_options
from src.errors import OptionError
from src.losses import DetectionLoss, QualityFocalLoss, VarifocalLoss
from src.models.model import Model
from src.models.ssd import BUILDERS
from src.training.build import PUBLISHED_LOSSES, SCORES, build_loss, build_step
from src.training.checks import check_options
from src.training.step import run_step

EDGES = np.array([-1e4, -100, -20, -1.5, 0, 0.5, 20, 100, 1e4], np.float32)
IOUS = np.array([0.0, 0.3, 1.0], np.float32)


def quality(logits, targets, gamma):
    """The formula in float64, channel by channel."""
    p = np.exp(-np.logaddexp(0, -logits))
    return abs(targets - p) ** gamma * entropy(logits, targets)


def varifocal(logits, targets, gamma, alpha):
    p = np.exp(-np.logaddexp(0, -logits))
    return np.where(targets > 0, targets, (1 - alpha) * p ** gamma) * entropy(logits, targets)


def entropy(logits, targets):
    return targets * np.logaddexp(0, -logits) + (1 - targets) * np.logaddexp(0, logits)


def edge_inputs():
    """Logits [1, 54, 3] of all EDGES for every label 0 or 2 with each of IOUS; the channel of the background is 5."""
    edges, ious, labels = (one.reshape(-1) for one in np.meshgrid(EDGES, IOUS, [0, 2], indexing="ij"))
    logits = np.stack([np.full_like(edges, 5), edges[::-1], edges], -1)
    targets = np.zeros((len(edges), 2))
    targets[labels == 2, 1] = ious[labels == 2]
    return logits[None], labels[None].astype(np.int32), ious[None], targets


def by_hand():
    """Two anchors: class 1 with IoU .6 and p .8 .5, and background with p .25 .5."""
    logits = np.log(np.array([[[9, 4, 1], [9, 1 / 3, 1]]], np.float32))
    return [ms.Tensor(one) for one in (logits, np.array([[1, 0]], np.int32), np.array([[0.6, 0.9]], np.float32))]


def test_quality_focal_loss_by_hand(mode):
    right = -0.6 * math.log(0.8) - 0.4 * math.log(0.2)
    expected = 0.2 ** 2 * right + 2 * 0.5 ** 2 * math.log(2) - 0.25 ** 2 * math.log(0.75)
    assert QualityFocalLoss()(*by_hand()).asnumpy() == pytest.approx([expected], rel=1e-5)
    plain = right + 2 * math.log(2) - math.log(0.75)  # gamma 0: binary cross-entropy
    assert QualityFocalLoss(0.0)(*by_hand()).asnumpy() == pytest.approx([plain], rel=1e-5)


def test_varifocal_loss_by_hand(mode):
    right = -0.6 * math.log(0.8) - 0.4 * math.log(0.2)
    expected = 0.6 * right + 0.75 * (2 * 0.5 ** 2 * math.log(2) - 0.25 ** 2 * math.log(0.75))
    assert VarifocalLoss()(*by_hand()).asnumpy() == pytest.approx([expected], rel=1e-5)
    plain = 0.6 * right + 2 * math.log(2) - math.log(0.75)
    assert VarifocalLoss(0.0, 0.0)(*by_hand()).asnumpy() == pytest.approx([plain], rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 5.0, 50.0])
@pytest.mark.parametrize("kind", ["quality", "varifocal"])
def test_extreme_logits(mode, kind, gamma):
    logits, labels, ious, targets = edge_inputs()
    loss = QualityFocalLoss(gamma) if kind == "quality" else VarifocalLoss(gamma, 0.25)

    def wide(values):
        return quality(values, targets, gamma) if kind == "quality" else varifocal(values, targets, gamma, 0.25)

    def forward(values):
        return loss(values, ms.Tensor(labels), ms.Tensor(ious)).sum()
    value, gradient = ms.value_and_grad(forward)(ms.Tensor(logits))
    gradient, x = gradient.asnumpy()[0], logits[0, :, 1:].astype(np.float64)
    assert value.asnumpy() == pytest.approx(wide(x).sum(), rel=1e-5)
    assert np.isfinite(gradient).all() and (gradient[:, 0] == 0).all()  # the background's
    assert np.allclose(gradient[:, 1:], (wide(x + 1e-4) - wide(x - 1e-4)) / 2e-4, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 1.0, 2.0])
def test_where_the_score_is_the_target(mode, gamma):
    loss, iou = QualityFocalLoss(gamma), ms.Tensor(np.full((1, 1), 0.5, np.float32))

    def forward(values):
        return loss(values, ms.Tensor(np.ones((1, 1), np.int32)), iou).sum()
    value, gradient = ms.value_and_grad(forward)(ms.Tensor(np.zeros((1, 1, 2), np.float32)))
    assert value.asnumpy() <= math.log(2) + 1e-6 and np.isfinite(gradient.asnumpy()).all()
    assert (gradient.asnumpy() == 0).all()


@pytest.mark.parametrize("loss", [QualityFocalLoss(), VarifocalLoss()])
def test_the_target_is_the_overlap_of_the_boxes(mode, loss):
    """One anchor is predicted half as wide as its box; its IoU has no gradient for the deltas."""
    anchors = tile_anchors([1], [1.0], [np.array([[0.5, 0.5], [0.2, 0.2]])])
    targets = encode(np.array([[0.2, 0.2, 0.6, 0.6], [0, 0, 0.1, 0.1]], np.float32), anchors)[None]
    deltas = encode(np.array([[0.2, 0.2, 0.4, 0.6], [0, 0, 1, 1]], np.float32), anchors)[None]
    logits, labels = np.zeros((1, 2, 3), np.float32), np.array([[2, 0]], np.int32)
    inputs = [ms.Tensor(one) for one in (logits, deltas, labels, targets)]
    iou = ms.Tensor(np.array([[0.5, 0.7]], np.float32))
    cell = DetectionLoss(loss, box_weight=0.0)
    assert cell(*inputs)[1].asnumpy() == pytest.approx(loss(inputs[0], inputs[2], iou).asnumpy()[0], rel=1e-5)

    def forward(deltas):
        return cell(inputs[0], deltas, inputs[2], inputs[3])[0]
    assert (ms.grad(forward)(inputs[1]).asnumpy() == 0).all()


@pytest.mark.parametrize("loss", [QualityFocalLoss(), VarifocalLoss(alpha=0.0)])
def test_images_without_boxes_at_the_initial_background(mode, loss):
    """The prior of he_initialize: each class has probability .01, whatever the background's channel has."""
    logits = np.full((2, 7, 4), -math.log(99), np.float32)
    logits[..., 0] = math.log(99)
    zeros = np.zeros((2, 7, 4), np.float32)
    values = DetectionLoss(loss)(*map(ms.Tensor, (logits, zeros, np.zeros((2, 7), np.int32), zeros)))
    loss, cls, box, count = (float(one.asnumpy()) for one in values)
    assert cls == pytest.approx(2 * 7 * 3 * 0.01 ** 2 * -math.log(0.99), rel=1e-4)
    assert loss == cls and box == 0 and count == 0


# --- through the options

class Table(nn.Cell):
    """A network whose weights are its outputs, but for a shift by the mean pixel, which tells two images apart."""

    def __init__(self, anchors, channels):
        super().__init__()
        rng = np.random.default_rng(0)
        self.logits = ms.Parameter(ms.Tensor(rng.normal(-1, 1, (anchors, channels)).astype(np.float32)), name="logits")
        self.deltas = ms.Parameter(ms.Tensor(rng.normal(0, 2, (anchors, 4)).astype(np.float32)), name="deltas")

    def construct(self, images):
        shift = images.mean(axis=(1, 2, 3)).reshape((-1, 1, 1)) * 0.01
        return self.logits + shift, self.deltas + shift


def make_step(typed):
    """The TrainStep of options and a small Model of 32 anchors, with one batch of 4 images for it."""
    options = read_options(["--lr=0.5", "--warmup_epochs=0", "--weight_decay=0", *typed])
    anchors = tile_anchors([4], [0.25], [np.array([[0.3, 0.3], [0.5, 0.2]])])
    score = SCORES.get(options.loss, "sigmoid")
    model = Model(name="table", network=Table(len(anchors), 4), anchors=anchors, image_size=4, num_classes=4,
                  mean=(0, 0, 0), std=(1, 1, 1), score=score)
    step = build_step(options, model, np.full(100, 0.5, np.float32), world=1)
    step.set_train()
    rng = np.random.default_rng(1)
    labels = rng.integers(1, 4, (4, 32)) * (rng.random((4, 32)) < [[0.3], [0.1], [0.5], [0]])
    images = np.array([1, 50, 90, 7], np.uint8).repeat(48).reshape(4, 4, 4, 3)
    targets = (rng.normal(0, 1, (4, 32, 4)) * (labels > 0)[..., None]).astype(np.float32)
    return step, model.network, [images, labels.astype(np.int32), targets]


@pytest.mark.parametrize("mode", ["graph"], indirect=True)
@pytest.mark.parametrize("loss, box", [("focal", "smooth_l1"), ("quality", "ciou"), ("varifocal", "giou"),
                                       ("multibox", "ciou"), ("focal", "giou")])
def test_every_kind_of_loss_trains(mode, loss, box):
    """The loss falls, and the parts in the log add up to it."""
    step, _, batch = make_step([f"--loss={loss}", f"--box_loss={box}", "--box_weight=2"])
    rows = [run_step(step, batch, stop=False) for _ in range(12)]
    for row in rows:
        assert row["loss"] == pytest.approx(row["loss_cls"] + row["loss_box"], rel=1e-5) and row["finite"] == 1
    assert rows[0]["loss_cls"] > 0 and rows[0]["loss_box"] > 0
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]


@pytest.mark.parametrize("mode", ["pynative"], indirect=True)
@pytest.mark.parametrize("normalizer", ["batch", "local", "image"])
@pytest.mark.parametrize("loss, box", [("quality", "ciou"), ("varifocal", "giou"), ("focal", "giou")])
def test_micro_steps_and_normalizers(mode, loss, box, normalizer):
    """Two micro-steps are one batch twice as large, where the loss is divided by all positives or image by image."""
    typed = [f"--loss={loss}", f"--box_loss={box}", f"--loss_normalizer={normalizer}"]
    one, network, batch = make_step(typed)
    two, other, _ = make_step([*typed, "--accumulate=2"])
    first, second = (run_step(step, batch, stop=False) for step in (one, two))
    same = np.allclose(network.logits.asnumpy(), other.logits.asnumpy(), atol=1e-6)
    assert same == (normalizer != "local") and first["finite"] == second["finite"] == 1
    assert same == bool(second["loss"] == pytest.approx(first["loss"], rel=1e-5))


@pytest.mark.parametrize("mode", ["pynative"], indirect=True)
@pytest.mark.parametrize("name", BUILDERS)
def test_every_network_has_every_loss(mode, name):
    """The anchors of each network fit; the default is what its source trains."""
    model = small(name, 3)
    rng, count = np.random.default_rng(0), len(model.anchors)
    shapes = (2, count, 3), (2, count, 4), (2, count, 4)
    logits, deltas, targets = (rng.normal(0, 1, shape).astype(np.float32) for shape in shapes)
    inputs = [ms.Tensor(one) for one in (logits, deltas, rng.integers(0, 3, (2, count)).astype(np.int32), targets)]
    for loss in (PUBLISHED_LOSSES[model.score], "quality", "varifocal"):
        options = read_options([f"--loss={loss}", "--box_loss=ciou"])
        assert np.isfinite([float(part) for part in build_loss(options, SCORES[loss], model.anchors)(*inputs)]).all()
    default = build_loss(read_options([]), model.score, model.anchors)
    assert type(default.classification).__name__.lower() == f"{PUBLISHED_LOSSES[model.score]}loss"


def test_the_options_reach_the_losses():
    typed = ["--gamma=1.5", "--alpha=0.4", "--label_smoothing=0.1"]
    built = {name: build_loss(read_options([f"--loss={name}", *typed]), SCORES[name], np.ones((1, 4), np.float32))
             for name in SCORES}
    cells = {name: loss.classification for name, loss in built.items()}
    assert [cells[name].gamma for name in ("focal", "quality", "varifocal")] == [1.5] * 3
    assert [cells[name].alpha for name in ("focal", "varifocal")] == [0.4] * 2
    assert [cells[name].label_smoothing for name in ("focal", "multibox")] == [0.1] * 2


@pytest.mark.parametrize("loss", ["quality", "varifocal"])
def test_soft_targets_are_not_smoothed(loss):
    with pytest.raises(OptionError, match=f"--loss={loss} are IoUs already"):
        check_options(read_options([f"--loss={loss}", "--label_smoothing=0.1"]))
    check_options(read_options([f"--loss={loss}"]))
