"""Builders of the detectors of TensorFlow's Object Detection API, one per published model; ssd.py lists them.

_tf2 are those of TensorFlow 2 (Keras), _tf1 those of TensorFlow 1 (slim): the same parameters, not the same numbers.
"""
from __future__ import annotations

from functools import partial

from mindspore import nn
from mindspore.common.initializer import Normal, TruncatedNormal

from src.anchors import LINEAR_SCALES, grid_anchors, reduced_anchors, reduced_shapes
from src.errors import OptionError
from src.models.fpn import FPN
from src.models.heads import LevelHead, Predictor, SharedHead, separable
from src.models.initialize import start_from_background
from src.models.layers import (
    ExtraLevels,
    Norm,
    RepeatTwice,
    batch_norm,
    conv,
    conv_norm,
    separable_conv,
    separable_norm,
)
from src.models.mobilenet import MobileExtras, MobileNetV1, MobileNetV2, full_extras
from src.models.model import SSD, Model
from src.models.resnet import Bottleneck, Bottleneck6, ResNet, SlimBottleneck

CHANNEL_MEANS = (123.68, 116.779, 103.939)  # of the ResNets: subtracted, and nothing divided
HALF = (127.5,) * 3                         # of the MobileNets: pixels from -1 to 1
STRIDES = (8, 16, 32, 64, 128)              # of the pyramids
PYRAMID_NORM = batch_norm(eps=1e-3, momentum=0.997)
normal_conv = partial(conv, init=Normal(0.01))
truncated_conv = partial(conv, init=TruncatedNormal(0.03))


def ssd_resnet50_fpn_tf2(num_classes: int, image_size: int = 640) -> Model:
    """ssd_resnet50_v1_fpn_640x640_coco17_tpu-8: 32,702,270 trainable parameters at 81 classes."""
    return resnet_pyramid("ssd_resnet50_fpn_tf2", Bottleneck6, PYRAMID_NORM, num_classes=num_classes,
                          image_size=image_size)


def ssd_resnet50_fpn_tf1(num_classes: int, image_size: int = 640) -> Model:
    """ssd_resnet50_v1_fpn_shared_box_predictor_640x640_coco14_sync: the parameters of ssd_resnet50_fpn_tf2.

    Sums of the pyramid are smoothed at the end, those of the backbone go through ReLU, and its norms have another eps.
    """
    return resnet_pyramid("ssd_resnet50_fpn_tf1", SlimBottleneck, batch_norm(eps=1.001e-5, momentum=0.997),
                          num_classes=num_classes, image_size=image_size, smooth_first=False)


def resnet_pyramid(name: str, block: type[Bottleneck], norm: Norm, *, num_classes: int, image_size: int,
                   smooth_first: bool = True) -> Model:
    """ResNet-50, version 1, with a pyramid. norm: of the backbone."""
    backbone = ResNet(norm, block=block, conv=truncated_conv, stem_padding=3, last_gamma="ones")
    return pyramid(name, backbone, num_classes=num_classes, image_size=image_size, mean=CHANNEL_MEANS, std=(1.0,) * 3,
                   smooth_first=smooth_first)


def ssd_mobilenet_v1_fpn_tf2(num_classes: int, image_size: int = 640) -> Model:
    """ssd_mobilenet_v1_fpn_640x640_coco17_tpu-8: 11,942,462 trainable parameters at 81 classes."""
    return mobilenet_v1_pyramid("ssd_mobilenet_v1_fpn_tf2", num_classes=num_classes, image_size=image_size)


def ssd_mobilenet_v1_fpn_tf1(num_classes: int, image_size: int = 640) -> Model:
    """ssd_mobilenet_v1_fpn_shared_box_predictor_640x640_coco14_sync: sums of the pyramid are smoothed at the end."""
    return mobilenet_v1_pyramid("ssd_mobilenet_v1_fpn_tf1", num_classes=num_classes, image_size=image_size,
                                smooth_first=False)


def mobilenet_v1_pyramid(name: str, *, num_classes: int, image_size: int, smooth_first: bool = True) -> Model:
    """MobileNetV1 with a pyramid."""
    backbone = MobileNetV1(PYRAMID_NORM, taps=(10, 22, 26), conv=normal_conv)
    return pyramid(name, backbone, num_classes=num_classes, image_size=image_size, smooth_first=smooth_first)


def ssd_mobilenet_v2_fpnlite(num_classes: int, image_size: int = 320) -> Model:
    """ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8, _640x640: 2,619,006 trainable parameters at 81 classes.

    Separable convolutions in pyramid and head, whose single tower serves boxes and classes.
    """
    backbone = MobileNetV2(PYRAMID_NORM, taps=(6, 13, 18), conv=normal_conv)
    return pyramid("ssd_mobilenet_v2_fpnlite", backbone, num_classes=num_classes, image_size=image_size, channels=128,
                   lite=True)


