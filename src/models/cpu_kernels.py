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
from src.models.heads import SharedHead
from src.models.layers import BatchNorm, Normalize

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

    library: path of the compiled kernels. A ReLU or ReLU6 that stands directly behind a norm takes its output and
    nobody else does: it becomes part of the norm's kernel. Where the norm is frozen, so does a convolution in front.
    """
    kernels, cells = ctypes.CDLL(library), [cell for _, cell in network.cells_and_names()]
    # only with AVX-512 is our pointwise kernel faster than that of oneDNN
    convolutions = [cell for cell in cells if kind_of(cell) and hasattr(kernels, kind_of(cell))]
    norms = [cell for cell in cells if takes_batch(cell) or is_frozen(cell)]
    clips, fronts = dict.fromkeys(norms, NO_CLIP), dict.fromkeys(norms)
    for parent in cells:
        inside = list(parent.name_cells().items()) if isinstance(parent, nn.SequentialCell) else []
        for (_, cell), (name, behind) in zip(inside, inside[1:]):
            if cell in norms and type(behind) in CLIPS:
                clips[cell] = CLIPS[type(behind)]
                parent[int(name)] = Clipped(behind)
            if cell in convolutions and is_frozen(behind) and not cell.has_bias:
                fronts[behind] = cell
        inside = [cell for _, cell in parent.cells_and_names()] if isinstance(parent, SharedHead) else []
        behind_all = [cell for cell in inside if isinstance(cell, BatchNorm)]  # which have one activation together
        if behind_all and set(behind_all) <= set(norms):
            clips.update(dict.fromkeys(behind_all, CLIPS[type(parent.relu)]))
            parent.relu = Clipped(parent.relu)
    for cell in convolutions:
        cell.conv2d = Deferred(cell) if cell in fronts.values() else Convolution(library, cell)
    for norm in norms:
        if takes_batch(norm):
            norm.bn_train = Normalization(library, norm, clip=clips[norm])
        elif fronts[norm] is None:
            norm.bn_infer = FrozenNormalization(library, norm, clip=clips[norm])
        else:
            norm.bn_infer = FrozenConvolution(library, norm, conv=fronts[norm], clip=clips[norm])
    return len(convolutions) + len(norms)


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


def is_frozen(cell: nn.Cell) -> bool:
    """Whether a cell is a norm that takes the stored statistics, and is not trained."""
    return isinstance(cell, BatchNorm) and cell.use_batch_statistics is False


def like(*places: int) -> Callable:
    """A rule of ops.Custom for the shapes or types of its outputs: those of the inputs at these places."""
    return lambda *inputs: tuple([inputs[place] for place in places])


def geometry_of(conv: nn.Conv2d) -> Tensor:
    """[2] int32: stride, and padding in front of an even side; it is 1 at an odd one."""
    stride = conv.stride[0]
    return Tensor([stride, 0 if stride == 2 and conv.pad_mode == "same" else 1], mstype.int32)


def forward_kernel(library: str, conv: nn.Conv2d, bprop: Callable, *, frozen: bool = False) -> ops.Custom:
    """The operator of a convolution, which begins with x and weight, and with a frozen norm; bprop: its gradients."""
    stride = conv.stride[0]

    def shape(x: list, weight: list, *_: list) -> list:
        return [x[0], weight[0], -(-x[2] // stride), -(-x[3] // stride)]
    kernel = ops.Custom(f"{library}:{kind_of(conv)}", shape, lambda x, *_: x, "aot", bprop=bprop)
    # MindSpore takes operators of equal attributes for the same one
    return kernel.add_prim_attr("stride", stride).add_prim_attr("frozen", frozen)


def backward_kernel(library: str, conv: nn.Conv2d) -> ops.Custom:
    """The operator of its gradients of x and weight, which it begins with too."""
    return ops.Custom(f"{library}:{kind_of(conv)}_grad", like(0, 1), like(0, 1), "aot")


class Convolution(nn.Cell):
    """What a nn.Conv2d calls: x [B, C, H, W], weight [N, C or 1, k, k] -> [B, N, H / stride, W / stride]."""

    def __init__(self, library: str, conv: nn.Conv2d):
        super().__init__()
        self.operator, self.geometry = conv.conv2d, geometry_of(conv)
        backward = backward_kernel(library, conv)

        def bprop(x: Tensor, weight: Tensor, geometry: Tensor, y: Tensor, dy: Tensor) -> tuple:
            return (*backward(x, weight, geometry, dy), ops.zeros_like(geometry))
        self.kernel = forward_kernel(library, conv, bprop)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.training:
            return self.kernel(x, weight, self.geometry)
        return self.operator(x, weight)


class Deferred(nn.Cell):
    """What a nn.Conv2d calls that the frozen norm behind it computes in training: it then hands on its inputs."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.operator = conv.conv2d

    def construct(self, x: Tensor, weight: Tensor) -> Tensor | tuple:
        if self.training:
            return x, weight
        return self.operator(x, weight)


