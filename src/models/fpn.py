"""Feature pyramids (https://arxiv.org/abs/1612.03144) with two extra levels below."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from mindspore import nn

from src.models.layers import Conv, Norm, RepeatTwice, UpsampleTwice, conv, conv_norm

Block = Callable[..., nn.Cell]  # in_channels, out_channels, norm, stride= -> convolution, norm, ReLU6


class FPN(nn.Cell):
    """C3, C4, C5 -> P3..P7 of `channels` each (strides 8..128).

    lateral: 1x1 with bias; smooth: 3x3 + norm + ReLU6 after the top-down sum; down: 3x3 stride 2 + norm + ReLU6 from
    P5. Source: model zoo official/cv/SSD, src/fpn.py.
    smooth_first: as in TensorFlow Object Detection (fpn_top_down_feature_maps) a sum is smoothed before it takes part
    in the next one, P5 is not smoothed, and values are repeated to double a map.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, norm: Norm, *, smooth_first: bool = False,
                 conv: Conv = conv, block: Block = conv_norm):
        super().__init__()
        self.smooth_first = smooth_first
        self.lateral = nn.CellList([conv(count, channels, 1, bias=True) for count in in_channels])
        self.upsample = RepeatTwice() if smooth_first else UpsampleTwice()
        smoothed = in_channels[:-1] if smooth_first else in_channels
        self.smooth = nn.CellList([block(channels, channels, norm) for _ in smoothed])
        self.down = nn.CellList([block(channels, channels, norm, stride=2) for _ in range(2)])

    def construct(self, features: tuple) -> list:
        maps = [lateral(feature) for lateral, feature in zip(self.lateral, features)]  # each [B, channels, H, W]
        for level in range(len(maps) - 2, -1, -1):
            maps[level] = maps[level] + self.upsample(maps[level + 1])
            if self.smooth_first:
                maps[level] = self.smooth[level](maps[level])
        if not self.smooth_first:
            maps = [smooth(merged) for smooth, merged in zip(self.smooth, maps)]
        for down in self.down:
            maps.append(down(maps[-1]))
        return maps
