"""The training step by hand: update rule, clipping, loss scale, overflow, micro-steps; precision; every model."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from stepping import build, run

from src.models.ssd import BUILDERS, build_model
from src.optim import build_optimizer
from src.training import step as step_module


@pytest.mark.parametrize("loss_scale", [1.0, 1024.0])
def test_momentum_and_outputs_by_hand(mode, loss_scale):
    step, weight = build([0.1, 0.1], loss_scale)
    outputs = run(step)  # gradient 1, 1
    assert np.allclose(outputs, [7, 5.25, 1.75, 4, 7, 1, 2 ** 0.5, loss_scale, 0])
    assert np.allclose(weight.asnumpy(), [2.9, 3.9])
    run(step)  # moment .9 * 1 + 1
    assert np.allclose(weight.asnumpy(), [2.9 - 0.19, 3.9 - 0.19])


@pytest.mark.parametrize("clip, expected", [(1.0, 0.5 ** 0.5), (10.0, 1.0)])
def test_clipping_comes_after_unscaling_and_before_decay(mode, clip, expected):
    step, weight = build([0.1], 512.0, grad_clip=clip, weight_decay=0.01)
    run(step)
    start = np.array([3.0, 4.0])
    assert np.allclose(weight.asnumpy(), start - 0.1 * (expected + 0.01 * start), rtol=1e-6)


def test_dynamic_scale_halves_and_skips_the_update_at_an_overflow(mode):
    step, weight = build([0.1] * 3, 2.0 ** 127, dynamic=True)
    outputs = run(step, pixel=200)  # 200 * 2^127 is beyond float32
    assert outputs[5] == 0 and np.allclose(weight.asnumpy(), [3, 4])
    assert step.loss_scale.asnumpy() == 2.0 ** 126 and int(step.optimizer.global_step.asnumpy()[0]) == 1
    assert step.good_steps.asnumpy() == 0


def test_dynamic_scale_doubles_after_enough_good_steps(mode, monkeypatch):
    monkeypatch.setattr(step_module, "GROW_AFTER", 2)
    step, _ = build([0.0] * 5, 4.0, dynamic=True)
    scales = [float(run(step)[7]) for _ in range(5)]
    assert scales == [4, 4, 8, 8, 16]


def test_static_scale_stays_and_skips(mode):
    step, weight = build([0.1], 2.0 ** 127)
    assert run(step, pixel=200)[5] == 0
    assert np.allclose(weight.asnumpy(), [3, 4]) and step.loss_scale.asnumpy() == 2.0 ** 127


@pytest.mark.parametrize("kind", ["momentum", "nesterov", "rmsprop"])
@pytest.mark.parametrize("micro_steps", [1, 2])
def test_a_skipped_step_uses_up_its_learning_rate(mode, kind, micro_steps):
    """Whatever was skipped, step k has the k-th rate: the weights are those of a run whose rate was 0 there."""
    rates, twin_rates = [0.1, 0.2, 0.4], [0.0, 0.2, 0.4]
    (step, weight), (twin, other) = (build(one, 2.0 ** 60, kind=kind, micro_steps=micro_steps)
                                     for one in (rates, twin_rates))
    for pixel, rate in ((200, 0.1), (1, 0.2), (1, 0.4)):  # 200 * 2^60 squared is beyond float32
        outputs = [run(step, pixel) for _ in range(micro_steps)]
        assert outputs[-1][5] == (pixel == 1) and step.last_rate(rates) == rate
    twin.start_at(1)
    for _ in range(2 * micro_steps):
        run(twin)
    assert np.allclose(weight.asnumpy(), other.asnumpy()) and not np.allclose(weight.asnumpy(), [3, 4])
    assert int(step.optimizer.global_step.asnumpy()[0]) == 3


def test_gradients_are_clipped_by_value_after_the_norm(mode):
    step, weight = build([0.1], 8.0, grad_clip=1.0, grad_clip_value=0.5)
    run(step)  # gradient 1, 1 -> norm clipped to .707 each -> .5 each
    assert np.allclose(weight.asnumpy(), [2.95, 3.95])


class Positives(nn.Cell):
    """Loss: the logits of each image times its positives, divided by the positives of the batch, at least 1."""

    def construct(self, logits, deltas, labels, targets):
        count = (labels > 0).astype(ms.float32).sum(1)
        total = ms.ops.maximum(count.sum(), 1.0)
        loss = (logits.sum((1, 2)) * (count + 1)).sum() / total
        return loss, loss * 0.75, loss * 0.25, count.sum()


@pytest.mark.parametrize("loss_scale", [1.0, 256.0])
def test_micro_steps_equal_one_large_step(mode, loss_scale):
    """Three batches of two images with 4, 0 and 3 positives: one update, the same as of the batch of six."""
    images = np.arange(1, 7, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    labels = np.zeros((6, 4), np.int32)
    labels[0, :3] = labels[1, 0] = labels[4, :2] = labels[5, 1] = 1
    batch = [ms.Tensor(one) for one in (images, labels, np.zeros((6, 4, 4), np.float32))]
    stop = ms.Tensor(0.0, ms.float32)
    large, weight = build([0.01] * 2, loss_scale, loss=Positives(), grad_clip=5.0, weight_decay=0.01)
    small, other = build([0.01] * 2, loss_scale, loss=Positives(), grad_clip=5.0, weight_decay=0.01, micro_steps=3)
    for _ in range(2):
        expected = large(*batch, stop).asnumpy()
        outputs = [small(*[one[at:at + 2] for one in batch], stop).asnumpy() for at in (0, 2, 4)]
        assert not outputs[0].any() and not outputs[1].any()
        assert np.allclose(outputs[2], expected, rtol=1e-5)
        assert np.allclose(other.asnumpy(), weight.asnumpy(), rtol=1e-6)
    assert not np.allclose(weight.asnumpy(), [3, 4]) and expected[3] == 7


def test_micro_steps_of_a_loss_that_is_not_weighed_are_averaged(mode):
    step, weight = build([0.1], micro_steps=2, global_positives=False)
    run(step, pixel=1), run(step, pixel=3)  # mean gradient 2
    assert np.allclose(weight.asnumpy(), [2.8, 3.8])


def test_an_overflow_in_one_micro_step_skips_the_update(mode):
    step, weight = build([0.1] * 2, 2.0 ** 127, micro_steps=2)
    run(step, pixel=200)
    assert run(step, pixel=0)[5] == 0 and np.allclose(weight.asnumpy(), [3, 4])
    run(step, pixel=0)
    assert run(step, pixel=0)[5] == 1  # nothing of the overflow is left in the sums


def test_the_average_follows_updates_but_not_skipped_ones(mode):
    step, weight = build([0.1] * 2, average=True)
    run(step)
    expected = 0.1 * 3.0 + 0.9 * 2.9
    assert np.allclose(step.average.averages[0].asnumpy()[0], expected)
    step, weight = build([0.1], 2.0 ** 127, average=True)
    assert run(step, pixel=200)[5] == 0 and step.average.updates.asnumpy() == 0


def first_steps(level):
    """Loss of the first step, whether all gradients of three steps were finite, and the model."""
    from src.losses import DetectionLoss, FocalLoss
    from src.models.initialize import he_initialize
    from src.training.build import mixed_precision
    ms.set_seed(1)  # the same weights for every level: the head's are drawn by MindSpore
    model = build_model("ssd300_mobilenet_v2", 3, image_size=64, width=0.25)
    he_initialize(model.network, 3, seed=1)
    optimizer = build_optimizer(model.network.trainable_params(), np.full(4, 0.01, np.float32), kind="momentum",
                                momentum=0.9, weight_decay=1e-4)
    step = step_module.TrainStep(mixed_precision(model, level), DetectionLoss(FocalLoss()), optimizer, loss_scale=4.0,
                                 dynamic=True, grad_clip=1.0)
    step.set_train()
    rng = np.random.default_rng(0)
    anchors = len(model.anchors)
    batch = (rng.integers(0, 256, (4, 64, 64, 3), np.uint8), np.arange(4 * anchors, dtype=np.int32).reshape(4, -1) % 3,
             rng.normal(size=(4, anchors, 4)).astype(np.float32))
    outputs = [step(*map(ms.Tensor, batch), ms.Tensor(0.0, ms.float32)).asnumpy() for _ in range(3)]
    return outputs[0][0], all(one[5] == 1 for one in outputs), model


@pytest.mark.parametrize("mode", ["pynative", pytest.param("graph", marks=pytest.mark.long)], indirect=True)
def test_mixed_precision_gives_the_loss_of_float32(mode):
    full, *_ = first_steps("O0")
    for level in ("O2", "O3"):
        loss, finite, model = first_steps(level)
        assert loss == pytest.approx(full, rel=0.01) and loss != full and finite
        assert all(one.dtype == ms.float32 for one in model.network.trainable_params())


@pytest.mark.long
@pytest.mark.parametrize("name", BUILDERS)
def test_every_model_learns_a_batch(name):
    """The loss of one repeated batch falls in four steps of the model's own loss, from its own initial weights."""
    from src.losses import DetectionLoss, FocalLoss, MultiBoxLoss
    ms.set_context(mode=ms.PYNATIVE_MODE)  # a graph of each would take many minutes to compile
    model = build_model(name, 3, image_size=128 if "fpn" in name else 0)
    classification = FocalLoss() if model.score == "sigmoid" else MultiBoxLoss()
    optimizer = build_optimizer(model.network.trainable_params(), np.full(5, 0.002, np.float32), kind="momentum",
                                momentum=0.9, weight_decay=1e-4)
    step = step_module.TrainStep(model, DetectionLoss(classification), optimizer, grad_clip=1.0)
    step.set_train()
    rng = np.random.default_rng(0)
    anchors, size = len(model.anchors), model.image_size
    labels = np.zeros((2, anchors), np.int32)
    labels[:, ::50] = 1
    batch = (rng.integers(0, 256, (2, size, size, 3), np.uint8), labels, np.zeros((2, anchors, 4), np.float32))
    losses = [step(*map(ms.Tensor, batch), ms.Tensor(0.0, ms.float32)).asnumpy()[0] for _ in range(5)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
