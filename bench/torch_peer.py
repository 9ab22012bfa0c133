"""SSD300-ResNet50 in PyTorch, the peer of the measurements: the layers and the loss of our `ssd300_resnet50`."""
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