def pyramid(name: str, backbone: nn.Cell, *, num_classes: int, image_size: int, channels: int = 256,
            lite: bool = False, smooth_first: bool = True, mean: tuple = HALF, std: tuple = HALF) -> Model:
    """Pyramid, shared head and grid anchors over a backbone of strides 8, 16, 32. Raises OptionError.

    lite: separable convolutions and one tower. smooth_first: as of FPN. The class biases start as background: of the
    published -4.6 that of the background itself becomes 4.6, because our focal loss trains it and theirs does not.
    """
    if image_size % 32:
        raise OptionError(f"--image_size={image_size}: {name} needs a multiple of 32, like 320 or 640")
    block, layer = partial(conv_norm, conv=normal_conv), normal_conv
    if lite:
        block, layer = partial(separable_norm, conv=normal_conv), partial(separable_conv, conv=normal_conv)
    neck = FPN(backbone.channels, channels, PYRAMID_NORM, smooth_first=smooth_first, smooth_top=False,
               upsample=RepeatTwice, conv=normal_conv, block=block)
    head = SharedHead(len(STRIDES), channels, anchors_per_cell=6, num_classes=num_classes, norm=PYRAMID_NORM,
                      one_tower=lite, layer=layer, tower_bias=False)
    start_from_background(head, num_classes)
    return Model(name=name, network=SSD(backbone, neck, head), anchors=grid_anchors(image_size, STRIDES),
                 image_size=image_size, num_classes=num_classes, mean=mean, std=std, clip_before_nms=False)


def ssd300_mobilenet_v2_tf(num_classes: int, image_size: int = 300) -> Model:
    """ssdlite_mobilenet_v2_coco: the network of ssd300_mobilenet_v2 for its weights, 4,393,461 trainable at 81 classes.

    Pixels are scaled to -1..1 and the anchors sit in the middle of their cells.
    """
    norm = batch_norm(eps=1e-3, momentum=0.97)
    return mobilenet_v2("ssd300_mobilenet_v2_tf", separable(norm), norm, num_classes=num_classes,
                        image_size=image_size)


def ssd300_mobilenet_v2_tf1(num_classes: int, image_size: int = 300) -> Model:
    """ssd_mobilenet_v2_coco_2018_03_29: the extra levels of SSDLite, and 3x3 convolutions that predict.

    At 91 classes and with its norms folded it has the 16.818 million parameters that OpenVINO's model zoo counts, those
    of the repeated first expansion aside. 15,424,885 are trainable at 81 classes.
    """
    predictor = partial(truncated_conv, kernel_size=3, bias=True)
    return mobilenet_v2("ssd300_mobilenet_v2_tf1", predictor, batch_norm(eps=1e-3, momentum=0.9997),
                        num_classes=num_classes, image_size=image_size)


def mobilenet_v2(name: str, predictor: Predictor, norm: Norm, *, num_classes: int, image_size: int) -> Model:
    """MobileNetV2 with extra levels of inverted residuals."""
    backbone = MobileNetV2(norm)
    neck = MobileExtras(backbone.channels, norm)
    return six_levels(name, SSD(backbone, neck, level_head(neck.channels, num_classes, predictor)), image_size,
                      num_classes=num_classes)


def ssd300_mobilenet_v2_tf2(num_classes: int, image_size: int = 300) -> Model:
    """ssd_mobilenet_v2_320x320_coco17_tpu-8, which runs at 300: 5,902,901 trainable parameters at 81 classes.

    No SSDLite: the extra levels are full 3x3 convolutions, and 1x1 convolutions predict.
    """
    norm = batch_norm(eps=1e-3, momentum=0.97)
    backbone = MobileNetV2(norm, taps=(18,), tap_expansion=True, conv=truncated_conv)
    return plain_six("ssd300_mobilenet_v2_tf2", backbone, norm, num_classes=num_classes, image_size=image_size)


def ssd300_mobilenet_v1_tf1(num_classes: int, image_size: int = 300) -> Model:
    """ssd_mobilenet_v1_coco_2018_01_28: full 3x3 convolutions in the extra levels, and 1x1 convolutions that predict.

    At 91 classes and with its norms folded it has the 6.807 million parameters that OpenVINO's model zoo counts.
    6,673,589 are trainable at 81 classes.
    """
    norm = batch_norm(eps=1e-3, momentum=0.9997)
    backbone = MobileNetV1(norm, taps=(22, 26), conv=truncated_conv)
    return plain_six("ssd300_mobilenet_v1_tf1", backbone, norm, num_classes=num_classes, image_size=image_size)


def plain_six(name: str, backbone: nn.Cell, norm: Norm, *, num_classes: int, image_size: int) -> Model:
    """Extra levels of full convolutions, and 1x1 convolutions that predict."""
    extras, channels = full_extras(backbone.channels[-1], norm=norm, conv=truncated_conv)
    predictor = partial(normal_conv, kernel_size=1, bias=True)
    head = level_head([*backbone.channels, *channels], num_classes, predictor)
    return six_levels(name, SSD(backbone, ExtraLevels(extras), head), image_size, num_classes=num_classes)


def level_head(channels: list[int], num_classes: int, predictor: Predictor) -> LevelHead:
    """Three shapes on the first level, six on the others."""
    return LevelHead(channels, (3, 6, 6, 6, 6, 6), num_classes, predictor=predictor)


def six_levels(name: str, network: SSD, image_size: int, *, num_classes: int) -> Model:
    """A network of six levels with the 1917 anchors of ssd_anchor_generator."""
    anchors = reduced_anchors(image_size, reduced_shapes(0.1, LINEAR_SCALES, third=0.3333))
    return Model(name=name, network=network, anchors=anchors, image_size=image_size, num_classes=num_classes, mean=HALF,
                 std=HALF, clip_before_nms=False)
