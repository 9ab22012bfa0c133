"""Our own kernels of a training step on CPU compute what MindSpore's do, and stand only in training."""
import copy
import ctypes
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.losses import DetectionLoss, FocalLoss
from src.models.cpu_kernels import (
    Clipped,
    Convolution,
    FrozenConvolution,
    FrozenNormalization,
    Normalization,
    use_own_kernels,
)
from src.models.freeze import choose_norms
from src.models.heads import SharedHead
from src.models.initialize import he_initialize
from src.models.layers import BatchNorm, batch_norm, conv, conv_norm, separable_conv, torch_conv
from src.models.ssd import build_model
from src.optim import build_optimizer
from src.training.step import TrainStep

# maps of the networks, smaller and odd ones, one larger than a strip of the kernels, and one that is not square
SIDES = ((1, 1), (2, 2), (3, 3), (5, 4), (7, 1), (10, 10), (19, 19), (38, 37), (75, 75), (150, 150), (5, 4100))
CHANNELS = 3


@pytest.fixture(scope="module", autouse=True)
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE)


class Apart(nn.Cell):
    """Each cell on an input of its own, times weights that make all places count -> the outputs and their sum."""

    def __init__(self, cells, weights):
        super().__init__()
        self.cells_in_turn, self.weights = nn.CellList(cells), weights

    def construct(self, *inputs):
        outputs, total = [], 0.0
        for cell, weight, x in zip(self.cells_in_turn, self.weights, inputs):
            outputs.append(cell(x))
            total = total + (outputs[-1] * weight).sum()
        return total, outputs


def run(cells, inputs, weights):
    """Arrays: outputs, gradients of inputs and of parameters, and what the parameters are afterwards."""
    network = Apart(cells, [ms.Tensor(weight) for weight in weights])
    network.set_train()
    step = ops.value_and_grad(network, tuple(range(len(inputs))), network.trainable_params(), has_aux=True)
    (_, outputs), (of_inputs, of_parameters) = step(*map(ms.Tensor, inputs))
    return [array.asnumpy() for array in (*outputs, *of_inputs, *of_parameters, *network.get_parameters())]


def assert_equal(found, expected):
    """Within 1e-5 of the largest number of each array."""
    assert len(found) == len(expected)
    for number, (one, other) in enumerate(zip(found, expected)):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max() + 1e-12, f"array {number} of {len(found)}"


def drawn(rng, shape, scale=1.0, shift=0.0):
    return rng.normal(shift, scale, shape).astype(np.float32)


def with_kernels(cells, library):
    """A copy of the cells with our own kernels."""
    network = nn.CellList(copy.deepcopy(cells))
    use_own_kernels(network, library)
    return list(network)


