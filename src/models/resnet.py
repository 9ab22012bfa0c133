"""ResNet backbones (https://arxiv.org/abs/1512.03385), v1.5: the stride of a bottleneck sits in its 3x3 convolution."""
from mindspore import nn

from src.models.layers import HalfMaxPool, conv


class Bottleneck(nn.Cell):
    """1x1 reduce, 3x3, 1x1 expand by 4, added to the input (projected by `downsample` where the shape changes)."""
    expansion = 4

    def __init__(self, in_channels, channels, stride, norm, conv, last_gamma):
        super().__init__()
        out_channels = self.expansion * channels
        self.conv1 = conv(in_channels, channels, 1)
        self.bn1 = norm(channels)
        self.conv2 = conv(channels, channels, 3, stride)
        self.bn2 = norm(channels)
        self.conv3 = conv(channels, out_channels, 1)
        self.bn3 = norm(out_channels, gamma_init=last_gamma)
        self.relu = nn.ReLU()
        self.downsample = downsample(in_channels, out_channels, stride, norm, conv)

    def construct(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.downsample is not None:
            x = self.downsample(x)
        return self.relu(x + y)


class BasicBlock(nn.Cell):
    """Two 3x3 convolutions, added to the input (projected by `downsample` where the shape changes)."""
    expansion = 1

    def __init__(self, in_channels, channels, stride, norm, conv, last_gamma):
        super().__init__()
        self.conv1 = conv(in_channels, channels, 3, stride)
        self.bn1 = norm(channels)
        self.conv2 = conv(channels, channels, 3)
        self.bn2 = norm(channels, gamma_init=last_gamma)
        self.relu = nn.ReLU()
        self.downsample = downsample(in_channels, channels, stride, norm, conv)

    def construct(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        return self.relu(x + y)


def downsample(in_channels, out_channels, stride, norm, conv):
    """The projection of a block's input, None where the shape stays."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.SequentialCell(conv(in_channels, out_channels, 1, stride), norm(out_channels))


class ResNet(nn.Cell):
    """ResNet without its classifier. Returns C3, C4, C5 (strides 8, 16, 32), or C4 alone where stages end there.

    stages: (channels, blocks, stride of the first) of each; ResNet-50 has 3, 4, 6, 3 bottlenecks. last_gamma: how the
    last norm of a block starts; "zeros" starts it as identity (https://arxiv.org/abs/1706.02677 section 5.1).
    channels: of each returned map.
    """

    def __init__(self, norm, stages=((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)), block=Bottleneck, conv=conv,
                 padding="same", last_gamma="zeros"):
        super().__init__()
        self.conv1 = conv(3, 64, 7, 2)
        self.bn1 = norm(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, pad_mode="same") if padding == "same" else HalfMaxPool()
        before, layers = 64, []
        for channels, count, stride in stages:
            after = channels * block.expansion
            layers.append(nn.SequentialCell(
                block(before, channels, stride, norm, conv, last_gamma),
                *[block(after, channels, 1, norm, conv, last_gamma) for _ in range(count - 1)]))
            before = after
        self.layer1, self.layer2, self.layer3 = layers[:3]
        self.layer4 = layers[3] if len(layers) == 4 else None
        widths = [channels * block.expansion for channels, _, _ in stages]
        self.channels = tuple(widths[1:]) if self.layer4 is not None else (widths[2],)

    def construct(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        c3 = self.layer2(self.layer1(x))
        c4 = self.layer3(c3)
        if self.layer4 is None:
            return (c4,)
        return c3, c4, self.layer4(c4)
