"""Feature pyramids (https://arxiv.org/abs/1612.03144) with two extra levels below."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from mindspore import nn

from src.models.layers import Conv, Norm, UpsampleTwice, conv, conv_norm

Block = Callable[..., nn.Cell]  # in_channels, out_channels, norm, stride= -> convolution, norm, ReLU6


class FPN(nn.Cell):
    """C3, C4, C5 -> P3..P7 of `channels` each (strides 8..128).

    lateral: 1x1 with bias; smooth: 3x3 + norm + ReLU6 of the top-down sums; down: the same with stride 2, from P5.
    Source: model zoo official/cv/SSD, src/fpn.py. TensorFlow Object Detection (fpn_top_down_feature_maps) differs:
    smooth_top: whether P5, which adds nothing, is smoothed too. smooth_first: whether a sum is smoothed before it takes
    part in the next one. upsample: doubles a map, bilinearly or by repeating values.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, norm: Norm, *, smooth_first: bool = False,
                 smooth_top: bool = True, upsample: type[nn.Cell] = UpsampleTwice, conv: Conv = conv,
                 block: Block = conv_norm):
        super().__init__()
        self.smooth_first = smooth_first
        self.lateral = nn.CellList([conv(count, channels, 1, bias=True) for count in in_channels])
        self.upsample = upsample()
        self.smoothed = len(in_channels) if smooth_top else len(in_channels) - 1
        self.smooth = nn.CellList([block(channels, channels, norm) for _ in range(self.smoothed)])
        self.down = nn.CellList([block(channels, channels, norm, stride=2) for _ in range(2)])

    def construct(self, features: tuple) -> list:
        maps = [lateral(feature) for lateral, feature in zip(self.lateral, features)]  # each [B, channels, H, W]
        for level in range(len(maps) - 1, -1, -1):
            if level < len(maps) - 1:
                maps[level] = maps[level] + self.upsample(maps[level + 1])
            if self.smooth_first and level < self.smoothed:
                maps[level] = self.smooth[level](maps[level])
        if not self.smooth_first:
            for level in range(self.smoothed):
                maps[level] = self.smooth[level](maps[level])
        for down in self.down:
            maps.append(down(maps[-1]))
        return maps
