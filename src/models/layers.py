"""Building blocks shared by the networks. Feature maps are [B, C, H, W]."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import HeNormal, Initializer, TruncatedNormal, XavierUniform, initializer

from src.machine import compat

Norm = Callable[..., nn.Cell]    # channels -> normalisation
Conv = Callable[..., nn.Conv2d]  # the arguments of `conv` -> convolution


class BatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d that survives a single value per channel, can be frozen, and be synchronised (models/freeze.py).

    One value (batch 1 on a 1x1 map) normalises to beta, as the formula says; MindSpore 2.10 on CPU would write NaN into
    moving_variance in that case, so the running statistics are left alone.
    momentum is MindSpore's: the weight of the old running value.
    """
    world = 1          # processes whose batches are normalised as one
    all_reduce = None  # the sum over them

    def construct(self, x: Tensor) -> Tensor:
        if self.training and self.use_batch_statistics is not False and self.world > 1:
            return self.normalize_together(x)
        if self.training and self.use_batch_statistics is False:
            return self.normalize_frozen(x)
        if self.training and self.use_batch_statistics is not False and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return self.shift(x)
        return super().construct(x)

    def normalize_frozen(self, x: Tensor) -> Tensor:
        """x normalised with the stored statistics; models/cpu_kernels.py computes what is in front of x here too."""
        return self.bn_infer(x, self.gamma, self.beta, self.moving_mean, self.moving_variance)[0]

    def shift(self, x: Tensor) -> Tensor:
        """beta at every place of x.

        A method of its own: where a branch of construct reads parameters, even one never taken, MindSpore 1.10 gives
        all norms of a size the running statistics of the first.
        """
        return (x - x) * self.gamma.reshape((1, -1, 1, 1)) + self.beta.reshape((1, -1, 1, 1))

    def normalize_together(self, x: Tensor) -> Tensor:
        """x normalised with mean and variance over all processes; MindSpore's own SyncBatchNorm is for Ascend alone.

        The gradient flows through the sums: that of AllReduce is AllReduce.
        """
        count = x.shape[0] * x.shape[2] * x.shape[3] * self.world
        wide = x.astype(mstype.float32)
        mean = self.all_reduce(wide.sum((0, 2, 3))) / count                         # [C]
        centred = wide - mean.reshape((1, -1, 1, 1))
        variance = self.all_reduce(ops.square(centred).sum((0, 2, 3))) / count      # [C]
        ops.assign(self.moving_mean, self.moving_mean + self.momentum * (mean - self.moving_mean))
        unbiased = variance * (count / max(count - 1, 1))
        ops.assign(self.moving_variance, self.moving_variance + self.momentum * (unbiased - self.moving_variance))
        factor = self.gamma / ops.sqrt(variance + self.eps)
        return (centred * factor.reshape((1, -1, 1, 1)) + self.beta.reshape((1, -1, 1, 1))).astype(x.dtype)


def batch_norm(*, eps: float = 1e-5, momentum: float = 0.9) -> Norm:
    """A function channels -> BatchNorm with these numbers; the defaults are PyTorch's and Paddle's."""
    return partial(BatchNorm, eps=eps, momentum=momentum)


def conv(in_channels: int, out_channels: int, kernel_size: int = 3, *, stride: int = 1, groups: int = 1,
         bias: bool = False, padding: str | int = "same", dilation: int = 1,
         init: Initializer | None = None) -> nn.Conv2d:
    """Convolution, biases 0. padding: "same" (TensorFlow's), "half" (PyTorch's kernel // 2 on each side), or pixels.

    The two differ at stride 2: "same" pads nothing at the top and left of an even map. The default weights are drawn
    from a normal of 0.02 cut at two sigma: model zoo official/cv/SSD, src/init_params.py.
    """
    if padding == "half":
        padding = dilation * (kernel_size // 2)
    mode = {"pad_mode": "same"} if padding == "same" else {"pad_mode": "pad", "padding": padding}
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, **mode, dilation=dilation, group=groups,
                     has_bias=bias, weight_init=init or TruncatedNormal(0.02), bias_init="zeros")


# the convolutions of backbones and of extra levels and heads in the PyTorch detectors
torch_conv = partial(conv, padding="half", init=HeNormal(mode="fan_out", nonlinearity="relu"))
xavier_conv = partial(conv, padding="half", init=XavierUniform())


def conv_norm(in_channels: int, out_channels: int, norm: Norm, *, kernel_size: int = 3, stride: int = 1,
              groups: int = 1, activation: type[nn.Cell] | None = nn.ReLU6, conv: Conv = conv) -> nn.SequentialCell:
    """Convolution without bias, normalisation, activation (None for a linear output) as cells 0, 1, 2."""
    cells = [conv(in_channels, out_channels, kernel_size, stride=stride, groups=groups), norm(out_channels)]
    if activation is not None:
        cells.append(activation())
    return nn.SequentialCell(cells)


def separable_conv(in_channels: int, out_channels: int, *, stride: int = 1, bias: bool = False,
                   conv: Conv = conv) -> nn.SequentialCell:
    """3x3 depthwise, then 1x1 with nothing between: SeparableConv2D of Keras. bias: of the second."""
    return nn.SequentialCell(conv(in_channels, in_channels, stride=stride, groups=in_channels),
                             conv(in_channels, out_channels, 1, bias=bias))


def separable_norm(in_channels: int, out_channels: int, norm: Norm, *, stride: int = 1,
                   conv: Conv = conv) -> nn.SequentialCell:
    """The two of separable_conv, normalisation and ReLU6."""
    return nn.SequentialCell(conv(in_channels, in_channels, stride=stride, groups=in_channels),
                             conv(in_channels, out_channels, 1), norm(out_channels), nn.ReLU6())


class HalfMaxPool(nn.Cell):
    """3x3 max pooling of stride 2 of a map without negative values, padded by 1 on each side (PyTorch's kernel // 2).

    Zeros serve as padding there. nn.MaxPool2d with pixels of padding is a three-dimensional operator in MindSpore 2.10,
    four times slower on CPU and unknown to its ONNX.
    """

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2, pad_mode="valid")

    def construct(self, x: Tensor) -> Tensor:
        row = ops.zeros_like(x[:, :, :1])           # [B, C, 1, W]
        x = ops.concat((row, x, row), 2)            # [B, C, H + 2, W]
        column = ops.zeros_like(x[:, :, :, :1])
        x = ops.concat((column, x, column), 3)      # [B, C, H + 2, W + 2]
        return self.pool(x)


class L2Norm(nn.Cell):
    """Scales each position to length 1 over channels, then by a trained `weight` per channel, 20 at first.

    In float32, for x of any type: float16 holds neither the square of 256 nor 1e-10.
    Source: https://arxiv.org/abs/1506.04579, used by SSD on conv4_3 (paper section 3.1).
    """

    def __init__(self, channels: int, scale: float = 20.0):
        super().__init__()
        self.weight = Parameter(initializer(scale, (channels,)), name="weight")

    def construct(self, x: Tensor) -> Tensor:
        wide = x.astype(mstype.float32)
        total = ops.square(wide).sum(1, keepdims=True)  # [B, 1, H, W]; MindSpore cannot write wide * wide as ONNX
        # where all channels are 0 any length gives 0, but only 1 a gradient that float16 holds
        total = ops.select(total > 0, ops.maximum(total, Tensor(1e-20, mstype.float32)), ops.ones_like(total))
        return (wide / ops.sqrt(total) * self.weight.reshape((1, -1, 1, 1))).astype(x.dtype)


class ExtraLevels(nn.Cell):
    """Feature maps -> the same and one more per block of `extras`, each made from the one before."""

    def __init__(self, blocks: list[nn.Cell]):
        super().__init__()
        self.extras = nn.CellList(blocks)

    def construct(self, features: tuple) -> list:
        maps = list(features)
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps


class Extra(NamedTuple):
    """An extra level: a 1x1 convolution, then a larger one."""
    middle: int       # channels between the two
    channels: int     # of the level
    kernel_size: int  # of the second, as what follows
    stride: int
    padding: int      # pixels on each side


def extra_block(in_channels: int, extra: Extra, norm: Norm | None = None) -> nn.SequentialCell:
    """The two convolutions of an extra level, each with ReLU; with norm also normalised and without bias."""
    bias = norm is None
    reduce = xavier_conv(in_channels, extra.middle, 1, bias=bias)
    expand = xavier_conv(extra.middle, extra.channels, extra.kernel_size, stride=extra.stride, padding=extra.padding,
                         bias=bias)
    if norm is None:
        return nn.SequentialCell(reduce, nn.ReLU(), expand, nn.ReLU())
    return nn.SequentialCell(reduce, norm(extra.middle), nn.ReLU(), expand, norm(extra.channels), nn.ReLU())


class UpsampleTwice(nn.Cell):
    """Doubles height and width bilinearly with source coordinate = destination / 2 (no half-pixel shift).

    This is ResizeBilinear(align_corners=False, half_pixel_centers=False) of the published FPN, which MindSpore 2.10 no
    longer has: even rows copy, odd rows are the mean of their neighbours (the last is repeated).
    """

    def construct(self, x: Tensor) -> Tensor:
        for axis in (2, 3):
            shape = list(x.shape)
            shape[axis] *= 2
            # joined, not stacked: ONNX as MindSpore writes it would stack through a sequence
            pairs = ops.concat((x.expand_dims(axis + 1), self.between(x, axis).expand_dims(axis + 1)), axis + 1)
            x = pairs.reshape(tuple(shape))         # [B, C, 2 H, W], then [B, C, 2 H, 2 W]
        return x

    def between(self, x: Tensor, axis: int) -> Tensor:
        """The odd rows, one behind each row of x."""
        rows = x.shape[axis]
        half = x * 0.5  # halved before they are added: float16 may not hold the sum
        below = compat.narrow(half, axis, 1, rows - 1), compat.narrow(half, axis, rows - 1, 1)
        return half + ops.concat(below, axis)


class RepeatTwice(UpsampleTwice):
    """Doubles height and width by writing each value twice along both: the nearest neighbour."""

    def between(self, x: Tensor, axis: int) -> Tensor:
        return x


class Normalize(nn.Cell):
    """uint8 RGB images [B, H, W, 3] -> float32 [B, 3, H, W], (pixel - mean) / std. mean and std in 0..255."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.mean = Tensor(mean, mstype.float32)
        self.scale = Tensor([1.0 / value for value in std], mstype.float32)

    def construct(self, images: Tensor) -> Tensor:
        normalised = (images.astype(mstype.float32) - self.mean) * self.scale       # [B, H, W, 3]
        return normalised.transpose((0, 3, 1, 2))                                   # [B, 3, H, W]
