"""Feature pyramid (https://arxiv.org/abs/1612.03144) with two extra levels below, as the model zoo builds it."""
from __future__ import annotations

from collections.abc import Sequence

from mindspore import nn

from src.models.layers import Norm, UpsampleTwice, conv, conv_norm


class FPN(nn.Cell):
    """C3, C4, C5 -> P3..P7 of `channels` each (strides 8..128).

    lateral: 1x1 with bias; smooth: 3x3 + norm + ReLU6 after the top-down sum; down: 3x3 stride 2 + norm + ReLU6 from
    the smoothed P5. Source: model zoo official/cv/SSD, src/fpn.py.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, norm: Norm):
        super().__init__()
        self.lateral = nn.CellList([conv(count, channels, 1, bias=True) for count in in_channels])
        self.upsample = UpsampleTwice()
        self.smooth = nn.CellList([conv_norm(channels, channels, norm) for _ in in_channels])
        self.down = nn.CellList([conv_norm(channels, channels, norm, stride=2) for _ in range(2)])

    def construct(self, features: tuple) -> list:
        maps = [lateral(feature) for lateral, feature in zip(self.lateral, features)]  # each [B, channels, H, W]
        for level in range(len(maps) - 2, -1, -1):
            maps[level] = maps[level] + self.upsample(maps[level + 1])
        maps = [smooth(merged) for smooth, merged in zip(self.smooth, maps)]
        for down in self.down:
            maps.append(down(maps[-1]))
        return maps
