"""Heads: list of feature maps -> logits [B, A, C] and deltas [B, A, 4], anchors in order level, row, column, shape."""
from mindspore import nn, ops

from src.models.layers import conv


class Head(nn.Cell):
    """What all heads share."""

    def flatten(self, prediction, values):
        """[B, n * values, H, W] with channel = shape * values + value -> [B, H * W * n, values].

        A method, because amp_level O1 rewrites the source of a cell and no longer sees functions beside it.
        """
        return prediction.transpose((0, 2, 3, 1)).reshape((prediction.shape[0], -1, values))

    def class_layers(self):
        """The convolutions that give the logits: what in a network depends on the list of classes."""
        raise NotImplementedError


class LevelHead(Head):
    """Two predictors a level, `box` and `cls`, none shared.

    predictor: function in_channels, out_channels -> Cell. shapes: anchors a cell, for each level.
    """

    def __init__(self, in_channels, shapes, num_classes, predictor):
        super().__init__()
        self.num_classes = num_classes
        self.box = nn.CellList([predictor(c, 4 * n) for c, n in zip(in_channels, shapes)])
        self.cls = nn.CellList([predictor(c, num_classes * n) for c, n in zip(in_channels, shapes)])

    def class_layers(self):
        return [[part for _, part in cls.cells_and_names() if isinstance(part, nn.Conv2d)][-1] for cls in self.cls]

    def construct(self, maps):
        logits = [self.flatten(cls(one), self.num_classes) for cls, one in zip(self.cls, maps)]
        deltas = [self.flatten(box(one), 4) for box, one in zip(self.box, maps)]
        return ops.concat(logits, 1), ops.concat(deltas, 1)


def separable(norm, depthwise_bias=False):
    """The predictor of SSDLite: 3x3 depthwise, norm, ReLU6, 1x1 (https://arxiv.org/abs/1801.04381 section 6.2)."""
    def predictor(in_channels, out_channels):
        return nn.SequentialCell(conv(in_channels, in_channels, groups=in_channels, bias=depthwise_bias),
                                 norm(in_channels), nn.ReLU6(), conv(in_channels, out_channels, 1, bias=True))
    return predictor


class SharedHead(Head):
    """Two towers of 3x3 convolutions (with bias) shared by all levels, with a BatchNorm for each level and layer.

    Source: model zoo official/cv/SSD, WeightSharedMultiBox with num_addition_layers 4; the levels differ in statistics,
    not in weights (https://arxiv.org/abs/1708.02002 section 4).
    """

    def __init__(self, levels, channels, shapes, num_classes, norm, depth=4):
        super().__init__()
        self.num_classes = num_classes
        self.box_convs, self.box_norms = self.tower(levels, channels, norm, depth)
        self.cls_convs, self.cls_norms = self.tower(levels, channels, norm, depth)
        self.box_out = conv(channels, 4 * shapes, bias=True)
        self.cls_out = conv(channels, num_classes * shapes, bias=True)
        self.relu = nn.ReLU6()

    @staticmethod
    def tower(levels, channels, norm, depth):
        """The shared convolutions and, level by level, their norms."""
        convs = nn.CellList([conv(channels, channels, bias=True) for _ in range(depth)])
        return convs, nn.CellList([nn.CellList([norm(channels) for _ in range(depth)]) for _ in range(levels)])

    def class_layers(self):
        return [self.cls_out]

    def run_tower(self, x, convs, norms):
        """One level through one tower."""
        for one_conv, one_norm in zip(convs, norms):
            x = self.relu(one_norm(one_conv(x)))
        return x

    def construct(self, maps):
        logits, deltas = [], []
        for level, one in enumerate(maps):
            logits.append(self.flatten(self.cls_out(self.run_tower(one, self.cls_convs, self.cls_norms[level])),
                                  self.num_classes))
            deltas.append(self.flatten(self.box_out(self.run_tower(one, self.box_convs, self.box_norms[level])), 4))
        return ops.concat(logits, 1), ops.concat(deltas, 1)
