"""Every allowed value of the options of the losses: finite at any logit, and the gradients those of the formula."""
import mindspore as ms
import numpy as np
import pytest

from src.losses import DetectionLoss, FocalLoss, MultiBoxLoss

EDGES = np.array([-1e4, -100, -20, -1.5, 0, 0.5, 20, 100, 1e4], np.float32)


def edge_logits():
    """Logits [1, 81, 2], every pair of EDGES; labels [1, 81] alternate."""
    first, second = np.meshgrid(EDGES, EDGES)
    return np.stack([first, second], -1).reshape(1, -1, 2), np.arange(81, dtype=np.int32)[None] % 2


def focal(logits, labels, gamma, alpha, smoothing=0.0):
    """The formula in float64, channel by channel [A, C]."""
    x, right = logits.astype(np.float64), np.eye(logits.shape[-1])[labels]
    sign = 1 - 2 * right  # the wrong answer's logit is x of a negative, -x of a positive
    wrong = np.exp(-np.logaddexp(0, -sign * x))
    target = np.where(right > 0, 1 - smoothing / 2, smoothing / 2)
    entropy = target * np.logaddexp(0, -x) + (1 - target) * np.logaddexp(0, x)
    return np.where(right > 0, alpha, 1 - alpha) * wrong ** gamma * entropy


@pytest.mark.parametrize("gamma, alpha, smoothing", [
    (0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.1, 0.25, 0.0), (0.5, 0.25, 0.0), (0.999, 1.0, 0.0), (1.0, 0.25, 0.0),
    (1.5, 0.0, 0.0), (2.0, 0.25, 0.0), (2.0, 1.0, 0.0), (5.0, 0.25, 0.0), (50.0, 0.25, 0.0), (0.0, 0.25, 0.1),
    (0.5, 0.25, 0.1), (2.0, 0.25, 0.1), (2.0, 0.25, 1.0)])
def test_focal_loss(mode, gamma, alpha, smoothing):
    logits, labels = edge_logits()
    loss = FocalLoss(gamma, alpha, label_smoothing=smoothing)

    def forward(values):
        return loss(values, ms.Tensor(labels)).sum()
    value, gradient = ms.value_and_grad(forward)(ms.Tensor(logits))
    assert value.asnumpy() == pytest.approx(focal(logits[0], labels[0], gamma, alpha, smoothing).sum(), rel=1e-5)
    step, wide = 1e-4, logits[0].astype(np.float64)
    expected = np.subtract(*(focal(wide + move, labels[0], gamma, alpha, smoothing) for move in (step, -step)))
    assert np.isfinite(gradient.asnumpy()).all()
    assert np.allclose(gradient.asnumpy()[0], expected / (2 * step), rtol=1e-3, atol=1e-5)


def test_the_formula_for_gamma_from_1_on_is_as_it_was(mode):
    """To the last bit."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(-3, 2, (2, 50, 5)).astype(np.float32), rng.integers(0, 5, (2, 50)).astype(np.int32)
    x, right = ms.Tensor(logits), ms.Tensor(np.eye(5, dtype=np.float32)[labels])
    entropy = ms.ops.relu(x) - x * right + ms.ops.log1p(ms.ops.exp(-ms.ops.abs(x)))
    p = ms.ops.sigmoid(x)
    weight = right * 0.25 + (1 - right) * (1 - 0.25)
    before = (weight * ms.ops.pow(right + p - 2 * right * p, 2.0) * entropy).sum((1, 2)).asnumpy()
    assert np.array_equal(FocalLoss(2.0, 0.25)(x, ms.Tensor(labels)).asnumpy(), before)


@pytest.mark.parametrize("ratio, empty, labels, smoothing", [
    (0.0, 0.0, "some", 0.0), (0.0, 1.0, "none", 0.0), (0.5, 0.01, "some", 0.0), (3.0, 0.0, "none", 0.0),
    (3.0, 0.01, "none", 0.0), (3.0, 0.0, "some", 0.0), (3.0, 0.0, "all", 0.0), (3e38, 1.0, "some", 0.0),
    (3.0, 0.0, "some", 0.1), (3.0, 0.01, "none", 1.0)])
def test_multibox_loss(mode, ratio, empty, labels, smoothing):
    logits, kinds = edge_logits()
    kinds = {"some": kinds * (np.arange(81) % 9 == 0), "none": kinds * 0, "all": kinds * 0 + 1}[labels].astype(np.int32)
    loss = MultiBoxLoss(ratio, empty, label_smoothing=smoothing)

    def forward(values):
        return loss(values, ms.Tensor(kinds)).sum()
    value, gradient = ms.value_and_grad(forward)(ms.Tensor(logits))
    entropy = np.logaddexp(*logits[0].astype(np.float64).T) - logits[0][np.arange(81), kinds[0]]
    found = int((kinds > 0).sum())
    wanted = int(min(np.floor(found * ratio) if found else np.ceil(empty * 81 - 1e-9), 81 - found))
    hardest = np.sort(entropy[kinds[0] == 0])[::-1][:wanted].sum()
    assert smoothing or value.asnumpy() == pytest.approx(entropy[kinds[0] > 0].sum() + hardest, rel=1e-5)
    assert np.isfinite(gradient.asnumpy()).all()
    assert (abs(gradient.asnumpy()) <= 1).all()


@pytest.mark.parametrize("normalizer", ["batch", "image"])
@pytest.mark.parametrize("build", [(FocalLoss, 0.5, 0.0), (FocalLoss, 0.0, 1.0), (MultiBoxLoss, 0.0, 1.0)])
@pytest.mark.parametrize("positives", [True, False])
def test_all_parts_with_large_deltas(mode, build, normalizer, positives):
    logits, labels = edge_logits()
    deltas = np.resize(np.array([0, 1e4, -1e4, 1, -1, 1e-30, 1e30, -1e30], np.float32), (1, 81, 4))
    loss = DetectionLoss(build[0](*build[1:]), normalizer)

    def forward(values, boxes):
        return loss(values, boxes, ms.Tensor(labels * positives), ms.ops.zeros((1, 81, 4), ms.float32))[0]
    gradients = ms.grad(forward, (0, 1))(ms.Tensor(logits), ms.Tensor(deltas))
    assert all(np.isfinite(gradient.asnumpy()).all() for gradient in gradients)
    assert (gradients[1].asnumpy() != 0).any() == positives