class FrozenConvolution(nn.Cell):
    """What a frozen BatchNorm calls behind a Deferred convolution: in training both, limited to `clip`, in a tuple."""

    def __init__(self, library: str, norm: BatchNorm, *, conv: nn.Conv2d, clip: tuple[float, float]):
        super().__init__()
        self.operator, self.geometry, self.numbers = norm.bn_infer, geometry_of(conv), numbers_of(norm, clip)
        backward = backward_kernel(library, conv)

        def bprop(x: Tensor, weight: Tensor, geometry: Tensor, gamma: Tensor, beta: Tensor, moving_mean: Tensor,
                  moving_variance: Tensor, numbers: Tensor, y: Tensor, dy: Tensor) -> tuple:
            norm = gamma, beta, moving_mean, moving_variance, numbers
            return (*backward(x, weight, geometry, dy, y, *norm), ops.zeros_like(geometry), *without_gradient(norm))
        self.kernel = forward_kernel(library, conv, bprop, frozen=True)

    def construct(self, x: Tensor | tuple, *norm: Tensor) -> tuple:
        if self.training:
            return (self.kernel(x[0], x[1], self.geometry, *norm, self.numbers),)
        return self.operator(x, *norm)


class FrozenNormalization(nn.Cell):
    """What a frozen BatchNorm calls: in training a tuple of its output, limited to `clip`."""

    def __init__(self, library: str, norm: BatchNorm, *, clip: tuple[float, float]):
        super().__init__()
        self.operator, self.numbers = norm.bn_infer, numbers_of(norm, clip)
        backward = ops.Custom(f"{library}:frozen_norm_grad", lambda dy, *_: dy, lambda dy, *_: dy, "aot")

        def bprop(x: Tensor, gamma: Tensor, beta: Tensor, moving_mean: Tensor, moving_variance: Tensor,
                  numbers: Tensor, y: Tensor, dy: Tensor) -> tuple:
            norm = gamma, beta, moving_mean, moving_variance, numbers
            return (backward(dy, y, *norm), *without_gradient(norm))
        self.kernel = ops.Custom(f"{library}:frozen_norm", lambda x, *_: x, lambda x, *_: x, "aot", bprop=bprop)

    def construct(self, x: Tensor, *norm: Tensor) -> tuple:
        if self.training:
            return (self.kernel(x, *norm, self.numbers),)
        return self.operator(x, *norm)


def without_gradient(tensors: tuple) -> tuple:
    """Zeros for what is not trained."""
    return tuple([ops.zeros_like(tensor) for tensor in tensors])


def numbers_of(norm: BatchNorm, clip: tuple[float, float]) -> Tensor:
    """[4]: eps, weight of the new statistics, lowest and highest output."""
    return Tensor([norm.eps, norm.momentum, *clip], mstype.float32)


class Normalization(nn.Cell):
    """What a BatchNorm calls in training, limited to `clip`: a tuple that begins with the output."""

    def __init__(self, library: str, norm: BatchNorm, *, clip: tuple[float, float]):
        super().__init__()
        self.numbers = numbers_of(norm, clip)
        backward = ops.Custom(f"{library}:norm_grad", like(0, 1, 2), like(0, 1, 2), "aot")

        def bprop(x: Tensor, gamma: Tensor, beta: Tensor, moving_mean: Tensor, moving_variance: Tensor,
                  numbers: Tensor, outputs: tuple, changes: tuple) -> tuple:
            return (*backward(x, gamma, beta, numbers, outputs[1], outputs[2], changes[0]),
                    ops.zeros_like(moving_mean), ops.zeros_like(moving_variance), ops.zeros_like(numbers))
        outputs = like(0, 1, 1)
        self.kernel = ops.Custom(f"{library}:norm", outputs, outputs, "aot", bprop=bprop)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor, moving_mean: Tensor, moving_variance: Tensor) -> tuple:
        # it changes the moving statistics, which MindSpore need not know: nothing else in a step writes them, and what
        # reads them waits for the gradients
        return self.kernel(x, gamma, beta, moving_mean, moving_variance, self.numbers)


class Clipped(nn.Cell):
    """An activation that is part of the norm in front of it in training."""

    def __init__(self, activation: nn.Cell):
        super().__init__()
        self.activation = activation

    def construct(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] > 1:  # of a single value the norm has none, see there
            return x
        return self.activation(x)


class FusedNormalize(nn.Cell):
    """What Normalize does, as one operator without a gradient."""

    def __init__(self, library: str, normalize: Normalize):
        super().__init__()
        self.mean, self.scale = normalize.mean, normalize.scale
        self.kernel = ops.Custom(f"{library}:normalize", lambda images, *_: [images[0], 3, *images[1:3]],
                                 mstype.float32, "aot")

    def construct(self, images: Tensor) -> Tensor:
        return self.kernel(images, self.mean, self.scale)
