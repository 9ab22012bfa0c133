"""MobileNetV1 (https://arxiv.org/abs/1704.04861), MobileNetV2 (https://arxiv.org/abs/1801.04381) and extra levels."""
from __future__ import annotations

from collections.abc import Sequence

from mindspore import Tensor, nn, ops

from src.models.layers import Conv, ExtraLevels, Norm, conv, conv_norm

# channels, stride of each depthwise separable block: table 1 of the V1 paper
MOBILENET_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1),
                (512, 1), (1024, 2), (1024, 1))
# expansion, channels, repeats, stride of the first: table 2 of the V2 paper
MOBILENET_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
                (6, 320, 1, 1))


class MobileNetV1(nn.Cell):
    """Returns the outputs of the cells `taps` of `features`, `channels` deep.

    Cell 0 is the first convolution, 2 k - 1 the depthwise and 2 k the pointwise one of block k = 1..13.
    """

    def __init__(self, norm: Norm, *, taps: tuple[int, ...], activation: type[nn.Cell] = nn.ReLU6, conv: Conv = conv):
        super().__init__()
        parts = {"activation": activation, "conv": conv}
        cells, before = [conv_norm(3, 32, norm, stride=2, **parts)], 32
        for channels, stride in MOBILENET_V1:
            cells.append(conv_norm(before, before, norm, stride=stride, groups=before, **parts))
            cells.append(conv_norm(before, channels, norm, kernel_size=1, **parts))
            before = channels
        self.features = nn.CellList(cells)
        self.taps = taps
        self.channels = tuple(MOBILENET_V1[tap // 2 - 1][0] for tap in taps)

    def construct(self, x: Tensor) -> list:
        maps = []
        for index, cell in enumerate(self.features):
            x = cell(x)
            if index in self.taps:
                maps.append(x)
        return maps


def scale_channels(channels: int, width: float) -> int:
    """channels * width rounded to a multiple of 8, never more than 10 % below (the paper's released code)."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


class InvertedResidual(nn.Cell):
    """1x1 expand, 3x3 depthwise, 1x1 linear; added to the input where the shape stays. `conv` as in torchvision."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, expansion: float, norm: Norm,
                 last_relu: bool = False, conv: Conv = conv):
        super().__init__()
        hidden = int(round(in_channels * expansion))
        expand = [conv_norm(in_channels, hidden, norm, kernel_size=1, conv=conv)] if expansion != 1 else []
        depthwise = conv_norm(hidden, hidden, norm, stride=stride, groups=hidden, conv=conv)
        self.conv = nn.SequentialCell(*expand, depthwise, conv(hidden, out_channels, 1), norm(out_channels))
        self.residual = stride == 1 and in_channels == out_channels
        self.last = nn.ReLU6() if last_relu else None

    def construct(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.residual:
            y = x + y
        return y if self.last is None else self.last(y)

    def expanded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the expansion, and of the block, without computing the first twice."""
        hidden = self.conv[0](x)
        y = self.conv[3](self.conv[2](self.conv[1](hidden)))
        return hidden, x + y if self.residual else y


class MobileNetV2(nn.Cell):
    """Returns the outputs of the cells `taps` of `features`, `channels` deep.

    Cell 0 is the first convolution, k = 1..17 block k (stride 4 up to 3, 8 up to 6, 16 up to 13), 18 the last 1x1
    convolution (stride 32). tap_expansion: first of all the expansion inside block 14 (stride 16). detach: whether no
    gradient of the head flows back through it, as in uvipen/SSD-pytorch.
    """

    def __init__(self, norm: Norm, *, taps: tuple[int, ...] = (13, 18), width: float = 1.0,
                 tap_expansion: bool = False, detach: bool = False, conv: Conv = conv):
        super().__init__()
        depth = scale_channels(32, width)
        cells, depths = [conv_norm(3, depth, norm, stride=2, conv=conv)], [depth]
        for expansion, channels, repeats, first_stride in MOBILENET_V2:
            out_channels = scale_channels(channels, width)
            for stride in (first_stride, *(1,) * (repeats - 1)):
                cells.append(InvertedResidual(depth, out_channels, stride, expansion=expansion, norm=norm, conv=conv))
                depth = out_channels
                depths.append(depth)
        depths.append(scale_channels(1280, width))
        cells.append(conv_norm(depth, depths[-1], norm, kernel_size=1, conv=conv))
        self.features = nn.CellList(cells)
        self.taps = taps
        self.tap_expansion, self.detach = tap_expansion, detach
        self.channels = (*([6 * depths[13]] if tap_expansion else []), *(depths[tap] for tap in taps))

    def construct(self, x: Tensor) -> list:
        maps = []
        for index, cell in enumerate(self.features):
            if index == 14 and self.tap_expansion:
                hidden, x = cell.expanded(x)
                maps.append(ops.stop_gradient(hidden) if self.detach else hidden)
            else:
                x = cell(x)
            if index in self.taps:
                maps.append(x)
        return maps


class MobileExtras(ExtraLevels):
    """Stride 16 and 32 features -> six levels: a 1x1 expansion by 6 of the first, the second, four halvings of it.

    Source: model zoo official/cv/SSD, ssd300. Folded, the expansion is the tap inside block 14 of TensorFlow OD.
    """

    def __init__(self, in_channels: tuple[int, int], norm: Norm):
        stride16, stride32 = in_channels
        extras = (512, 256, 256, 128)
        super().__init__(inverted_extras(stride32, extras, norm=norm, last_relu=True))
        self.expand = conv_norm(stride16, 6 * stride16, norm, kernel_size=1)
        self.channels = (6 * stride16, stride32, *extras)

    def construct(self, features: tuple) -> list:
        return super().construct((self.expand(features[0]), features[1]))


def inverted_extras(in_channels: int, channels: Sequence[int], *, norm: Norm, last_relu: bool,
                    conv: Conv = conv) -> list[nn.Cell]:
    """Four inverted residuals of stride 2 that squeeze by 0.2, 0.25, 0.5, 0.25 inside instead of expanding."""
    return [InvertedResidual(before, after, 2, expansion=ratio, norm=norm, last_relu=last_relu, conv=conv)
            for before, after, ratio in zip((in_channels, *channels), channels, (0.2, 0.25, 0.5, 0.25))]


def full_extras(in_channels: int, *, norm: Norm, conv: Conv = conv) -> tuple[list[nn.Cell], list[int]]:
    """Four levels of a 1x1 and a 3x3 convolution of stride 2, each with norm and ReLU6, and their channels.

    Source: SSDMobileNetV1FeatureExtractor of TensorFlow Object Detection; PaddleDetection has the same.
    """
    blocks, channels = [], [in_channels]
    for middle, after in ((256, 512), (128, 256), (128, 256), (64, 128)):
        blocks.append(nn.SequentialCell(conv_norm(channels[-1], middle, norm, kernel_size=1, conv=conv),
                                        conv_norm(middle, after, norm, stride=2, conv=conv)))
        channels.append(after)
    return blocks, channels[1:]
