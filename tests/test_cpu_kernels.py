"""Our own kernels of a training step on CPU compute what MindSpore's do, and stand only in training."""
import copy
import ctypes
import os
import stat
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.errors import EnvironmentFault
from src.files import private_folders
from src.losses import DetectionLoss, FocalLoss
from src.machine import cpu_library, process
from src.models.cpu_kernels import Clipped, Convolution, Normalization, SquaredSum, try_own_kernels, use_own_kernels
from src.models.freeze import choose_norms
from src.models.initialize import he_initialize
from src.models.layers import BatchNorm, batch_norm, conv, conv_norm, torch_conv
from src.models.ssd import build_model
from src.optim import build_optimizer
from src.training.step import TrainStep

# maps of the networks, smaller and odd ones, one larger than a strip of the kernels, and one that is not square
SIDES = ((1, 1), (2, 2), (3, 3), (5, 4), (7, 1), (10, 10), (19, 19), (38, 37), (75, 75), (150, 150), (5, 4100))
CHANNELS = 3


@pytest.fixture(scope="module")
def library():
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        return cpu_library.open_kernels(1)
    except EnvironmentFault as error:
        pytest.skip(str(error))


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
def test_norm_with_activation_and_its_gradients(library, activation, batch):
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


def test_sum_of_squares(library):
    """1 + 4 + 9 + 16, and 5000 times 0.25."""
    tensors = ms.Tensor([[1.0, -2.0]]), ms.Tensor([-3.0]), ms.Tensor(4.0), ms.Tensor(np.full(5000, 0.5, np.float32))
    assert SquaredSum(library)(tensors).asnumpy().tolist() == 1280


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


def test_norms_with_other_statistics_keep_theirs(library):
    frozen, synchronised = conv_norm(4, 4, batch_norm(), groups=4), conv_norm(4, 4, batch_norm())
    choose_norms(frozen, "frozen", 1)
    choose_norms(synchronised, "sync", 2)
    assert use_own_kernels(nn.CellList([frozen, synchronised]), library) == 1  # the depthwise convolution
    assert [type(cell[2]) for cell in (frozen, synchronised)] == [nn.ReLU6] * 2
    assert not any(isinstance(cell[1].bn_train, Normalization) for cell in (frozen, synchronised))


@pytest.mark.parametrize("other", [
    conv(4, 4), conv(4, 4, 1, groups=4), conv(4, 4, 1, stride=2), conv(4, 4, 1, padding=1), conv(4, 8, groups=4),
    conv(4, 4, groups=2), conv(4, 4, groups=4, dilation=2), conv(4, 4, 5, groups=4), conv(4, 4, groups=4, padding=0),
    conv(4, 4, groups=4, stride=3)])
def test_other_convolutions_stay(library, other):
    assert use_own_kernels(nn.CellList([other]), library) == 0


# --- compiling

@pytest.fixture
def own_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu_library, "private_folders", lambda name: [str(tmp_path / name)])
    return tmp_path / "ssd-cpu-kernels"


def compiler(tmp_path, monkeypatch, body):
    """Makes CXX a shell script."""
    path = tmp_path / "compiler"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(path))


def test_the_library_is_compiled_once(library, own_folder, monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    path = cpu_library.open_kernels(2)
    assert [path] == [str(file) for file in own_folder.iterdir()]  # nothing is left beside it
    monkeypatch.setattr(cpu_library, "compile_to", None)           # which cannot be called
    assert cpu_library.open_kernels(2) == path


@pytest.mark.parametrize("body, message", [
    ("echo 'kernels: out of luck' >&2; exit 1", "kernels: out of luck"),
    ("for path; do case $last in -o) echo no library > $path;; esac; last=$path; done", "")])
def test_a_compiler_that_fails_is_named(own_folder, monkeypatch, tmp_path, body, message):
    compiler(tmp_path, monkeypatch, body)
    with pytest.raises(EnvironmentFault, match=f"compiler did not compile our kernels: .*{message}"):
        cpu_library.open_kernels(1)


def test_without_a_compiler_training_goes_on_and_says_so(own_folder, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(own_folder))
    said, network = [], conv_norm(4, 4, batch_norm(), groups=4)
    assert try_own_kernels(network, said.append) == ""
    assert said == ["note: no C++ compiler is installed (looked for g++ and c++); training goes on with MindSpore's "
                    "own kernels, which are slower"]
    assert isinstance(network[2], nn.ReLU6)


def test_another_source_compiler_or_processor_is_another_library(monkeypatch, tmp_path):
    before = cpu_library.digest(["g++"])
    assert before == cpu_library.digest(["g++"]) != cpu_library.digest(["g++", "-g"])
    (tmp_path / "norm.cc").write_text("int x;")
    monkeypatch.setattr(cpu_library, "SOURCES", tmp_path)
    assert cpu_library.digest(["g++"]) != before


def test_folders_lie_in_the_environment_and_the_users_cache(monkeypatch):
    monkeypatch.setattr("sys.prefix", "/env")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert private_folders("x") == ["/env/share/x", "/cache/x"]
    monkeypatch.setattr("sys.base_prefix", "/env")
    assert private_folders("x") == ["/cache/x"]


@pytest.mark.parametrize("asked, threads", [("3", 3), ("", None), ("0", None), ("2,1", None)])
def test_threads_are_those_that_were_asked_for(monkeypatch, asked, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.delenv("OMPI_COMM_WORLD_LOCAL_SIZE", raising=False)
    assert process.kernel_threads() == (threads or len(os.sched_getaffinity(0)))
