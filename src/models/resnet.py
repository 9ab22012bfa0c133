"""ResNet backbones (https://arxiv.org/abs/1512.03385), v1.5 unless a block says otherwise: the stride of a bottleneck
sits in its 3x3 convolution."""
from __future__ import annotations

from mindspore import Tensor, nn

from src.models.layers import Conv, HalfMaxPool, Norm, conv

# channels, blocks, stride of the first block of each stage of ResNet-34 and ResNet-50 (table 1 of the paper)
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
STAGES_TO_C4 = ((64, 3, 1), (128, 4, 2), (256, 6, 1))  # with conv4_x at stride 8: NVIDIA's SSD300 and MLPerf's


class Residual(nn.Cell):
    """A block whose `body` is added to its input, which `downsample` projects where the shape changes."""
    activation = nn.ReLU       # in the body, and of the first convolution of the network
    last_activation = nn.ReLU  # of the sum

    def __init__(self):
        super().__init__()
        self.relu = self.activation()
        self.last_relu = self.last_activation()

    def construct(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.downsample is not None:
            x = self.downsample(x)
        return self.last_relu(x + y)


class Bottleneck(Residual):
    """1x1 reduce, 3x3, 1x1 expand by 4."""
    expansion = 4
    stride_first = False  # whether the 1x1 halves the map, as in version 1 of the network, or the 3x3

    def __init__(self, in_channels: int, channels: int, stride: int, *, norm: Norm, conv: Conv, last_gamma: str):
        super().__init__()
        out_channels = self.expansion * channels
        first, second = (stride, 1) if self.stride_first else (1, stride)
        self.conv1 = conv(in_channels, channels, 1, stride=first)
        self.bn1 = norm(channels)
        self.conv2 = conv(channels, channels, 3, stride=second)
        self.bn2 = norm(channels)
        self.conv3 = conv(channels, out_channels, 1)
        self.bn3 = norm(out_channels, gamma_init=last_gamma)
        self.downsample = build_downsample(in_channels, out_channels, stride, norm=norm, conv=conv)

    def body(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.bn3(self.conv3(y))


class Bottleneck6(Bottleneck):
    """That of version 1 with ReLU6 throughout: TensorFlow Object Detection on Keras."""
    stride_first = True
    activation = last_activation = nn.ReLU6


class SlimBottleneck(Bottleneck6):
    """The same with ReLU of the sum: TensorFlow Object Detection on slim."""
    last_activation = nn.ReLU


class BasicBlock(Residual):
    """Two 3x3 convolutions."""
    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, *, norm: Norm, conv: Conv, last_gamma: str):
        super().__init__()
        self.conv1 = conv(in_channels, channels, 3, stride=stride)
        self.bn1 = norm(channels)
        self.conv2 = conv(channels, channels, 3)
        self.bn2 = norm(channels, gamma_init=last_gamma)
        self.downsample = build_downsample(in_channels, channels, stride, norm=norm, conv=conv)

    def body(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(y))


def build_downsample(in_channels: int, out_channels: int, stride: int, *, norm: Norm,
                     conv: Conv) -> nn.SequentialCell | None:
    """The projection of a block's input, None where the shape stays."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.SequentialCell(conv(in_channels, out_channels, 1, stride=stride), norm(out_channels))


class ResNet(nn.Cell):
    """ResNet without its classifier. Returns C3, C4, C5 (strides 8, 16, 32), or C4 alone where stages end there.

    stages: channels, blocks, stride of the first block of each. padding: "same" or "half", of the first pooling.
    stem_padding: pixels on each side of the first convolution instead of what `conv` has.
    last_gamma: how the last norm of a block starts; "zeros" starts the block as identity
    (https://arxiv.org/abs/1706.02677 section 5.1). `channels`: of each returned map.
    """

    def __init__(self, norm: Norm, *, stages: tuple = STAGES, block: type[nn.Cell] = Bottleneck, conv: Conv = conv,
                 padding: str = "same", stem_padding: int | None = None, last_gamma: str = "zeros"):
        super().__init__()
        stem = {} if stem_padding is None else {"padding": stem_padding}
        self.conv1 = conv(3, 64, 7, stride=2, **stem)
        self.bn1 = norm(64)
        self.relu = block.activation()
        self.maxpool = nn.MaxPool2d(3, 2, pad_mode="same") if padding == "same" else HalfMaxPool()
        parts = {"norm": norm, "conv": conv, "last_gamma": last_gamma}
        before, layers, depths = 64, [], []
        for channels, count, stride in stages:
            blocks = [block(before, channels, stride, **parts)]
            before = channels * block.expansion
            blocks += [block(before, channels, 1, **parts) for _ in range(count - 1)]
            layers.append(nn.SequentialCell(blocks))
            depths.append(before)
        self.layer1, self.layer2, self.layer3 = layers[:3]
        self.layer4 = layers[3] if len(layers) == 4 else None
        self.channels = tuple(depths[2:] if self.layer4 is None else depths[1:])

    def construct(self, x: Tensor) -> tuple:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # [B, 64, H / 4, W / 4]
        c3 = self.layer2(self.layer1(x))
        c4 = self.layer3(c3)
        if self.layer4 is None:
            return (c4,)
        return c3, c4, self.layer4(c4)
