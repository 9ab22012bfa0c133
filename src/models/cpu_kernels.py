"""Training on CPU with our own kernels (machine/cpu_kernels/) in the place of some operators of MindSpore.

Cells, parameters and their names stay as they are. Outside training the cells take MindSpore's operators, so that no
exported file has others. float32 only.
"""
from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.errors import EnvironmentFault
from src.machine.compat import OLD
from src.machine.cpu_library import open_kernels
from src.machine.process import kernel_threads
from src.models.layers import BatchNorm

CLIPS = {nn.ReLU: (0.0, np.inf), nn.ReLU6: (0.0, 6.0)}  # lowest and highest output of activations
NO_CLIP = (-np.inf, np.inf)


def try_own_kernels(network: nn.Cell, say: Callable[[str], None]) -> str:
    """Compiles the kernels and gives them to a network -> the path of their library, "" where that cannot be.

    say: is told why not.
    """
    if OLD:
        return ""
    try:
        library = open_kernels(kernel_threads())
    except EnvironmentFault as error:
        say(f"note: {error}; training goes on with MindSpore's own kernels, which are slower")
        return ""
    use_own_kernels(network, library)
    return library


def use_own_kernels(network: nn.Cell, library: str) -> int:
    """Changes a network in place, whose norms have been chosen (models/freeze.py). Returns how many cells it changed.

    library: path of the compiled kernels. A ReLU or ReLU6 that stands directly behind a norm among the cells of a
    SequentialCell takes its output and nobody else does: it becomes part of the norm's kernel.
    """
    count, kernels = 0, ctypes.CDLL(library)
    for _, cell in list(network.cells_and_names()):
        kind = kind_of(cell)
        if kind and hasattr(kernels, kind):  # without AVX-512 it has no pointwise one: oneDNN's is faster there
            cell.conv2d = Convolution(library, cell, kind)
            count += 1
        elif takes_batch(cell):
            cell.bn_train = Normalization(library, cell)
            count += 1
    for _, parent in list(network.cells_and_names()):
        cells = list(parent.name_cells().items()) if isinstance(parent, nn.SequentialCell) else []
        for (_, norm), (name, activation) in zip(cells, cells[1:]):
            if takes_batch(norm) and type(activation) in CLIPS:
                norm.bn_train = Normalization(library, norm, clip=CLIPS[type(activation)])
                parent[int(name)] = Clipped(activation)
    return count


def kind_of(cell: nn.Cell) -> str:
    """Which kernel computes a cell: depthwise of 3x3, pointwise of 1x1, or "" for none."""
    if type(cell) is not nn.Conv2d or cell.dilation != (1, 1):
        return ""
    if cell.kernel_size == (1, 1) and cell.stride == (1, 1) and cell.group == 1 and cell.padding == 0:
        return "pointwise"
    depthwise = cell.kernel_size == (3, 3) and cell.group == cell.in_channels == cell.out_channels
    half = cell.pad_mode == "same" or (cell.pad_mode, cell.padding) == ("pad", 1)  # the output has the size / stride
    return "depthwise" if depthwise and half and cell.stride in ((1, 1), (2, 2)) else ""


def takes_batch(cell: nn.Cell) -> bool:
    """Whether a cell is a norm that takes the statistics of the batch of this process."""
    return isinstance(cell, BatchNorm) and cell.use_batch_statistics is not False and cell.world == 1


def like(*places: int) -> Callable:
    """A rule of ops.Custom for the shapes or types of its outputs: those of the inputs at these places."""
    return lambda *inputs: tuple([inputs[place] for place in places])


class Convolution(nn.Cell):
    """What a nn.Conv2d calls: x [B, C, H, W], weight [N, C or 1, k, k] -> [B, N, H / stride, W / stride].

    kind: of kind_of().
    """

    def __init__(self, library: str, conv: nn.Conv2d, kind: str):
        super().__init__()
        stride, self.operator = conv.stride[0], conv.conv2d
        padding = 0 if stride == 2 and conv.pad_mode == "same" else 1  # in front of an even side; it is 1 at an odd one
        self.geometry = Tensor([stride, padding], mstype.int32)
        backward = ops.Custom(f"{library}:{kind}_grad", like(0, 1), like(0, 1), "aot")

        def bprop(x: Tensor, weight: Tensor, geometry: Tensor, y: Tensor, dy: Tensor) -> tuple:
            return (*backward(x, weight, geometry, dy), ops.zeros_like(geometry))

        def shape(x: list, weight: list, geometry: list) -> list:
            return [x[0], weight[0], -(-x[2] // stride), -(-x[3] // stride)]
        self.kernel = ops.Custom(f"{library}:{kind}", shape, lambda x, *_: x, "aot", bprop=bprop)
        self.kernel.add_prim_attr("stride", stride)  # MindSpore takes operators of equal attributes for the same one

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.training:
            return self.kernel(x, weight, self.geometry)
        return self.operator(x, weight)


class Normalization(nn.Cell):
    """What a BatchNorm calls in training, limited to `clip`: a tuple that begins with the output."""

    def __init__(self, library: str, norm: BatchNorm, *, clip: tuple[float, float] = NO_CLIP):
        super().__init__()
        self.numbers = Tensor([norm.eps, norm.momentum, *clip], mstype.float32)
        backward = ops.Custom(f"{library}:norm_grad", like(0, 1, 2), like(0, 1, 2), "aot")

        def bprop(x: Tensor, gamma: Tensor, beta: Tensor, moving_mean: Tensor, moving_variance: Tensor,
                  numbers: Tensor, outputs: tuple, changes: tuple) -> tuple:
            return (*backward(x, gamma, beta, numbers, outputs[3], outputs[4], changes[0]),
                    ops.zeros_like(moving_mean), ops.zeros_like(moving_variance), ops.zeros_like(numbers))
        outputs = like(0, 1, 1, 1, 1)
        self.kernel = ops.Custom(f"{library}:norm", outputs, outputs, "aot", bprop=bprop)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor, moving_mean: Tensor, moving_variance: Tensor) -> tuple:
        outputs = self.kernel(x, gamma, beta, moving_mean, moving_variance, self.numbers)
        ops.assign(moving_mean, outputs[1])
        ops.assign(moving_variance, outputs[2])
        return outputs


class SquaredSum(nn.Cell):
    """The sum of the squares of all numbers in tensors, as a scalar: one operator, where there are hundreds of them."""

    def __init__(self, library: str):
        super().__init__()
        self.kernel = ops.Custom(f"{library}:squared_sum", (1,), mstype.float32, "aot")

    def construct(self, tensors: tuple) -> Tensor:
        return self.kernel(*tensors).reshape(())


class Clipped(nn.Cell):
    """An activation that is part of the norm in front of it in training."""

    def __init__(self, activation: nn.Cell):
        super().__init__()
        self.activation = activation

    def construct(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] > 1:  # of a single value the norm has none, see there
            return x
        return self.activation(x)
