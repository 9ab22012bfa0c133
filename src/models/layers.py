"""Building blocks shared by the networks. Feature maps are [B, C, H, W]."""
from functools import partial

from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import HeNormal, TruncatedNormal, XavierUniform, initializer

from src.machine import compat


class BatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d that survives a single value per channel, can be frozen, and be synchronised (models/norms.py).

    One value (batch 1 on a 1x1 map) normalises to beta, as the formula says; MindSpore 2.10 on CPU would write NaN into
    moving_variance in that case, so the running statistics are left alone.
    momentum is MindSpore's: the weight of the old running value.
    """
    world, all_reduce = 1, None  # processes whose batches are normalised as one, and the sum over them

    def construct(self, x):
        if self.training and self.use_batch_statistics is not False and self.world > 1:
            return self.normalize_together(x)
        if self.training and self.use_batch_statistics is not False and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return self.shift(x)
        return super().construct(x)

    def shift(self, x):
        """beta at every place of x.

        A method of its own: where a branch of construct reads parameters, even one never taken, MindSpore 1.10 gives
        all norms of a size the running statistics of the first.
        """
        return (x - x) * self.gamma.reshape((1, -1, 1, 1)) + self.beta.reshape((1, -1, 1, 1))

    def normalize_together(self, x):
        """x normalised with mean and variance over all processes; MindSpore's own SyncBatchNorm is for Ascend alone.

        The gradient flows through the sums: that of AllReduce is AllReduce.
        """
        count = x.shape[0] * x.shape[2] * x.shape[3] * self.world
        wide = x.astype(mstype.float32)
        mean = self.all_reduce(wide.sum((0, 2, 3))) / count
        centred = wide - mean.reshape((1, -1, 1, 1))
        variance = self.all_reduce(ops.square(centred).sum((0, 2, 3))) / count
        ops.assign(self.moving_mean, self.moving_mean + self.momentum * (mean - self.moving_mean))
        unbiased = variance * (count / max(count - 1, 1))
        ops.assign(self.moving_variance, self.moving_variance + self.momentum * (unbiased - self.moving_variance))
        factor = self.gamma / ops.sqrt(variance + self.eps)
        return (centred * factor.reshape((1, -1, 1, 1)) + self.beta.reshape((1, -1, 1, 1))).astype(x.dtype)


def batch_norm(eps=1e-5, momentum=0.9):
    """A function channels -> BatchNorm with these numbers; the defaults are PyTorch's and Paddle's."""
    return partial(BatchNorm, eps=eps, momentum=momentum)


def conv(in_channels, out_channels, kernel=3, stride=1, groups=1, bias=False, padding="same", dilation=1,
         init="published"):
    """Convolution, biases 0. padding: "same" (TensorFlow's), "half" (PyTorch's kernel // 2 on each side), or pixels.

    The two differ at stride 2: "same" pads nothing at the top and left of an even map. The default weights are drawn
    from a normal of 0.02 cut at two sigma: model zoo official/cv/SSD, src/init_params.py.
    """
    pixels = dilation * (kernel // 2) if padding == "half" else padding
    mode = {"pad_mode": "same"} if padding == "same" else {"pad_mode": "pad", "padding": pixels}
    return nn.Conv2d(in_channels, out_channels, kernel, stride, **mode, dilation=dilation, group=groups, has_bias=bias,
                     weight_init=TruncatedNormal(0.02) if init == "published" else init, bias_init="zeros")


# the convolutions of backbones and of extra levels and heads in the PyTorch detectors
torch_conv = partial(conv, padding="half", init=HeNormal(mode="fan_out", nonlinearity="relu"))
xavier_conv = partial(conv, padding="half", init=XavierUniform())


def conv_norm(in_channels, out_channels, norm, kernel=3, stride=1, groups=1, activation=nn.ReLU6, conv=conv):
    """Convolution without bias, normalisation, activation (None for a linear output) as cells 0, 1, 2."""
    cells = [conv(in_channels, out_channels, kernel, stride, groups), norm(out_channels)]
    return nn.SequentialCell(cells + ([activation()] if activation else []))


class HalfMaxPool(nn.Cell):
    """3x3 max pooling of stride 2 of a map without negative values, padded by 1 on each side (PyTorch's kernel // 2).

    Zeros serve as padding there. nn.MaxPool2d with pixels of padding is a three-dimensional operator in MindSpore 2.10,
    four times slower on CPU and unknown to its ONNX.
    """

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2, pad_mode="valid")

    def construct(self, x):
        row = ops.zeros_like(x[:, :, :1])
        x = ops.concat((row, x, row), 2)
        column = ops.zeros_like(x[:, :, :, :1])
        return self.pool(ops.concat((column, x, column), 3))


class L2Norm(nn.Cell):
    """Scales each position to length 1 over channels, then by a learnt `weight` a channel, 20 at first.

    In float32 whatever the type of x: float16 holds neither the square of 256 nor 1e-10.
    Source: https://arxiv.org/abs/1506.04579, used by SSD on conv4_3 (paper section 3.1).
    """

    def __init__(self, channels, scale=20.0):
        super().__init__()
        self.weight = Parameter(initializer(scale, (channels,)), name="weight")

    def construct(self, x):
        wide = x.astype(mstype.float32)
        total = ops.square(wide).sum(1, keepdims=True)  # not wide * wide, which MindSpore cannot write as ONNX
        # where all channels are 0 any length gives 0, but only 1 a gradient that float16 holds
        total = ops.select(total > 0, ops.maximum(total, Tensor(1e-20, mstype.float32)), ops.ones_like(total))
        return (wide / ops.sqrt(total) * self.weight.reshape((1, -1, 1, 1))).astype(x.dtype)


class ExtraLevels(nn.Cell):
    """Feature maps -> the same and one more a block of `extras`, each made from the one before."""

    def __init__(self, blocks):
        super().__init__()
        self.extras = nn.CellList(blocks)

    def construct(self, features):
        maps = list(features)
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps


def extra_block(in_channels, middle, out_channels, kernel, stride, padding, norm=None):
    """1x1 to `middle` channels and a larger convolution, each with ReLU; with norm also normalised and without bias."""
    cells = []
    for one in (xavier_conv(in_channels, middle, 1, bias=norm is None),
                xavier_conv(middle, out_channels, kernel, stride, padding=padding, bias=norm is None)):
        cells += [one, nn.ReLU()] if norm is None else [one, norm(one.out_channels), nn.ReLU()]
    return nn.SequentialCell(cells)


class UpsampleTwice(nn.Cell):
    """Doubles height and width bilinearly with source coordinate = destination / 2 (no half-pixel shift).

    This is ResizeBilinear(align_corners=False, half_pixel_centers=False) of the published FPN, which MindSpore 2.10 no
    longer has: even rows copy, odd rows are the mean of their neighbours (the last is repeated).
    """

    def construct(self, x):
        for axis in (2, 3):
            rows, half = x.shape[axis], x * 0.5  # halved before they are added: float16 may not hold the sum
            following = ops.concat((compat.narrow(half, axis, 1, rows - 1), compat.narrow(half, axis, rows - 1, 1)),
                                   axis)
            shape = list(x.shape)
            shape[axis] = 2 * rows
            # joined, not stacked: ONNX as MindSpore writes it would stack through a sequence
            both = (x.expand_dims(axis + 1), (half + following).expand_dims(axis + 1))
            x = ops.concat(both, axis + 1).reshape(tuple(shape))
        return x


class Normalize(nn.Cell):
    """uint8 RGB images [B, H, W, 3] -> float32 [B, 3, H, W], (pixel - mean) / std. mean and std in 0..255."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean = Tensor(mean, mstype.float32)
        self.scale = Tensor([1.0 / value for value in std], mstype.float32)

    def construct(self, images):
        return ((images.astype(mstype.float32) - self.mean) * self.scale).transpose((0, 3, 1, 2))
