"""One builder per published model, whose docstring names the source of the numbers inside."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from mindspore import nn

from src.anchors import LINEAR_SCALES, AnchorTable, grid_anchors, reduced_anchors, reduced_shapes, ssd_shapes
from src.errors import OptionError, unknown_name
from src.models.fpn import FPN
from src.models.heads import LevelHead, SharedHead, separable
from src.models.layers import Extra, ExtraLevels, Norm, batch_norm, conv_norm, extra_block, torch_conv, xavier_conv
from src.models.mobilenet import MobileExtras, MobileNetV1, MobileNetV2, full_extras, inverted_extras
from src.models.model import SSD, Model, with_shapes
from src.models.outside import is_outside, load_builder
from src.models.resnet import STAGES_TO_C4, BasicBlock, Bottleneck, ResNet
from src.models.ssd_tensorflow import (
    ssd300_mobilenet_v1_tf1,
    ssd300_mobilenet_v2_tf,
    ssd300_mobilenet_v2_tf1,
    ssd300_mobilenet_v2_tf2,
    ssd_mobilenet_v1_fpn_tf1,
    ssd_mobilenet_v1_fpn_tf2,
    ssd_mobilenet_v2_fpnlite,
    ssd_resnet50_fpn_tf1,
    ssd_resnet50_fpn_tf2,
)
from src.models.vgg import VGG16

CAFFE_MEAN = (123.0, 117.0, 104.0)         # VGG-16's released weights want it subtracted and nothing divided

# levels behind the backbone: middle and output channels, kernel, stride, padding
RESNET_EXTRAS = (Extra(256, 512, 3, 2, 1), Extra(256, 512, 3, 2, 1), Extra(128, 256, 3, 2, 1),
                 Extra(128, 256, 3, 1, 0), Extra(128, 256, 3, 1, 0))
VGG_300_EXTRAS = RESNET_EXTRAS[1:]
VGG_512_EXTRAS = (Extra(256, 512, 3, 2, 1), *[Extra(128, 256, 3, 2, 1)] * 3, Extra(128, 256, 4, 1, 1))

# weiliu89/caffe ssd_coco.py and ssd_pascal.py; lufficc/SSD for 512
COCO_300 = AnchorTable(
    image_size=300, maps=(38, 19, 10, 5, 3, 1), strides=(8, 16, 32, 64, 100, 300),
    sizes=(21, 45, 99, 153, 207, 261, 315), aspect_ratios=((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)))
COCO_512 = AnchorTable(
    image_size=512, maps=(64, 32, 16, 8, 4, 2, 1), strides=(8, 16, 32, 64, 128, 256, 512),
    sizes=(20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72),
    aspect_ratios=((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)))
VOC_300 = COCO_300._replace(sizes=(30, 60, 111, 162, 213, 264, 315))
VOC_512 = COCO_512._replace(sizes=(35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.65))
TABLES = {"ssd300_vgg16": COCO_300, "ssd512_vgg16": COCO_512, "ssd300_vgg16_voc": VOC_300, "ssd512_vgg16_voc": VOC_512}
# uvipen/SSD-pytorch, src/utils.py
SSDLITE_300 = AnchorTable(
    image_size=300, maps=(19, 10, 5, 3, 2, 1), strides=(16, 32, 64, 100, 150, 300),
    sizes=(60, 105, 150, 195, 240, 285, 330), aspect_ratios=((2, 3),) * 6)


def ssd_resnet50_fpn(num_classes: int, image_size: int = 640) -> Model:
    """Model zoo official/cv/SSD, ssd_resnet50_fpn_config_gpu.yaml: 33,294,654 trainable parameters at 81 classes."""
    backbone = ResNet(batch_norm(eps=1e-3, momentum=0.997))
    return fpn_model("ssd_resnet50_fpn", backbone, num_classes=num_classes, image_size=image_size)


def ssd_mobilenet_v1_fpn(num_classes: int, image_size: int = 640) -> Model:
    """Model zoo official/cv/SSD, ssd_mobilenet_v1_fpn_config_gpu.yaml: 12,534,846 trainable at 81 classes."""
    backbone = MobileNetV1(batch_norm(), taps=(10, 22, 26))
    return fpn_model("ssd_mobilenet_v1_fpn", backbone, num_classes=num_classes, image_size=image_size)


def fpn_model(name: str, backbone: nn.Cell, *, num_classes: int, image_size: int) -> Model:
    """Pyramid, shared head and grid anchors over a backbone of strides 8, 16, 32. Raises OptionError."""
    strides = (8, 16, 32, 64, 128)
    if image_size % strides[-1]:
        raise OptionError(f"--image_size={image_size}: an FPN model needs a multiple of 128 (its stride), like 640")
    neck = FPN(backbone.channels, 256, batch_norm())
    head = SharedHead(len(strides), 256, anchors_per_cell=6, num_classes=num_classes,
                      norm=batch_norm(eps=1e-3, momentum=0.97))
    return Model(name=name, network=SSD(backbone, neck, head), anchors=grid_anchors(image_size, strides),
                 image_size=image_size, num_classes=num_classes)


def ssd300_mobilenet_v2(num_classes: int, image_size: int = 300, width: float = 1.0) -> Model:
    """Model zoo official/cv/SSD, ssd300_config_gpu.yaml: 4,393,461 trainable parameters at 81 classes.

    SSDLite heads. A `width` below 1 and other sizes are for machines without an accelerator.
    """
    norm = batch_norm(eps=1e-3, momentum=0.97)
    backbone = MobileNetV2(norm, width=width)
    neck = MobileExtras(backbone.channels, norm)
    head = LevelHead(neck.channels, (3, 6, 6, 6, 6, 6), num_classes, predictor=separable(norm))
    anchors = reduced_anchors(image_size, reduced_shapes(0.1, LINEAR_SCALES), zoo_strides=True)
    return Model(name="ssd300_mobilenet_v2", network=SSD(backbone, neck, head), anchors=anchors,
                 image_size=image_size, num_classes=num_classes, width=width)


def ssd300_mobilenet_v1(num_classes: int, image_size: int = 300) -> Model:
    """PaddleDetection, ssd_mobilenet_v1_300_120e_voc.yml: 5,796,089 trainable parameters at 21 classes.

    1x1 heads. Its background is the last class, here 0.
    """
    norm = batch_norm()
    backbone = MobileNetV1(norm, taps=(22, 26), activation=nn.ReLU, conv=torch_conv)
    blocks, channels = full_extras(backbone.channels[-1], norm=norm, conv=torch_conv)
    predictor = partial(xavier_conv, kernel_size=1, bias=True)
    head = LevelHead([*backbone.channels, *channels], (3, 6, 6, 6, 6, 6), num_classes, predictor=predictor)
    shapes = reduced_shapes(60 / 300, [size / 300 for size in (60, 105, 150, 195, 240, 285, 300)])
    return Model(name="ssd300_mobilenet_v1", network=SSD(backbone, ExtraLevels(blocks), head),
                 anchors=reduced_anchors(image_size, shapes), image_size=image_size, num_classes=num_classes,
                 mean=(127.5,) * 3, std=(127.502231,) * 3, score="softmax", clip_before_nms=False)


def ssd300_mobilenet_v1_zoo(num_classes: int, image_size: int = 300) -> Model:
    """Model zoo official/cv/SSD, ssd_mobilenet_v1_300_config_gpu.yaml (its model_name is ssd_mobilenet_v1).

    SSDLite heads; 11,294,517 trainable parameters at 81 classes.
    """
    norm = batch_norm(eps=1e-3, momentum=0.97)
    backbone = MobileNetV1(batch_norm(), taps=(14, 26))
    channels, blocks = list(backbone.channels), []
    for after in (512, 256, 256, 128):
        blocks.append(conv_norm(channels[-1], after, norm, stride=2))
        channels.append(after)
    head = LevelHead(channels, (3, 6, 6, 6, 6, 6), num_classes, predictor=separable(norm))
    anchors = reduced_anchors(image_size, reduced_shapes(0.1, LINEAR_SCALES), zoo_strides=True)
    return Model(name="ssd300_mobilenet_v1_zoo", network=SSD(backbone, ExtraLevels(blocks), head), anchors=anchors,
                 image_size=image_size, num_classes=num_classes)


def ssdlite300_mobilenet_v2(num_classes: int, image_size: int = 300) -> Model:
    """uvipen/SSD-pytorch, src/model.py: 4,451,764 trainable parameters at 81 classes, 3000 anchors."""
    norm = batch_norm()
    backbone = MobileNetV2(norm, taps=(18,), tap_expansion=True, detach=True, conv=torch_conv)
    extras = (512, 256, 256, 64)
    head = LevelHead([*backbone.channels, *extras], SSDLITE_300.anchors_per_cell(), num_classes,
                     predictor=separable(norm, depthwise_bias=True))
    neck = ExtraLevels(inverted_extras(backbone.channels[1], extras, norm=norm, last_relu=False, conv=torch_conv))
    return table_model("ssdlite300_mobilenet_v2", SSD(backbone, neck, head), SSDLITE_300, num_classes=num_classes,
                       image_size=image_size)


def ssd300_resnet50(num_classes: int, image_size: int = 300) -> Model:
    """NVIDIA DeepLearningExamples, SSD300 v1.1: 22,894,902 trainable parameters at 81 classes.

    yannqi/SSD-for-pytorch and uvipen/SSD-pytorch have the same.
    """
    norm = batch_norm()
    backbone = ResNet(norm, stages=STAGES_TO_C4, block=Bottleneck, conv=torch_conv, padding="half", last_gamma="ones")
    network = classic_network(backbone, RESNET_EXTRAS, COCO_300, num_classes=num_classes, norm=norm)
    return table_model("ssd300_resnet50", network, COCO_300, num_classes=num_classes, image_size=image_size)


def ssd300_resnet34(num_classes: int, image_size: int = 300) -> Model:
    """MLPerf training v0.7, single_stage_detector: 19,972,534 trainable parameters at 81 classes.

    Its extra levels have biases and no norm.
    """
    norm = batch_norm()
    backbone = ResNet(norm, stages=STAGES_TO_C4, block=BasicBlock, conv=torch_conv, padding="half", last_gamma="ones")
    network = classic_network(backbone, RESNET_EXTRAS, COCO_300, num_classes=num_classes)
    return table_model("ssd300_resnet34", network, COCO_300, num_classes=num_classes, image_size=image_size)


def ssd300_vgg16(num_classes: int, image_size: int = 300) -> Model:
    """torchvision, ssd300_vgg16 (COCO), with centres of anchors not clipped: 35,641,826 trainable at 91 classes."""
    model = vgg_model("ssd300_vgg16", VGG_300_EXTRAS, num_classes=num_classes, image_size=image_size)
    anchors = COCO_300.tile()
    anchors[:, 2:] = anchors[:, 2:].clip(0, 1)
    return replace(model, anchors=anchors, clip_before_nms=True)


def ssd512_vgg16(num_classes: int, image_size: int = 512) -> Model:
    """lufficc/SSD, configs/vgg_ssd512_coco_trainval35k.yaml: 36,038,196 trainable parameters at 81 classes."""
    return vgg_model("ssd512_vgg16", VGG_512_EXTRAS, num_classes=num_classes, image_size=image_size)


def ssd300_vgg16_voc(num_classes: int, image_size: int = 300) -> Model:
    """lufficc/SSD, vgg_ssd300_voc0712.yaml, and amdegroot/ssd.pytorch: 26,285,486 trainable at 21 classes."""
    return vgg_model("ssd300_vgg16_voc", VGG_300_EXTRAS, num_classes=num_classes, image_size=image_size)


def ssd512_vgg16_voc(num_classes: int, image_size: int = 512) -> Model:
    """lufficc/SSD, configs/vgg_ssd512_voc0712.yaml: 27,188,676 trainable parameters at 21 classes."""
    return vgg_model("ssd512_vgg16_voc", VGG_512_EXTRAS, num_classes=num_classes, image_size=image_size)


def vgg_model(name: str, extras: Sequence[Extra], *, num_classes: int, image_size: int) -> Model:
    """The SSD of the paper (https://arxiv.org/abs/1512.02325) on VGG-16, with the anchors of TABLES."""
    network = classic_network(VGG16(), extras, TABLES[name], num_classes=num_classes)
    model = table_model(name, network, TABLES[name], num_classes=num_classes, image_size=image_size)
    return replace(model, mean=CAFFE_MEAN, std=(1.0,) * 3)


def classic_network(backbone: nn.Cell, extras: Sequence[Extra], table: AnchorTable, *, num_classes: int,
                    norm: Norm | None = None) -> SSD:
    """A backbone, extra levels behind it and a 3x3 head. norm: of the convolutions of the extra levels."""
    channels, blocks = list(backbone.channels), []
    for extra in extras:
        blocks.append(extra_block(channels[-1], extra, norm))
        channels.append(extra.channels)
    head = LevelHead(channels, table.anchors_per_cell(), num_classes, predictor=partial(xavier_conv, bias=True))
    return SSD(backbone, ExtraLevels(blocks), head)


def table_model(name: str, network: SSD, table: AnchorTable, *, num_classes: int, image_size: int) -> Model:
    """A Model with softmax scores and the anchors of a table, clipped. Raises OptionError for another image size."""
    if image_size != table.image_size:
        raise OptionError(f"--image_size={image_size}: {name} is built for {table.image_size} pixels; leave the option "
                          "out")
    return Model(name=name, network=network, anchors=table.tile().clip(0, 1), image_size=image_size,
                 num_classes=num_classes, score="softmax", clip_before_nms=False, clip_anchors=True)


BUILDERS = {builder.__name__: builder for builder in (
    ssd_resnet50_fpn, ssd300_resnet50, ssd300_resnet34, ssd300_mobilenet_v1, ssd300_mobilenet_v1_zoo,
    ssd300_mobilenet_v2, ssd300_mobilenet_v2_tf, ssdlite300_mobilenet_v2, ssd_mobilenet_v1_fpn,
    ssd_mobilenet_v2_fpnlite, ssd300_vgg16, ssd512_vgg16, ssd300_vgg16_voc, ssd512_vgg16_voc, ssd_resnet50_fpn_tf2,
    ssd_resnet50_fpn_tf1, ssd_mobilenet_v1_fpn_tf2, ssd_mobilenet_v1_fpn_tf1, ssd300_mobilenet_v2_tf2,
    ssd300_mobilenet_v2_tf1, ssd300_mobilenet_v1_tf1)}


def build_model(name: str, num_classes: int, *, image_size: int = 0, width: float = 1.0,
                anchor_shapes: Sequence[Sequence] = (), clip_anchors: bool = True) -> Model:
    """A named model, of BUILDERS or path/my_file.py:my_model; num_classes counts the background. Raises OptionError.

    image_size: 0 means its published one. anchor_shapes: as of with_shapes; () means the published ones. clip_anchors:
    False leaves anchors that a builder clips to the image as they are, as Caffe does.
    """
    builder, size = builder_of(name), image_size or published_size(name)
    if width != 1.0 and "width" not in inspect.signature(builder).parameters:
        raise OptionError(f"--width={width}: {name} has width 1.0 only; ssd300_mobilenet_v2 can be narrower")
    model = builder(num_classes, size) if width == 1.0 else builder(num_classes, size, width)
    if is_outside(name):
        if not isinstance(model, Model):
            raise OptionError(f"--model={name} returns {type(model).__name__}; docs/new_model.md has a builder, which "
                              "returns a Model")
        model = replace(model, name=name, width=width)
    if not clip_anchors and name in TABLES:
        model = replace(model, anchors=TABLES[name].tile(), clip_anchors=False, clip_before_nms=False)
    return with_shapes(model, anchor_shapes) if anchor_shapes else model


def integer_shapes(name: str) -> list:
    """anchor_shapes of a model of TABLES with sizes cut to whole pixels; [] where they are whole, and for others."""
    table = TABLES.get(name)
    sizes = tuple(int(size) for size in table.sizes) if table else ()
    if not table or sizes == table.sizes:
        return []
    return [level.tolist() for level in ssd_shapes(sizes, table.aspect_ratios)]  # w, h per level


def builder_of(name: str) -> Callable[..., Model]:
    """The builder of a name in BUILDERS, or of path/my_file.py:my_model. Raises OptionError."""
    if is_outside(name):
        return load_builder(name)
    if name not in BUILDERS:
        raise unknown_name("--model", name, [*BUILDERS, "path/my_file.py:my_model"])
    return BUILDERS[name]


def published_size(name: str) -> int:
    """The image size that a model was published with, in pixels: the default of its builder. Raises OptionError."""
    parameters = inspect.signature(builder_of(name)).parameters
    if len(parameters) < 2 or not isinstance(getattr(parameters.get("image_size"), "default", None), int):
        raise OptionError(f"--model={name} takes ({', '.join(parameters)}); a builder takes num_classes and "
                          "image_size, whose default is the size that it is made for")
    return parameters["image_size"].default
