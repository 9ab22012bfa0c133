"""The training step by hand: update rule, clipping, loss scale, overflow; the loop: resume, stop, non-finite loss."""
import contextlib
import os
import signal

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src import engine
from src.errors import Interrupted, NotFiniteError
from src.models.ssd import BUILDERS, Model, build_model
from src.optim import build_optimizer


class Line(nn.Cell):
    """A network with one weight per output: logits = w * mean pixel."""

    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(ms.Tensor(np.array([3.0, 4.0], np.float32)), name="weight")

    def construct(self, images):
        level = images.mean(axis=(1, 2, 3)).reshape((-1, 1, 1))
        return level * self.weight, level * self.weight


class Sum(nn.Cell):
    """Loss: sum of the logits over the batch size, so that the gradient of each weight is the mean pixel."""

    def construct(self, logits, deltas, labels, targets):
        loss = logits.sum() / logits.shape[0]
        return loss, loss * 0.75, loss * 0.25, (labels > 0).astype(ms.float32).sum()


class Loader:
    """Batches of constant pixels, one image each."""
    batch_size, world, rank = 1, 1, 0

    def __init__(self, steps, pixel=1):
        self.steps, self.pixel = steps, pixel

    def epoch(self, epoch, first=0):
        for index in range(first, self.steps):
            yield (np.full((1, 2, 2, 3), self.pixel, np.uint8), np.ones((1, 4), np.int32),
                   np.zeros((1, 4, 4), np.float32), np.array([100 * epoch + index]))


class Log:
    """Keeps what was logged."""

    def __init__(self):
        self.rows, self.said = [], []

    def write(self, row, group=None):
        self.rows.append(row)

    def say(self, text):
        self.said.append(text)


def build(rates, loss_scale=1.0, dynamic=False, grad_clip=0.0, weight_decay=0.0, loss=None):
    network = Line()
    model = Model("line", network, np.zeros((4, 4), np.float32), 2, 2, mean=(0, 0, 0), std=(1, 1, 1))
    optimizer = build_optimizer(network.trainable_params(), np.array(rates, np.float32), "momentum", 0.9, weight_decay)
    step = engine.TrainStep(model, loss or Sum(), optimizer, loss_scale, dynamic, grad_clip)
    step.set_train()
    return step, network.weight


def run(step, pixel=1):
    batch = next(Loader(1, pixel).epoch(0))
    return step(*map(ms.Tensor, batch[:3]), ms.Tensor(0.0, ms.float32)).asnumpy()


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def mode(request):
    ms.set_context(mode=request.param)
    yield
    ms.set_context(mode=ms.GRAPH_MODE)


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
    assert step.loss_scale.asnumpy() == 2.0 ** 126 and int(step.optimizer.global_step.asnumpy()[0]) == 0
    assert step.good_steps.asnumpy() == 0


def test_dynamic_scale_doubles_after_enough_good_steps(mode, monkeypatch):
    monkeypatch.setattr(engine, "GROW_AFTER", 2)
    step, _ = build([0.0] * 5, 4.0, dynamic=True)
    scales = [float(run(step)[7]) for _ in range(5)]
    assert scales == [4, 4, 8, 8, 16]


def test_static_scale_stays_and_skips(mode):
    step, weight = build([0.1], 2.0 ** 127)
    assert run(step, pixel=200)[5] == 0
    assert np.allclose(weight.asnumpy(), [3, 4]) and step.loss_scale.asnumpy() == 2.0 ** 127


def test_the_loop_logs_every_interval_and_calls_back():
    step, _ = build([0.1] * 6)
    log, epochs = Log(), []
    engine.train(step, Loader(3), np.full(6, 0.1, np.float32), log, log_interval=2,
                 after_epoch=lambda *done: epochs.append(done))
    assert [row["step"] for row in log.rows] == [2, 4, 6] and [row["epoch"] for row in log.rows] == [1, 2, 2]
    assert epochs == [(1, 3), (2, 6)]
    assert log.rows[0]["loss"] == pytest.approx((7 + 6.8) / 2)
    assert {"loss_cls", "loss_box", "lr", "data_time", "step_time", "images_per_second", "eta",
            "peak_memory"} <= set(log.rows[0])
    assert 0.1 < log.rows[0]["peak_memory"] < 200


def test_most_steps_ends_early():
    step, _ = build([0.1] * 6)
    epochs = []
    engine.train(step, Loader(3), np.full(6, 0.1), Log(), most_steps=4, after_epoch=lambda *done: epochs.append(done))
    assert epochs == [(1, 3), (2, 4)]