@pytest.mark.parametrize("build, stride", [(conv, 1), (conv, 2), (torch_conv, 2)], ids=["1", "2 same", "2 half"])
@pytest.mark.parametrize("batch", [1, 3])
def test_depthwise_convolution_and_its_gradients(library, build, stride, batch):
    rng = np.random.default_rng(0)
    cells = [build(CHANNELS, CHANNELS, 3, stride=stride, groups=CHANNELS, bias=True) for _ in SIDES]
    for cell in cells:
        cell.weight.set_data(ms.Tensor(drawn(rng, cell.weight.shape)))
    inputs = [drawn(rng, (batch, CHANNELS, *sides)) for sides in SIDES]
    weights = [drawn(rng, (batch, CHANNELS, *(-(-side // stride) for side in sides))) for sides in SIDES]
    own = with_kernels(cells, library)
    assert all(isinstance(cell.conv2d, Convolution) for cell in own)
    assert_equal(run(own, inputs, weights), run(cells, inputs, weights))


@pytest.mark.parametrize("batch", [1, 3])
def test_pointwise_convolution_and_its_gradients(library, batch):
    """Channels below and above the tiles of the kernel, and maps that end within one."""
    if not hasattr(ctypes.CDLL(library), "pointwise"):
        pytest.skip("this processor has no AVX-512")
    rng, sides = np.random.default_rng(0), [(1, 1), (2, 2), (5, 4), (19, 19), (38, 37), (7, 1), (75, 75)]
    cells = [conv(first, second, 1, bias=True) for first, second in
             ((3, 5), (128, 24), (17, 9), (50, 47), (16, 96), (300, 8), (49, 33))]
    for cell in cells:
        cell.weight.set_data(ms.Tensor(drawn(rng, cell.weight.shape)))
    inputs = [drawn(rng, (batch, cell.in_channels, *side)) for cell, side in zip(cells, sides)]
    weights = [drawn(rng, (batch, cell.out_channels, *side)) for cell, side in zip(cells, sides)]
    own = with_kernels(cells, library)
    assert all(isinstance(cell.conv2d, Convolution) for cell in own)
    assert_equal(run(own, inputs, weights), run(cells, inputs, weights))


def test_a_convolution_by_hand(library):
    """Ones under a kernel 1..9 sum the part of it that lies on the map; TensorFlow pads an even map behind only."""
    cell = conv(1, 1, 3, stride=2, groups=1)
    assert use_own_kernels(nn.CellList([cell]), library) == 1
    cell.weight.set_data(ms.Tensor(np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)))
    cell.set_train()
    assert cell(ms.Tensor(np.ones((1, 1, 4, 4), np.float32))).asnumpy().tolist() == [[[[45, 27], [21, 12]]]]
    assert cell(ms.Tensor(np.ones((1, 1, 3, 3), np.float32))).asnumpy().tolist() == [[[[28, 24], [16, 12]]]]


@pytest.mark.parametrize("activation", [None, nn.ReLU, nn.ReLU6])
@pytest.mark.parametrize("batch", [1, 3])
def test_norm_with_activation_and_its_gradients(library, mode, activation, batch):
    rng, sides = np.random.default_rng(0), [side for side in SIDES if batch * side[0] * side[1] > 9]
    cells = []
    for _ in sides:
        norm = BatchNorm(CHANNELS, eps=1e-3, momentum=0.97)
        for parameter in norm.get_parameters():
            parameter.set_data(ms.Tensor(np.abs(drawn(rng, (CHANNELS,), shift=2)) + 0.1))
        cells.append(nn.SequentialCell([norm, *([activation()] if activation else [])]))
    inputs = [drawn(rng, (batch, CHANNELS, *side), 2, 3) for side in sides]
    weights = [drawn(rng, array.shape) for array in inputs]
    own = with_kernels(cells, library)
    assert all(isinstance(cell[0].bn_train, Normalization) for cell in own)
    assert all(isinstance(cell[1], Clipped) for cell in own if activation)
    assert_equal(run(own, inputs, weights), run(cells, inputs, weights))


def set_norms(rng, cells):
    """Gives all norms numbers of their own, and returns them."""
    norms = [norm for cell in cells for _, norm in cell.cells_and_names() if isinstance(norm, BatchNorm)]
    for norm in norms:
        for parameter in norm.get_parameters():
            parameter.set_data(ms.Tensor(np.abs(drawn(rng, parameter.shape, shift=2)) + 0.1))
    return norms


@pytest.mark.parametrize("activation", [None, nn.ReLU, nn.ReLU6])
@pytest.mark.parametrize("batch", [1, 3])
def test_frozen_norm_with_activation_and_its_gradients(library, activation, batch):
    rng = np.random.default_rng(0)
    cells = [nn.SequentialCell([BatchNorm(CHANNELS, eps=1e-3), *([activation()] if activation else [])])
             for _ in SIDES]
    set_norms(rng, cells)
    choose_norms(nn.CellList(cells), "frozen", 1)
    inputs = [drawn(rng, (batch, CHANNELS, *side), 2, 3) for side in SIDES]
    weights = [drawn(rng, array.shape) for array in inputs]
    own = with_kernels(cells, library)
    assert all(isinstance(cell[0].bn_infer, FrozenNormalization) for cell in own)
    assert_equal(run(own, inputs, weights), run(cells, inputs, weights))


@pytest.mark.parametrize("activation", [None, nn.ReLU, nn.ReLU6])
@pytest.mark.parametrize("size, stride", [(3, 1), (3, 2), (1, 1)])
def test_convolution_in_front_of_a_frozen_norm_and_its_gradients(library, size, stride, activation):
    """The two and the activation are one kernel: channels below and above its tiles, maps that end within one."""
    rng, sides = np.random.default_rng(0), [(1, 1), (2, 2), (5, 4), (19, 19), (38, 37), (7, 1), (75, 75)]
    channels = ((3, 5), (128, 24), (17, 9), (50, 47), (16, 96), (300, 8), (49, 33)) if size == 1 else ((3, 3),) * 7
    cells = [conv_norm(first, second, batch_norm(eps=1e-3), kernel_size=size, stride=stride, activation=activation,
                       groups=1 if size == 1 else first) for first, second in channels]
    norms = set_norms(rng, cells)
    for cell, norm in zip(cells, norms):
        cell[0].weight.set_data(ms.Tensor(drawn(rng, cell[0].weight.shape)))
        norm.moving_mean.set_data(norm.moving_mean - 2)
    choose_norms(nn.CellList(cells), "frozen", 1)
    inputs = [drawn(rng, (2, cell[0].in_channels, *side)) for cell, side in zip(cells, sides)]
    weights = [drawn(rng, (2, cell[0].out_channels, *(-(-part // stride) for part in side)))
               for cell, side in zip(cells, sides)]
    own = with_kernels(cells, library)
    fused = hasattr(ctypes.CDLL(library), "depthwise" if size == 3 else "pointwise")
    assert all(isinstance(cell[1].bn_infer, FrozenConvolution if fused else FrozenNormalization) for cell in own)
    assert_equal(run(own, inputs, weights), run(cells, inputs, weights))


class Total(nn.Cell):
    """The sum of all that a head gives."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def construct(self, *maps):
        logits, deltas = self.head(maps)
        return logits.sum() + deltas.sum()


def test_frozen_norms_in_a_head_with_shared_convolutions(library, mode):
    """Each level has norms of its own behind the same convolutions, and one activation serves all."""
    rng = np.random.default_rng(0)
    for kind in ("frozen", "own"):
        head = SharedHead(2, 8, anchors_per_cell=2, num_classes=3, norm=batch_norm(), one_tower=True,
                          layer=separable_conv, tower_bias=False)
        set_norms(rng, [head])
        choose_norms(head, kind, 1)
        own = copy.deepcopy(head)
        use_own_kernels(own, library)
        assert isinstance(own.relu, Clipped)
        maps = [ms.Tensor(drawn(rng, (2, 8, side, side))) for side in (6, 3)]
        numbers = []
        for network in (own, head):
            network.set_train()
            step = ops.value_and_grad(Total(network), None, network.trainable_params())
            loss, gradients = step(*maps)
            numbers.append([part.asnumpy() for part in (loss, *gradients)])
        assert_equal(*numbers)


def test_a_single_value_is_clipped_too(library):
    """The norm gives beta, 7 of the first channel and -7 of the second, and leaves its statistics."""
    cell = conv_norm(2, 2, batch_norm(), groups=2)
    use_own_kernels(cell, library)
    cell[1].beta.set_data(ms.Tensor([7.0, -7.0]))
    cell.set_train()
    assert cell(ms.Tensor(np.ones((1, 2, 1, 1), np.float32))).asnumpy().ravel().tolist() == [6, 0]
    assert cell[1].moving_variance.asnumpy().tolist() == [1, 1]


def test_results_do_not_depend_on_threads(library):
    kernels, rng, results = ctypes.CDLL(library), np.random.default_rng(0), []
    cell = nn.SequentialCell(conv_norm(64, 64, batch_norm(), groups=64), conv(64, 32, 1))
    inputs, weights = [drawn(rng, (2, 64, 40, 40))], [drawn(rng, (2, 32, 40, 40))]
    for threads in (1, 5):
        kernels.set_threads(threads)
        results.append(run(with_kernels([cell], library), inputs, weights))
    kernels.set_threads(1)
    assert all(np.array_equal(one, other) for one, other in zip(*results))


def train(change):
    """[loss, norm of the gradient] of three steps of a small detector, its parameters and its network.

    change: is given the network, returns a library of kernels or "". Later steps would magnify rounding: they do so
    with a change of 3e-7 in one weight.
    """
    ms.set_seed(1)
    model = build_model("ssd300_mobilenet_v2", 3, image_size=64, width=0.25)
    he_initialize(model.network, 3, seed=1)
    kernels = change(model.network)
    optimizer = build_optimizer(model.network.trainable_params(), np.full(3, 1e-3, np.float32))
    step = TrainStep(model, DetectionLoss(FocalLoss(alpha=0.75)), optimizer, kernels=kernels)
    step.set_train()
    rng, anchors, numbers = np.random.default_rng(0), len(model.anchors), []
    for _ in range(3):
        batch = (rng.integers(0, 256, (8, 64, 64, 3), np.uint8), (rng.random((8, anchors)) < 0.1).astype(np.int32),
                 drawn(rng, (8, anchors, 4)), np.float32(0))
        numbers.append(step(*map(ms.Tensor, batch)).asnumpy()[[0, 6]])
    return numbers, {parameter.name: parameter for parameter in step.get_parameters()}, model.network


def test_a_training_takes_the_same_course_and_leaves_the_network_to_others(library):
    numbers, parameters, network = train(lambda network: use_own_kernels(network, library) and library)
    expected, plain, other = train(lambda network: "")
    assert np.allclose(numbers, expected, rtol=1e-4) and list(parameters) == list(plain)
    assert ms.load_param_into_net(other, parameters)[0] == []
    image = ms.Tensor(drawn(np.random.default_rng(0), (1, 3, 64, 64)))
    for one, two in zip(network.set_train(False)(image), other.set_train(False)(image)):
        assert np.array_equal(one.asnumpy(), two.asnumpy())  # outside training the operators are the same


def test_an_exported_file_has_plain_operators(library, tmp_path):
    cell = conv_norm(4, 4, batch_norm(), groups=4)
    use_own_kernels(cell, library)
    cell.set_train(False)
    path = str(tmp_path / "cell.mindir")
    ms.export(cell, ms.Tensor(np.ones((1, 4, 8, 8), np.float32)), file_name=path, file_format="MINDIR")
    data = Path(path).read_bytes()
    assert b"Conv2D" in data and b"ReLU6" in data and b"Custom" not in data


def test_synchronised_norms_stay(library):
    cell = conv_norm(4, 4, batch_norm())
    choose_norms(cell, "sync", 2)
    assert use_own_kernels(cell, library) == 0
    assert type(cell[2]) is nn.ReLU6 and not isinstance(cell[1].bn_train, Normalization)


@pytest.mark.parametrize("other", [
    conv(4, 4), conv(4, 4, 1, groups=4), conv(4, 4, 1, stride=2), conv(4, 4, 1, padding=1), conv(4, 8, groups=4),
    conv(4, 4, groups=2), conv(4, 4, groups=4, dilation=2), conv(4, 4, 5, groups=4), conv(4, 4, groups=4, padding=0),
    conv(4, 4, groups=4, stride=3)])
def test_other_convolutions_stay(library, other):
    assert use_own_kernels(nn.CellList([other]), library) == 0
