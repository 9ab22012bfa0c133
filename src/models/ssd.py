"""The SSD network and one named builder a published model, its numbers inside with their source."""
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn

from src.anchors import grid_shapes, linear_shapes, tile_anchors
from src.errors import OptionError
from src.models.fpn import FPN
from src.models.heads import SeparableHead, SharedHead
from src.models.layers import batch_norm
from src.models.mobilenet import InvertedResidual, MobileExtras, MobileNetV2
from src.models.resnet import ResNet

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB in 0..255: .485 .456 .406 of the ImageNet statistics
IMAGENET_STD = (58.395, 57.12, 57.375)     # .229 .224 .225


class SSD(nn.Cell):
    """backbone -> neck -> head: normalised images [B, 3, H, W] -> logits [B, A, C], deltas [B, A, 4]."""

    def __init__(self, backbone, neck, head):
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head

    def construct(self, images):
        return self.head(self.neck(self.backbone(images)))


@dataclass(frozen=True)
class Model:
    """A network with all that is needed to feed it and to read its outputs.

    anchors: [A, 4] cx, cy, w, h. mean, std: RGB, 0..255. score: how a logit becomes a score, "sigmoid" or "softmax".
    """
    name: str
    network: nn.Cell
    anchors: np.ndarray
    image_size: int
    num_classes: int
    width: float = 1.0
    mean: tuple = IMAGENET_MEAN
    std: tuple = IMAGENET_STD
    score: str = "sigmoid"


def ssd_resnet50_fpn(num_classes, image_size=640, width=1.0):
    """SSD-ResNet50-FPN: 33,294,654 trainable parameters at 81 classes, 51,150 anchors at 640.

    Source: model zoo official/cv/SSD, config/ssd_resnet50_fpn_config_gpu.yaml.
    """
    if image_size % 128:
        raise OptionError(f"image_size={image_size}: ssd_resnet50_fpn needs a multiple of 128 (its stride), like 640")
    if width != 1.0:
        raise OptionError(f"width={width}: only the MobileNets can be made narrower; ssd_resnet50_fpn has width 1.0")
    strides = (8, 16, 32, 64, 128)
    backbone = ResNet(batch_norm(eps=1e-3, momentum=0.997))
    neck = FPN(backbone.channels, 256, batch_norm(eps=1e-5, momentum=0.9))
    head = SharedHead(len(strides), 256, 6, num_classes, batch_norm(eps=1e-3, momentum=0.97))
    steps = [stride / image_size for stride in strides]
    anchors = tile_anchors([image_size // stride for stride in strides], steps, grid_shapes(steps))
    return Model("ssd_resnet50_fpn", SSD(backbone, neck, head), anchors, image_size, num_classes)


def ssd300_mobilenet_v2(num_classes, image_size=300, width=1.0):
    """SSD300-MobileNetV2 with SSDLite heads: 4,393,461 trainable parameters at 81 classes, 1917 anchors at 300.

    Source: model zoo official/cv/SSD, config/ssd300_config_gpu.yaml. `width` below 1 and other sizes are ours, for
    machines without an accelerator.
    """
    norm = batch_norm(eps=1e-3, momentum=0.97)
    backbone = MobileNetV2(norm, width)
    neck = MobileExtras(backbone.channels, norm)
    maps = [-(-image_size // stride) for stride in (16, 32, 64, 128, 256, 512)]  # 'same' padding rounds up
    # published steps at 300: 16, 32, 64, 100, 150, 300 pixels; from the fourth level on a step is image / map
    steps = [2 ** (4 + k) / image_size if k < 3 else 1 / maps[k] for k in range(6)]
    shapes = linear_shapes(len(maps))
    head = SeparableHead(neck.channels, [len(shape) for shape in shapes], num_classes, norm)
    anchors = tile_anchors(maps, steps, shapes)
    return Model("ssd300_mobilenet_v2", SSD(backbone, neck, head), anchors, image_size, num_classes, width)


def he_initialize(network, num_classes, seed):
    """Draws every convolution below the head anew from a normal of sqrt(2 / fan_in) (https://arxiv.org/abs/1502.01852).

    For training without a pretrained backbone: with the published 0.02 the signal of a depthwise network sinks below
    BatchNorm's eps of 1e-3 layer by layer, and nothing is learnt. Class outputs start as background with probability
    0.99 (https://arxiv.org/abs/1708.02002 section 3.3), so that the first steps are not spent on learning just that.
    Residual blocks start as identity (https://arxiv.org/abs/1706.02677 section 5.1): without it the gradient of the
    first convolution is 50 times that of the last, and its updates scramble what the others learn from.
    """
    rng = np.random.default_rng(seed)
    prior = np.full(num_classes, -np.log(99.0), np.float32)
    prior[0] = np.log(99.0)
    for parameter in network.trainable_params():
        if parameter.ndim == 4 and not parameter.name.startswith("head."):
            deviation = (2 / np.prod(parameter.shape[1:])) ** 0.5
            parameter.set_data(Tensor(rng.normal(0, deviation, parameter.shape), parameter.dtype))
        elif parameter.name.startswith(("head.cls.", "head.cls_out.")) and parameter.name.endswith(".bias"):
            parameter.set_data(Tensor(np.tile(prior, parameter.size // num_classes)))
    for _, cell in network.cells_and_names():
        if isinstance(cell, InvertedResidual) and cell.residual:
            cell.conv[-1].gamma.set_data(Tensor(np.zeros(cell.conv[-1].gamma.shape, np.float32)))


BUILDERS = {builder.__name__: builder for builder in (ssd_resnet50_fpn, ssd300_mobilenet_v2)}


def build_model(name, num_classes, image_size=0, width=1.0):
    """A named model; image_size 0 means its published one. num_classes counts the background. Raises OptionError."""
    if name not in BUILDERS:
        raise OptionError(f"model={name}: known models are {', '.join(BUILDERS)}")
    size = {"image_size": image_size} if image_size else {}
    return BUILDERS[name](num_classes, width=width, **size)
