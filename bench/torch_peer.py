"""The peers of the measurements in PyTorch: layers and loss of `ssd300_resnet50` and `ssd300_mobilenet_v2`."""
import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Bottleneck with the stride in its 3x3 convolution."""

    def __init__(self, before, middle, stride):
        super().__init__()
        after = 4 * middle
        self.layers = nn.Sequential(
            nn.Conv2d(before, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(inplace=True),
            nn.Conv2d(middle, middle, 3, stride, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(inplace=True),
            nn.Conv2d(middle, after, 1, bias=False), nn.BatchNorm2d(after))
        self.shortcut = nn.Identity() if before == after and stride == 1 else nn.Sequential(
            nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        return functional.relu(self.layers(x) + self.shortcut(x), inplace=True)


class SSD300(nn.Module):
    """images [B, 3, 300, 300] -> logits [B, 8732, C], deltas [B, 8732, 4]."""

    def __init__(self, classes=81):
        super().__init__()
        layers, before = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
                          nn.MaxPool2d(3, 2, 1)], 64
        for middle, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 1)):
            for number in range(count):
                layers.append(Block(before, middle, stride if number == 0 else 1))
                before = 4 * middle
        self.backbone = nn.Sequential(*layers)
        channels = [1024, 512, 512, 256, 256, 256]
        self.extras = nn.ModuleList()
        for source, middle, after, (stride, padding) in zip(channels, (256, 256, 128, 128, 128), channels[1:],
                                                            ((2, 1), (2, 1), (2, 1), (1, 0), (1, 0))):
            self.extras.append(nn.Sequential(
                nn.Conv2d(source, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(inplace=True),
                nn.Conv2d(middle, after, 3, stride, padding, bias=False), nn.BatchNorm2d(after),
                nn.ReLU(inplace=True)))
        shapes, self.classes = (4, 6, 6, 6, 4, 4), classes
        self.logits = nn.ModuleList(nn.Conv2d(c, n * classes, 3, 1, 1) for c, n in zip(channels, shapes))
        self.deltas = nn.ModuleList(nn.Conv2d(c, n * 4, 3, 1, 1) for c, n in zip(channels, shapes))

    def forward(self, images):
        maps = [self.backbone(images)]
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return (self.flat(self.logits, maps, self.classes), self.flat(self.deltas, maps, 4))

    @staticmethod
    def flat(convolutions, maps, values):
        """One convolution a map, its values in the order of the anchors."""
        return torch.cat([convolution(x).permute(0, 2, 3, 1).reshape(len(x), -1, values)
                          for convolution, x in zip(convolutions, maps)], 1)


def loss(logits, deltas, labels, targets):
    """Cross-entropy of positives and three times as many hardest negatives, and smooth L1, over the positives."""
    positive = labels > 0
    count = positive.sum(1)
    entropy = functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    ranks = entropy.detach().masked_fill(positive, 0).argsort(1, descending=True).argsort(1)
    chosen = positive | (ranks < (3 * count)[:, None])
    box = functional.smooth_l1_loss(deltas, targets, reduction="none").sum(2)
    return ((entropy * chosen).sum() + (box * positive).sum()) / count.sum().clamp(min=1)


class Inverted(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1; added to the input where the shape stays. activation: behind all of it."""

    def __init__(self, before, after, stride, *, expansion=6, activation=False):
        super().__init__()
        middle = int(round(before * expansion))
        self.layers = nn.Sequential(*([] if expansion == 1 else unit(before, middle, 1)),
                                    *unit(middle, middle, 3, stride=stride, groups=middle),
                                    nn.Conv2d(middle, after, 1, bias=False), nn.BatchNorm2d(after, 1e-3))
        self.residual = stride == 1 and before == after
        self.activation = nn.ReLU6(inplace=True) if activation else nn.Identity()

    def forward(self, x):
        return self.activation(x + self.layers(x) if self.residual else self.layers(x))


def unit(before, after, kernel, *, stride=1, groups=1):
    """Convolution, norm and ReLU6."""
    return [nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(after, 1e-3), nn.ReLU6(inplace=True)]


class MobileSSD(nn.Module):
    """SSD300-MobileNetV2: images [B, 3, S, S] -> logits [B, A, C], deltas [B, A, 4]. width: factor of channels."""

    def __init__(self, classes=81, width=1.0):
        super().__init__()

        def scale(channels):
            return max(8, int(channels * width + 4) // 8 * 8)
        before, self.classes = scale(32), classes
        layers = unit(3, before, 3, stride=2)
        for expansion, after, count, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                                                (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
            for number in range(count):
                layers.append(Inverted(before, scale(after), stride if number == 0 else 1, expansion=expansion))
                before = scale(after)
        layers += unit(before, scale(1280), 1)
        # stride 16 ends with block 13, behind the three layers of the first unit
        self.early, self.late = nn.Sequential(*layers[:16]), nn.Sequential(*layers[16:])
        self.expand = nn.Sequential(*unit(scale(96), 6 * scale(96), 1))
        channels = [6 * scale(96), scale(1280), 512, 256, 256, 128]
        self.extras = nn.ModuleList(
            Inverted(source, after, 2, expansion=ratio, activation=True)
            for source, after, ratio in zip(channels[1:], channels[2:], (0.2, 0.25, 0.5, 0.25)))
        shapes = (3, 6, 6, 6, 6, 6)
        self.logits = nn.ModuleList(self.predictor(c, n * classes) for c, n in zip(channels, shapes))
        self.deltas = nn.ModuleList(self.predictor(c, n * 4) for c, n in zip(channels, shapes))

    @staticmethod
    def predictor(channels, outputs):
        """A head of SSDLite."""
        return nn.Sequential(*unit(channels, channels, 3, groups=channels), nn.Conv2d(channels, outputs, 1))

    def forward(self, images):
        early = self.early(images)
        maps = [self.expand(early), self.late(early)]
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return SSD300.flat(self.logits, maps, self.classes), SSD300.flat(self.deltas, maps, 4)
