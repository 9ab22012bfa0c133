"""Heads: list of feature maps -> logits [B, A, C] and deltas [B, A, 4], anchors in order level, row, column, shape."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from mindspore import Tensor, nn, ops

from src.models.layers import Norm, conv

Predictor = Callable[[int, int], nn.Cell]  # in_channels, out_channels -> what predicts from a feature map
Layer = Callable[..., nn.Cell]             # the same with bias=


class Head(nn.Cell):
    """What all heads share."""

    def flatten(self, prediction: Tensor, values: int) -> Tensor:
        """[B, n * values, H, W] with channel = shape * values + value -> [B, H * W * n, values].

        A method, because amp_level O1 rewrites the source of a cell and no longer sees functions beside it.
        """
        return prediction.transpose((0, 2, 3, 1)).reshape((prediction.shape[0], -1, values))

    def class_layers(self) -> list[nn.Conv2d]:
        """The convolutions that give the logits: what in a network depends on the list of classes."""
        raise NotImplementedError

    def hidden_layers(self) -> list[nn.Conv2d]:
        """The convolutions before the outputs that he_initialize draws, where published ones train slowly."""
        return []


class LevelHead(Head):
    """Two predictors per level, `box` and `cls`, none shared.

    in_channels, anchors_per_cell: of each level.
    """

    def __init__(self, in_channels: Sequence[int], anchors_per_cell: Sequence[int], num_classes: int, *,
                 predictor: Predictor):
        super().__init__()
        self.num_classes, self.anchors_per_cell = num_classes, tuple(anchors_per_cell)
        levels = list(zip(in_channels, anchors_per_cell))
        self.box = nn.CellList([predictor(channels, 4 * anchors) for channels, anchors in levels])
        self.cls = nn.CellList([predictor(channels, num_classes * anchors) for channels, anchors in levels])

    def class_layers(self) -> list[nn.Conv2d]:
        return [last_conv(cls) for cls in self.cls]

    def construct(self, maps: list) -> tuple[Tensor, Tensor]:
        logits = [self.flatten(cls(level), self.num_classes) for cls, level in zip(self.cls, maps)]
        deltas = [self.flatten(box(level), 4) for box, level in zip(self.box, maps)]
        return ops.concat(logits, 1), ops.concat(deltas, 1)


def last_conv(predictor: nn.Cell) -> nn.Conv2d:
    """The last convolution inside a predictor, or the predictor itself."""
    return [cell for _, cell in predictor.cells_and_names() if isinstance(cell, nn.Conv2d)][-1]


def separable(norm: Norm, *, depthwise_bias: bool = False) -> Predictor:
    """The predictor of SSDLite: 3x3 depthwise, norm, ReLU6, 1x1 (https://arxiv.org/abs/1801.04381 section 6.2)."""
    def predictor(in_channels: int, out_channels: int) -> nn.SequentialCell:
        depthwise = conv(in_channels, in_channels, groups=in_channels, bias=depthwise_bias)
        pointwise = conv(in_channels, out_channels, 1, bias=True)
        return nn.SequentialCell(depthwise, norm(in_channels), nn.ReLU6(), pointwise)
    return predictor


class SharedHead(Head):
    """Towers of four 3x3 convolutions shared by all levels, with a BatchNorm for each level and layer.

    One tower for boxes and one for classes, or one_tower for both (`convs`, `norms`). layer: in_channels, out_channels,
    bias= -> what the towers are made of and what predicts. tower_bias: whether a norm has a bias in front of it.
    Source: model zoo official/cv/SSD, WeightSharedMultiBox with num_addition_layers 4; the levels differ in statistics,
    not in weights (https://arxiv.org/abs/1708.02002 section 4).
    """
    depth = 4

    def __init__(self, levels: int, channels: int, *, anchors_per_cell: int, num_classes: int, norm: Norm,
                 one_tower: bool = False, layer: Layer = conv, tower_bias: bool = True):
        super().__init__()
        self.num_classes, self.anchors_per_cell = num_classes, (anchors_per_cell,) * levels
        self.one_tower = one_tower
        tower = partial(self.build_tower, levels, channels, norm=norm, layer=partial(layer, bias=tower_bias))
        if one_tower:
            self.convs, self.norms = tower()
        else:
            self.box_convs, self.box_norms = tower()
            self.cls_convs, self.cls_norms = tower()
        self.box_out = layer(channels, 4 * anchors_per_cell, bias=True)
        self.cls_out = layer(channels, num_classes * anchors_per_cell, bias=True)
        self.relu = nn.ReLU6()

    def build_tower(self, levels: int, channels: int, *, norm: Norm, layer: Layer) -> tuple[nn.CellList, nn.CellList]:
        """The shared convolutions and, level by level, their norms."""
        convs = nn.CellList([layer(channels, channels) for _ in range(self.depth)])
        norms = [nn.CellList([norm(channels) for _ in range(self.depth)]) for _ in range(levels)]
        return convs, nn.CellList(norms)

    def class_layers(self) -> list[nn.Conv2d]:
        return [last_conv(self.cls_out)]

    def hidden_layers(self) -> list[nn.Conv2d]:
        if not self.one_tower:
            return []
        outputs = last_conv(self.box_out), last_conv(self.cls_out)
        return [cell for _, cell in self.cells_and_names() if isinstance(cell, nn.Conv2d) and cell not in outputs]

    def run_tower(self, x: Tensor, convs: nn.CellList, norms: nn.CellList) -> Tensor:
        """One level [B, channels, H, W] through one tower, which keeps its shape."""
        for layer_conv, layer_norm in zip(convs, norms):
            x = self.relu(layer_norm(layer_conv(x)))
        return x

    def run_towers(self, x: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """One level [B, channels, H, W] -> what the classes and what the boxes are predicted from."""
        if self.one_tower:
            shared = self.run_tower(x, self.convs, self.norms[level])
            return shared, shared
        return (self.run_tower(x, self.cls_convs, self.cls_norms[level]),
                self.run_tower(x, self.box_convs, self.box_norms[level]))

    def construct(self, maps: list) -> tuple[Tensor, Tensor]:
        logits, deltas = [], []
        for level, x in enumerate(maps):
            for_cls, for_box = self.run_towers(x, level)
            logits.append(self.flatten(self.cls_out(for_cls), self.num_classes))  # [B, H * W * n, C]
            deltas.append(self.flatten(self.box_out(for_box), 4))
        return ops.concat(logits, 1), ops.concat(deltas, 1)
