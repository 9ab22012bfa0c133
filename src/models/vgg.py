"""VGG-16 (https://arxiv.org/abs/1409.1556) with its fully connected layers turned to convolutions, as SSD uses it."""
from __future__ import annotations

from mindspore import Tensor, nn

from src.models.layers import L2Norm, xavier_conv

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions


class VGG16(nn.Cell):
    """Returns conv4_3 after L2Norm (stride 8, 512 channels) and fc7 (stride 16, 1024 channels).

    `features` counts as torchvision's VGG16 and goes on: 30 the 3x3 stride 1 pool5, 31 fc6 (3x3, dilation 6), 33 fc7
    (1x1), each convolution followed by its ReLU (SSD paper section 3.1). Pools round up: 75 -> 38 at 300 pixels.
    """
    channels = (512, 1024)
    conv4_3 = 22  # the ReLU behind it

    def __init__(self):
        super().__init__()
        cells, before = [], 3
        for channels, count in STAGES:
            for _ in range(count):
                cells += [xavier_conv(before, channels, bias=True), nn.ReLU()]
                before = channels
            # on even and on odd maps "same" pools like ceil_mode: one padded row at the bottom at most
            cells.append(nn.MaxPool2d(2, 2, pad_mode="same"))
        cells[-1] = nn.MaxPool2d(3, 1, pad_mode="same")
        cells += [xavier_conv(512, 1024, bias=True, dilation=6), nn.ReLU(),
                  xavier_conv(1024, 1024, 1, bias=True), nn.ReLU()]
        self.features = nn.CellList(cells)
        self.l2_norm = L2Norm(512)

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        conv4_3 = None
        for index, cell in enumerate(self.features):
            x = cell(x)
            if index == self.conv4_3:
                conv4_3 = self.l2_norm(x)   # [B, 512, H / 8, W / 8]
        return conv4_3, x                   # x: [B, 1024, H / 16, W / 16]
