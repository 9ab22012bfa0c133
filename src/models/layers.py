"""Building blocks shared by the networks. Feature maps are [B, C, H, W]."""
from functools import partial

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import TruncatedNormal


class BatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d that survives a single value per channel and can be frozen.

    One value (batch 1 on a 1x1 map) normalises to beta, as the formula says; MindSpore 2.10 on CPU would write NaN into
    moving_variance in that case, so the running statistics are left alone.
    momentum is MindSpore's: the weight of the old running value.
    """

    def construct(self, x):
        if self.training and self.use_batch_statistics is not False and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return (x - x) * self.gamma.reshape((1, -1, 1, 1)) + self.beta.reshape((1, -1, 1, 1))
        return super().construct(x)


def batch_norm(eps, momentum):
    """A function channels -> BatchNorm with these numbers."""
    return partial(BatchNorm, eps=eps, momentum=momentum)


def conv(in_channels, out_channels, kernel=3, stride=1, groups=1, bias=False):
    """Convolution with TensorFlow's 'same' padding and weights from a normal of 0.02 cut at two sigma, biases 0.

    Source: model zoo official/cv/SSD, src/init_params.py (every weight that is no BatchNorm).
    """
    return nn.Conv2d(in_channels, out_channels, kernel, stride, pad_mode="same", group=groups, has_bias=bias,
                     weight_init=TruncatedNormal(0.02), bias_init="zeros")


def conv_norm(in_channels, out_channels, norm, kernel=3, stride=1, groups=1, activation=nn.ReLU6):
    """Convolution without bias, normalisation, activation (None for a linear output) as cells 0, 1, 2."""
    cells = [conv(in_channels, out_channels, kernel, stride, groups), norm(out_channels)]
    return nn.SequentialCell(cells + ([activation()] if activation else []))


class UpsampleTwice(nn.Cell):
    """Doubles height and width bilinearly with source coordinate = destination / 2 (no half-pixel shift).

    This is ResizeBilinear(align_corners=False, half_pixel_centers=False) of the published FPN, which MindSpore 2.10 no
    longer has: even rows copy, odd rows are the mean of their neighbours (the last is repeated).
    """

    def construct(self, x):
        for axis in (2, 3):
            rows = x.shape[axis]
            following = ops.concat((ops.narrow(x, axis, 1, rows - 1), ops.narrow(x, axis, rows - 1, 1)), axis)
            shape = list(x.shape)
            shape[axis] = 2 * rows
            x = ops.stack((x, (x + following) * 0.5), axis + 1).reshape(tuple(shape))
        return x


class Normalize(nn.Cell):
    """uint8 RGB images [B, H, W, 3] -> float32 [B, 3, H, W], (pixel - mean) / std. mean and std in 0..255."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean = Tensor(mean, mstype.float32)
        self.scale = Tensor([1.0 / value for value in std], mstype.float32)

    def construct(self, images):
        return ((images.astype(mstype.float32) - self.mean) * self.scale).transpose((0, 3, 1, 2))
