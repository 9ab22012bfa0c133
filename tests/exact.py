"""Layers of a network in float64 with numpy, which tells a different network from the same one rounded differently."""
import mindspore as ms
import numpy as np
from mindspore import nn

from src.models.layers import BatchNorm


def use_float64(patch):
    """Lets the layers of TensorFlow's networks compute in float64, of one image and in PyNative mode.

    patch: a MonkeyPatch, which ends it.
    """
    for layer, compute in ((nn.Conv2d, convolve), (BatchNorm, normalise), (nn.MaxPool2d, pool),
                           (nn.ReLU, lambda _, x: np.maximum(x, 0)), (nn.ReLU6, lambda _, x: x.clip(0, 6))):
        patch.setattr(layer, "construct", on_arrays(compute))


def on_arrays(compute):
    """A construct from a function of a layer and float64 [1, C, H, W]."""
    def construct(layer, x):
        return ms.Tensor(compute(layer, x.asnumpy().astype(np.float64)), ms.float64)
    return construct


def numbers(parameter):
    """A parameter as float64."""
    return parameter.asnumpy().astype(np.float64)


def padded(x, layer, kernel, value=0.0):
    """The map of a layer with its margins, and how large the result is. SAME puts the odd row at the end."""
    stride, margins, sizes = pair(layer.stride), [], []
    for side, size, step in zip(x.shape[2:], kernel, stride):
        if layer.pad_mode.lower() == "same":
            total = max((-(-side // step) - 1) * step + size - side, 0)
            margin = total // 2, total - total // 2
        else:
            margin = (pair(layer.padding)[0],) * 2
        margins.append(margin)
        sizes.append((side + sum(margin) - size) // step + 1)
    return np.pad(x, ((0, 0), (0, 0), *margins), constant_values=value), sizes


def pair(value):
    """One number for both axes, or the numbers of both."""
    return (value, value) if isinstance(value, int) else tuple(value)[-2:]


def taps(x, layer, kernel, value=0.0):
    """What each place of a kernel sees of the map: row and column in the kernel, [C, rows, columns]."""
    whole, (rows, columns) = padded(x, layer, kernel, value)
    down, right = pair(layer.stride)
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            yield row, column, whole[0, :, row:row + (rows - 1) * down + 1:down,
                                     column:column + (columns - 1) * right + 1:right]


def convolve(layer, x):
    """Convolution, plain or depthwise, without dilation."""
    weight, result = numbers(layer.weight), 0.0
    for row, column, seen in taps(x, layer, weight.shape[2:]):
        if layer.group == 1:
            part = weight[:, :, row, column] @ seen.reshape(len(seen), -1)
            result += part.reshape(-1, *seen.shape[1:])
        else:
            result += weight[:, 0, row, column][:, None, None] * seen
    return (result + numbers(layer.bias)[:, None, None] if layer.has_bias else result)[None]


def normalise(layer, x):
    """BatchNorm with its moving statistics."""
    gamma, beta, mean, variance = (numbers(one)[:, None, None] for one in (
        layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance))
    return (x - mean) / np.sqrt(variance + layer.eps) * gamma + beta


def pool(layer, x):
    """Max pooling."""
    return np.max([seen for *_, seen in taps(x, layer, pair(layer.kernel_size), -np.inf)], axis=0)[None]
