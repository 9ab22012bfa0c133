"""BatchNorm that is frozen, and one that takes its statistics over several processes."""
import mindspore as ms
import numpy as np
from mindspore import nn

from src.losses import DetectionLoss, FocalLoss
from src.models.freeze import choose_norms, hasten_norms
from src.models.initialize import he_initialize
from src.models.layers import BatchNorm
from src.models.ssd import build_model
from src.optim import build_optimizer
from src.training.step import TrainStep
from src.weights.tensorflow_names import FOLDED_EPSILON


def sums_of(batch, mean):
    """What AllReduce gives a process when this is all: sums, then sums of squared distances from the mean."""
    answers = iter([batch.sum((0, 2, 3)), np.square(batch - mean.reshape((1, -1, 1, 1))).sum((0, 2, 3))])
    return lambda own: ms.Tensor(next(answers)) + own * 0


def test_statistics_of_two_processes_are_those_of_one_large_batch():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    rng = np.random.default_rng(0)
    batch = rng.normal(2, 3, (6, 4, 5, 5)).astype(np.float32)
    alone, halves = nn.BatchNorm2d(4, momentum=0.9), [BatchNorm(4, momentum=0.9) for _ in range(2)]
    alone.set_train()
    expected = alone(ms.Tensor(batch)).asnumpy()
    for half, part, there in zip(halves, (batch[:3], batch[3:]), (expected[:3], expected[3:])):
        half.set_train()
        half.world, half.all_reduce = 2, sums_of(batch, batch.mean((0, 2, 3)))
        assert np.allclose(half(ms.Tensor(part)).asnumpy(), there, atol=1e-5)
        assert np.allclose(half.moving_mean.asnumpy(), alone.moving_mean.asnumpy(), atol=1e-6)
        assert np.allclose(half.moving_variance.asnumpy(), alone.moving_variance.asnumpy(), rtol=1e-5)
    ms.set_context(mode=ms.GRAPH_MODE)


def test_frozen_means_the_stored_statistics_and_nothing_trained():
    model = build_model("ssd300_mobilenet_v2", 3, image_size=64, width=0.25)
    choose_norms(model.network, "frozen_backbone", 1)
    norms = dict((name, cell) for name, cell in model.network.cells_and_names() if isinstance(cell, nn.BatchNorm2d))
    frozen = {name for name, cell in norms.items() if cell.use_batch_statistics is False}
    assert frozen == {name for name in norms if name.startswith("backbone.")} and len(frozen) < len(norms)
    choose_norms(model.network, "frozen", 1)
    assert not any(parameter.name.endswith((".gamma", ".beta")) for parameter in model.network.trainable_params())
    model.network.set_train()
    before = {parameter.name: parameter.asnumpy().copy() for parameter in model.network.get_parameters()}
    model.network(ms.Tensor(np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)))
    after = {parameter.name: parameter.asnumpy() for parameter in model.network.get_parameters()}
    assert all(np.array_equal(before[name], after[name]) for name in after)


def test_a_self_test_gives_running_statistics_the_weight_of_its_last_batches():
    """Statistics 0 and 1, a batch of mean 3 and unbiased variance 2, weight 0.75 of what was: 0.75 and 1.25."""
    batch = 3 + np.array([-1, 1, -1, 1], np.float32) * 1.5 ** 0.5               # sum of squares 6, of 3 degrees
    for mode in (ms.PYNATIVE_MODE, ms.GRAPH_MODE):
        ms.set_context(mode=mode)
        norm = BatchNorm(1, momentum=0.997)
        hasten_norms(nn.SequentialCell(norm), 0.75)
        norm.set_train()
        norm(ms.Tensor(batch.reshape(4, 1, 1, 1)))
        assert np.isclose(norm.moving_mean.asnumpy()[0], 0.75, atol=1e-6)
        assert np.isclose(norm.moving_variance.asnumpy()[0], 1.25, atol=1e-5)
        norm.set_train(False)
        expected = (3 - 0.75) / 1.25 ** 0.5                                     # evaluation normalises with them
        assert np.isclose(norm(ms.Tensor([[[[3.0]]]])).asnumpy().item(), expected, atol=1e-4)


def fill_folded(network):
    """Weights, and norms as weights/tensorflow_names.py fills folded ones: a factor, a shift, mean 0 and variance 1."""
    he_initialize(network, 3, seed=1)
    rng = np.random.default_rng(1)
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d):
            count = cell.gamma.shape
            for parameter, values in ((cell.moving_mean, np.zeros(count)), (cell.gamma, rng.uniform(0.8, 1.2, count)),
                                      (cell.moving_variance, np.full(count, 1 - FOLDED_EPSILON)),
                                      (cell.beta, rng.uniform(0, 0.5, count))):
                parameter.set_data(ms.Tensor(values.astype(np.float32)))


def test_a_body_with_folded_norms_is_trained_with_frozen_norms():
    """What is trained is what is evaluated; the loss falls, all weights of the body change, no norm does."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    model = build_model("ssd300_mobilenet_v2", 3, image_size=64, width=0.25)
    fill_folded(model.network)
    rng, anchors = np.random.default_rng(0), len(model.anchors)
    pixels = ms.Tensor(rng.normal(size=(4, 3, 64, 64)).astype(np.float32))
    alone = model.network.set_train(False)(pixels)[0].asnumpy()
    assert not np.allclose(model.network.set_train(True)(pixels)[0].asnumpy(), alone, atol=1e-2)  # normalised again

    fill_folded(model.network)  # the call above has moved the statistics
    choose_norms(model.network, "frozen", 1)
    assert np.allclose(model.network.set_train(True)(pixels)[0].asnumpy(), alone, atol=1e-4)
    before = {parameter.name: parameter.asnumpy().copy() for parameter in model.network.get_parameters()}
    optimizer = build_optimizer(model.network.trainable_params(), np.full(6, 0.02, np.float32), kind="momentum",
                                momentum=0.9, weight_decay=1e-4)
    step = TrainStep(model, DetectionLoss(FocalLoss()), optimizer, grad_clip=10.0)
    step.set_train()
    labels = (np.arange(4 * anchors, dtype=np.int32).reshape(4, -1) % 20 == 0).astype(np.int32)
    batch = (rng.integers(0, 256, (4, 64, 64, 3), np.uint8), labels, np.zeros((4, anchors, 4), np.float32))
    losses = [step(*map(ms.Tensor, batch), ms.Tensor(0.0, ms.float32)).asnumpy()[0] for _ in range(5)]
    assert np.isfinite(losses).all() and losses[-1] < 0.97 * losses[0]
    after = {parameter.name: parameter.asnumpy() for parameter in model.network.get_parameters()}
    changed = {name for name in after if not np.array_equal(before[name], after[name])}
    assert all(name.endswith((".weight", ".bias")) for name in changed)
    assert all(name in changed for name in after if name.startswith("backbone.") and name.endswith(".weight"))
    ms.set_context(mode=ms.GRAPH_MODE)