def test_a_loss_that_is_not_finite_names_images_lr_and_scale():
    class Broken(nn.Cell):
        def construct(self, logits, deltas, labels, targets):
            loss = ms.ops.log(logits.sum() * 0 - 1)
            return loss, loss, loss, loss

    step, weight = build([0.25] * 2, loss=Broken())
    with pytest.raises(NotFiniteError, match=r"loss is nan.* at step 1, epoch 1: lr 0\.25, loss scale 1, images img0;"):
        engine.train(step, Loader(2), np.full(2, 0.25), Log(), image_name="img{}".format)
    assert np.allclose(weight.asnumpy(), [3, 4])  # the update was left out


@pytest.mark.parametrize("bad, ends", [(2, False), (4, True)])
def test_a_static_scale_that_skips_most_steps_ends_the_run(bad, ends):
    step, _ = build([0.1] * 6, 2.0 ** 127)

    class Mixed(Loader):
        def epoch(self, epoch, first=0):
            for index, (images, *rest) in enumerate(super().epoch(epoch, first)):
                yield (images * (200 if index < bad else 0), *rest)

    epochs = []
    with pytest.raises(NotFiniteError, match="4 of 6 steps were skipped") if ends else contextlib.nullcontext():
        engine.train(step, Mixed(6), np.full(6, 0.1), Log(), after_epoch=lambda *done: epochs.append(done))
    assert len(epochs) == 1 - ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_raises(number):
    step, _ = build([0.1] * 4)
    saved = []

    class Kicks(Loader):
        def epoch(self, epoch, first=0):
            for index, batch in enumerate(super().epoch(epoch, first)):
                if index == 1:
                    os.kill(os.getpid(), number)
                yield batch

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="^interrupted after step 2"):
        engine.train(step, Kicks(4), np.full(4, 0.1), Log(), save=lambda *done: saved.append(done))
    assert saved == [(2,)] and signal.getsignal(number) is before


def test_starting_in_the_middle_of_an_epoch_reads_only_the_rest():
    step, _ = build([0.1] * 6)
    log = Log()
    engine.train(step, Loader(3), np.full(6, 0.1), log, start=4, log_interval=1)
    assert [row["step"] for row in log.rows] == [5, 6]


def first_steps(level):
    """Loss of the first step, whether all gradients of three steps were finite, and the model."""
    from src.losses import DetectionLoss, FocalLoss
    from src.models.initialize import he_initialize
    from src.recipe import mixed_precision
    ms.set_seed(1)  # the same weights for every level: the head's are drawn by MindSpore
    model = build_model("ssd300_mobilenet_v2", 3, 64, 0.25)
    he_initialize(model.network, 3, seed=1)
    optimizer = build_optimizer(model.network.trainable_params(), np.full(4, 0.01, np.float32), "momentum", 0.9, 1e-4)
    step = engine.TrainStep(mixed_precision(model, level), DetectionLoss(FocalLoss()), optimizer, 4.0, True, 1.0)
    step.set_train()
    rng = np.random.default_rng(0)
    anchors = len(model.anchors)
    batch = (rng.integers(0, 256, (4, 64, 64, 3), np.uint8), np.arange(4 * anchors, dtype=np.int32).reshape(4, -1) % 3,
             rng.normal(size=(4, anchors, 4)).astype(np.float32))
    outputs = [step(*map(ms.Tensor, batch), ms.Tensor(0.0, ms.float32)).asnumpy() for _ in range(3)]
    return outputs[0][0], all(one[5] == 1 for one in outputs), model


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, pytest.param(ms.GRAPH_MODE, marks=pytest.mark.slow)], indirect=True)
def test_mixed_precision_gives_the_loss_of_float32(mode):
    full, *_ = first_steps("O0")
    for level in ("O2", "O3"):
        loss, finite, model = first_steps(level)
        assert loss == pytest.approx(full, rel=0.01) and loss != full and finite
        assert all(one.dtype == ms.float32 for one in model.network.trainable_params())


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDERS)
def test_every_model_learns_a_batch(name):
    """The loss of one repeated batch falls in four steps of the model's own loss, from its own initial weights."""
    from src.losses import DetectionLoss, FocalLoss, MultiBoxLoss
    ms.set_context(mode=ms.PYNATIVE_MODE)  # a graph of each would take many minutes to compile
    model = build_model(name, 3, 128 if name.endswith("fpn") else 0)
    classification = FocalLoss() if model.score == "sigmoid" else MultiBoxLoss()
    optimizer = build_optimizer(model.network.trainable_params(), np.full(5, 0.002, np.float32), "momentum", 0.9, 1e-4)
    step = engine.TrainStep(model, DetectionLoss(classification), optimizer, grad_clip=1.0)
    step.set_train()
    rng = np.random.default_rng(0)
    anchors, size = len(model.anchors), model.image_size
    labels = np.zeros((2, anchors), np.int32)
    labels[:, ::50] = 1
    batch = (rng.integers(0, 256, (2, size, size, 3), np.uint8), labels, np.zeros((2, anchors, 4), np.float32))
    losses = [step(*map(ms.Tensor, batch), ms.Tensor(0.0, ms.float32)).asnumpy()[0] for _ in range(5)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
