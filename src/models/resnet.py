"""ResNet backbones (https://arxiv.org/abs/1512.03385), v1.5: the stride of a bottleneck sits in its 3x3 convolution."""
from mindspore import nn

from src.models.layers import conv


class Bottleneck(nn.Cell):
    """1x1 reduce, 3x3, 1x1 expand by 4, added to the input (projected by `downsample` where the shape changes)."""

    def __init__(self, in_channels, channels, stride, norm):
        super().__init__()
        out_channels = 4 * channels
        self.conv1 = conv(in_channels, channels, 1)
        self.bn1 = norm(channels)
        self.conv2 = conv(channels, channels, 3, stride)
        self.bn2 = norm(channels)
        self.conv3 = conv(channels, out_channels, 1)
        # starts the block as identity (https://arxiv.org/abs/1706.02677 section 5.1, and the published recipe)
        self.bn3 = norm(out_channels, gamma_init="zeros")
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.SequentialCell(conv(in_channels, out_channels, 1, stride), norm(out_channels))

    def construct(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.downsample is not None:
            x = self.downsample(x)
        return self.relu(x + y)


class ResNet(nn.Cell):
    """Bottleneck ResNet without its classifier. Returns C3, C4, C5 (strides 8, 16, 32; 512, 1024, 2048 channels).

    blocks: bottlenecks in each of the four stages; (3, 4, 6, 3) is ResNet-50.
    """
    channels = (512, 1024, 2048)

    def __init__(self, norm, blocks=(3, 4, 6, 3)):
        super().__init__()
        self.conv1 = conv(3, 64, 7, 2)
        self.bn1 = norm(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, pad_mode="same")
        self.layer1 = self.stage(64, 64, blocks[0], 1, norm)
        self.layer2 = self.stage(256, 128, blocks[1], 2, norm)
        self.layer3 = self.stage(512, 256, blocks[2], 2, norm)
        self.layer4 = self.stage(1024, 512, blocks[3], 2, norm)

    @staticmethod
    def stage(in_channels, channels, count, stride, norm):
        """`count` bottlenecks, the first with the stride."""
        first = Bottleneck(in_channels, channels, stride, norm)
        return nn.SequentialCell(first, *[Bottleneck(4 * channels, channels, 1, norm) for _ in range(count - 1)])

    def construct(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        c3 = self.layer2(self.layer1(x))
        c4 = self.layer3(c3)
        return c3, c4, self.layer4(c4)
