"""MobileNetV2 (https://arxiv.org/abs/1801.04381) and the extra levels SSD puts behind it."""
from mindspore import nn

from src.models.layers import conv, conv_norm

# expansion, channels, repeats, stride of the first: table 2 of the paper
MOBILENET_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
                (6, 320, 1, 1))


def scaled(channels, width):
    """channels * width rounded to a multiple of 8, never more than 10 % below (the paper's released code)."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


class InvertedResidual(nn.Cell):
    """1x1 expand, 3x3 depthwise, 1x1 linear; added to the input where the shape stays. `conv` as in torchvision."""

    def __init__(self, in_channels, out_channels, stride, expansion, norm, last_relu=False):
        super().__init__()
        hidden = int(round(in_channels * expansion))
        expand = [conv_norm(in_channels, hidden, norm, 1)] if expansion != 1 else []
        self.conv = nn.SequentialCell(*expand, conv_norm(hidden, hidden, norm, 3, stride, groups=hidden),
                                      conv(hidden, out_channels, 1), norm(out_channels))
        self.residual = stride == 1 and in_channels == out_channels
        self.last = nn.ReLU6() if last_relu else None

    def construct(self, x):
        y = self.conv(x)
        if self.residual:
            y = x + y
        return y if self.last is None else self.last(y)


class MobileNetV2(nn.Cell):
    """Returns the output of block 13 (stride 16) and of the last 1x1 convolution (stride 32), `channels` deep."""

    def __init__(self, norm, width=1.0):
        super().__init__()
        depth = scaled(32, width)
        cells = [conv_norm(3, depth, norm, stride=2)]
        for expansion, channels, repeats, stride in MOBILENET_V2:
            for repeat in range(repeats):
                out = scaled(channels, width)
                cells.append(InvertedResidual(depth, out, stride if repeat == 0 else 1, expansion, norm))
                depth = out
        last = scaled(1280, width)
        cells.append(conv_norm(depth, last, norm, 1))
        self.features = nn.CellList(cells)
        self.channels = (scaled(96, width), last)

    def construct(self, x):
        stride16 = None
        for index, cell in enumerate(self.features):
            x = cell(x)
            if index == 13:
                stride16 = x
        return stride16, x


class MobileExtras(nn.Cell):
    """Stride 16 and 32 features -> six levels: a 1x1 expansion by 6 of the first, the second, four halvings of it.

    Source: model zoo official/cv/SSD, ssd300 (extras_out_channels 512, 256, 256, 128; extras_ratio .2, .25, .5, .25).
    """

    def __init__(self, in_channels, norm, channels=(512, 256, 256, 128), ratios=(0.2, 0.25, 0.5, 0.25)):
        super().__init__()
        expanded = 6 * in_channels[0]
        self.channels = (expanded, in_channels[1], *channels)
        self.expand = conv_norm(in_channels[0], expanded, norm, 1)
        self.extras = nn.CellList([InvertedResidual(before, after, 2, ratio, norm, last_relu=True)
                                   for before, after, ratio in zip(self.channels[1:], channels, ratios)])

    def construct(self, features):
        maps = [self.expand(features[0]), features[1]]
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps
