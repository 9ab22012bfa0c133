"""The fused update on CPU does to all parameters what optimisers, averages and TrainStep do one by one."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops
from stepping import Line, Sum

from src.ema import WeightAverage
from src.models.ssd import Model
from src.optim import build_optimizer
from src.training.fused_update import FusedUpdate, SquaredSum
from src.training.step import TrainStep

SHAPES = {"backbone.weight": (5, 3), "backbone.gamma": (7,), "head.weight": (5000,), "head.bias": (1,)}
RATES = np.float32([0.1, 0.2, 0.05, 0.1])


class Weights(nn.Cell):
    """Parameters, and a statistic that is not trained."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        self.all = ms.ParameterTuple([ms.Parameter(ms.Tensor(rng.normal(size=shape), ms.float32), name=name)
                                      for name, shape in SHAPES.items()])
        self.mean = ms.Parameter(ms.Tensor([4.0], ms.float32), name="backbone.moving_mean", requires_grad=False)


class Plain(nn.Cell):
    """What FusedUpdate does, by the parts themselves."""

    def __init__(self, optimizer, average, limit):
        super().__init__(auto_prefix=False)
        self.optimizer, self.average, self.limit = optimizer, average, limit

    def construct(self, gradients, factor, finite):
        if finite:
            self.optimizer(tuple([ops.clamp(gradient * factor, -self.limit, self.limit) for gradient in gradients]))
            if self.average is not None:
                self.average()
        else:
            ops.assign_add(self.optimizer.global_step, 1)


def after(library, kind, *, limit, decayed):
    """All parameters after four calls, of which the third has no finite gradients. library: "" is the plain way."""
    network = Weights()
    optimizer = build_optimizer(network.trainable_params(), RATES, kind=kind, momentum=0.9, weight_decay=0.01,
                                body_lr=1.0 if kind == "momentum" else 0.5)
    average = WeightAverage(network, 0.3) if decayed else None
    update = FusedUpdate(library, optimizer, average, limit=limit) if library else Plain(optimizer, average,
                                                                                       limit or np.inf)
    rng = np.random.default_rng(1)
    for finite in (True, True, False, True):
        gradients = ms.mutable(tuple(ms.Tensor(rng.normal(size=shape), ms.float32) for shape in SHAPES.values()))
        factor = ms.Tensor(0.5 if finite else np.nan, ms.float32)
        update(gradients, factor, ms.Tensor(finite))
        ops.assign(network.mean, ms.Tensor(rng.normal(size=1), ms.float32))
    return {parameter.name: parameter.asnumpy() for parameter in update.get_parameters()}


@pytest.mark.parametrize("kind", ["momentum", "nesterov", "rmsprop"])
@pytest.mark.parametrize("limit, decayed", [(0.0, True), (0.3, False)])
def test_it_equals_the_optimiser_and_the_average(library, mode, kind, limit, decayed):
    found = after(library, kind, limit=limit, decayed=decayed)
    expected = after("", kind, limit=limit, decayed=decayed)
    assert set(found) == set(expected) and found["global_step"] == expected["global_step"] == 4
    assert decayed == ("ema.head.weight" in found) and (not decayed or found["ema_updates"] == 3)
    for name, value in expected.items():
        assert np.allclose(found[name], value, rtol=1e-6, atol=2e-6), name


def test_it_goes_on_from_what_a_checkpoint_has(library, mode):
    """The momentum of a checkpoint counts, as in MindSpore's Momentum: 0.5 here, 0.9 in the optimiser that is built."""
    network = Weights()
    optimizer = build_optimizer(network.trainable_params(), RATES)
    ms.load_param_into_net(optimizer, {"momentum": ms.Parameter(ms.Tensor(0.5, ms.float32), name="momentum"),
                                       "global_step": ms.Parameter(ms.Tensor([1], ms.int32), name="global_step")})
    before = network.all[3].asnumpy().copy()
    gradients = ms.mutable(tuple(ms.Tensor(np.ones(shape), ms.float32) for shape in SHAPES.values()))
    update = FusedUpdate(library, optimizer, None)
    for _ in range(2):
        update(gradients, ms.Tensor(1.0, ms.float32), ms.Tensor(True))
    # 0.2 * 1, then 0.05 * (0.5 * 1 + 1)
    assert np.allclose(network.all[3].asnumpy(), before - 0.2 - 0.05 * 1.5)


def test_a_step_by_hand(library, mode):
    """As in test_engine.py: weights 3 and 4 of gradients 2 and 2, clipped to the norm 1, at the rate 0.5."""
    network = Line()
    model = Model(name="line", network=network, anchors=np.zeros((1, 4)), image_size=2, num_classes=2, mean=(0.0,) * 3,
                  std=(1.0,) * 3)
    optimizer = build_optimizer(network.trainable_params(), np.full(2, 0.5, np.float32), momentum=0.0)
    step = TrainStep(model, Sum(), optimizer, grad_clip=1.0, loss_scale=4.0, kernels=library)
    batch = np.full((1, 2, 2, 3), 2, np.uint8), np.ones((1, 1), np.int32), np.zeros((1, 1, 4), np.float32)
    numbers = step(*map(ms.Tensor, (*batch, np.float32(0)))).asnumpy()
    assert np.allclose(numbers[6], np.sqrt(8)) and optimizer.global_step.asnumpy() == 1
    assert np.allclose(network.weight.asnumpy(), np.array([3, 4]) - 0.5 * np.sqrt(0.5))


def test_micro_steps_and_a_dynamic_loss_scale(library, mode):
    """Two updates of two micro-steps each: the second kind of step changes weights only at its second call."""
    found = []
    for kernels in (library, ""):
        network = Line()
        model = Model(name="line", network=network, anchors=np.zeros((1, 4)), image_size=2, num_classes=2,
                      mean=(0.0,) * 3, std=(1.0,) * 3)
        optimizer = build_optimizer(network.trainable_params(), np.float32([0.5, 0.25]), kind="rmsprop", momentum=0.5)
        step = TrainStep(model, Sum(), optimizer, dynamic=True, loss_scale=2.0, micro_steps=2, kernels=kernels,
                         average=WeightAverage(network, 0.5))
        for pixel in (2, 6, 3, 1):
            batch = np.full((1, 2, 2, 3), pixel, np.uint8), np.ones((1, 1), np.int32), np.zeros((1, 1, 4), np.float32)
            numbers = step(*map(ms.Tensor, (*batch, np.float32(0)))).asnumpy()
            found.append([*numbers, *network.weight.asnumpy(), *step.average.averages[0].asnumpy()])
    assert np.allclose(found[:4], found[4:], rtol=1e-5, atol=1e-6) and found[0][9:11] == [3, 4] and found[1][9] < 3


def test_sum_of_squares(library, mode):
    """1 + 4 + 9 + 16, and 5000 times 0.25."""
    tensors = ms.Tensor([[1.0, -2.0]]), ms.Tensor([-3.0]), ms.Tensor(4.0), ms.Tensor(np.full(5000, 0.5, np.float32))
    assert SquaredSum(library)(tensors).asnumpy().tolist() == 1280
