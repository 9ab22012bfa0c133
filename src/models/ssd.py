"""The SSD network and one named builder a published model, its numbers inside with their source."""
import inspect
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from mindspore import nn

from src.anchors import grid_shapes, reduced_shapes, ssd_shapes, tile_anchors
from src.errors import OptionError, unknown_name
from src.models.fpn import FPN
from src.models.heads import LevelHead, SharedHead, separable
from src.models.layers import ExtraLevels, batch_norm, conv_norm, extra_block, torch_conv, xavier_conv
from src.models.mobilenet import MobileExtras, MobileNetV1, MobileNetV2, inverted_extras
from src.models.resnet import BasicBlock, Bottleneck, ResNet
from src.models.vgg import VGG16

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB in 0..255: .485 .456 .406 of the ImageNet statistics
IMAGENET_STD = (58.395, 57.12, 57.375)     # .229 .224 .225
CAFFE_MEAN = (123.0, 117.0, 104.0)         # of VGG-16's released weights, which know no division
STAGES_TO_C4 = ((64, 3, 1), (128, 4, 2), (256, 6, 1))  # ResNet-34 and -50 with conv4_x at stride 8 (NVIDIA, MLPerf)
# middle and output channels, kernel, stride, padding of the levels behind the backbone
RESNET_EXTRAS = (*((256, 512, 3, 2, 1),) * 2, (128, 256, 3, 2, 1), *((128, 256, 3, 1, 0),) * 2)
VGG_300_EXTRAS = ((256, 512, 3, 2, 1), (128, 256, 3, 2, 1), *((128, 256, 3, 1, 0),) * 2)
VGG_512_EXTRAS = ((256, 512, 3, 2, 1), *((128, 256, 3, 2, 1),) * 3, (128, 256, 4, 1, 1))
LINEAR_SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)  # evenly from .2 to .95 (SSD paper section 2.2)
# side of the maps, steps, anchor sizes in pixels, anchors a cell (weiliu89/caffe ssd_coco.py; lufficc/SSD for 512)
COCO_300 = ((38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 100, 300), (21, 45, 99, 153, 207, 261, 315), (4, 6, 6, 6, 4, 4))
COCO_512 = ((64, 32, 16, 8, 4, 2, 1), (8, 16, 32, 64, 128, 256, 512),
            (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72), (4, 6, 6, 6, 6, 4, 4))
VOC_300 = (*COCO_300[:2], (30, 60, 111, 162, 213, 264, 315), COCO_300[3])
VOC_512 = (*COCO_512[:2], (35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.65), COCO_512[3])


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
    clip_before_nms: whether boxes are clipped to the image before NMS compares them, or after it.
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
    clip_before_nms: bool = True


def ssd_resnet50_fpn(num_classes, image_size=640):
    """SSD-ResNet50-FPN: 33,294,654 trainable parameters at 81 classes, 51,150 anchors at 640.

    Source: model zoo official/cv/SSD, config/ssd_resnet50_fpn_config_gpu.yaml.
    """
    backbone = ResNet(batch_norm(eps=1e-3, momentum=0.997))
    return Model("ssd_resnet50_fpn", *fpn_detector(backbone, num_classes, image_size), image_size, num_classes)


def ssd_mobilenet_v1_fpn(num_classes, image_size=640):
    """SSD-MobileNetV1-FPN: 12,534,846 trainable parameters at 81 classes, 51,150 anchors at 640.

    Source: model zoo official/cv/SSD, config/ssd_mobilenet_v1_fpn_config_gpu.yaml.
    """
    backbone = MobileNetV1(batch_norm(), taps=(10, 22, 26))
    return Model("ssd_mobilenet_v1_fpn", *fpn_detector(backbone, num_classes, image_size), image_size, num_classes)


def fpn_detector(backbone, num_classes, image_size):
    """Pyramid, shared head and grid anchors over a backbone of strides 8, 16, 32 -> network, anchors.

    Raises OptionError unless the largest stride divides image_size.
    """
    strides = (8, 16, 32, 64, 128)
    if image_size % strides[-1]:
        raise OptionError(f"image_size={image_size}: an FPN model needs a multiple of 128 (its stride), like 640")
    neck = FPN(backbone.channels, 256, batch_norm())
    head = SharedHead(len(strides), 256, 6, num_classes, batch_norm(eps=1e-3, momentum=0.97))
    steps = [stride / image_size for stride in strides]
    anchors = tile_anchors([image_size // stride for stride in strides], steps, grid_shapes(steps))
    return SSD(backbone, neck, head), anchors


def ssd300_mobilenet_v2(num_classes, image_size=300, width=1.0):
    """SSD300-MobileNetV2 with SSDLite heads: 4,393,461 trainable parameters at 81 classes, 1917 anchors at 300.

    Source: model zoo official/cv/SSD, config/ssd300_config_gpu.yaml. `width` below 1 and other sizes are ours, for
    machines without an accelerator.
    """
    norm = batch_norm(eps=1e-3, momentum=0.97)
    backbone = MobileNetV2(norm, width)
    neck = MobileExtras(backbone.channels, norm)
    shapes, anchors = anchors_1917(image_size)
    head = LevelHead(neck.channels, [len(shape) for shape in shapes], num_classes, separable(norm))
    return Model("ssd300_mobilenet_v2", SSD(backbone, neck, head), anchors, image_size, num_classes, width)


def ssd300_mobilenet_v2_tf(num_classes, image_size=300):
    """SSD300-MobileNetV2 as in TensorFlow's Object Detection API (ssdlite_mobilenet_v2_coco), for its weights.

    The network of ssd300_mobilenet_v2; pixels are scaled to -1..1 and the anchors sit in the middle of their cells
    (1 / map), where the model zoo has steps of 16, 32 and 64 pixels.
    """
    zoo = ssd300_mobilenet_v2(num_classes, image_size)
    maps = same_maps(image_size)
    anchors = tile_anchors(maps, [1 / side for side in maps], reduced_shapes(0.1, LINEAR_SCALES))
    return replace(zoo, name="ssd300_mobilenet_v2_tf", anchors=anchors, mean=(127.5,) * 3, std=(127.5,) * 3)


def ssd300_mobilenet_v1(num_classes, image_size=300):
    """SSD300-MobileNetV1 with 1x1 heads: 5,796,089 trainable parameters at 21 classes, 1917 anchors at 300.

    Source: PaddleDetection, configs/ssd/ssd_mobilenet_v1_300_120e_voc.yml. Its background is the last class, ours 0.
    """
    norm = batch_norm()
    backbone = MobileNetV1(norm, taps=(22, 26), activation=nn.ReLU, conv=torch_conv)
    channels, blocks = [*backbone.channels, 512, 256, 256, 128], []
    for before, middle, after in zip(channels[1:], (256, 128, 128, 64), channels[2:]):
        blocks.append(nn.SequentialCell(conv_norm(before, middle, norm, 1, conv=torch_conv),
                                        conv_norm(middle, after, norm, 3, 2, conv=torch_conv)))
    shapes = reduced_shapes(60 / 300, [size / 300 for size in (60, 105, 150, 195, 240, 285, 300)])
    head = LevelHead(channels, [len(shape) for shape in shapes], num_classes, partial(xavier_conv, kernel=1, bias=True))
    maps = same_maps(image_size)
    anchors = tile_anchors(maps, [1 / side for side in maps], shapes)
    return Model("ssd300_mobilenet_v1", SSD(backbone, ExtraLevels(blocks), head), anchors, image_size, num_classes,
                 mean=(127.5,) * 3, std=(127.502231,) * 3, score="softmax", clip_before_nms=False)


def ssd300_mobilenet_v1_zoo(num_classes, image_size=300):
    """SSD300-MobileNetV1 with SSDLite heads: 11,294,517 trainable parameters at 81 classes, 1917 anchors at 300.

    Source: model zoo official/cv/SSD, config/ssd_mobilenet_v1_300_config_gpu.yaml (its model_name ssd_mobilenet_v1).
    """
    norm = batch_norm(eps=1e-3, momentum=0.97)
    backbone = MobileNetV1(batch_norm(), taps=(14, 26))
    channels = [*backbone.channels, 512, 256, 256, 128]
    blocks = [conv_norm(before, after, norm, stride=2) for before, after in zip(channels[1:], channels[2:])]
    shapes, anchors = anchors_1917(image_size)
    head = LevelHead(channels, [len(shape) for shape in shapes], num_classes, separable(norm))
    return Model("ssd300_mobilenet_v1_zoo", SSD(backbone, ExtraLevels(blocks), head), anchors, image_size, num_classes)


def ssdlite300_mobilenet_v2(num_classes, image_size=300):
    """SSDLite300-MobileNetV2: 4,451,764 trainable parameters at 81 classes, 3000 anchors at 300.

    Source: uvipen/SSD-pytorch, src/model.py.
    """
    norm = batch_norm()
    fixed_size("ssdlite300_mobilenet_v2", image_size, 300)
    backbone = MobileNetV2(norm, tap_expansion=True, conv=torch_conv)
    extra = (512, 256, 256, 64)
    head = LevelHead([*backbone.channels, *extra], [6] * 6, num_classes, separable(norm, depthwise_bias=True))
    maps = same_maps(image_size)
    steps = [step / 300 for step in (16, 32, 64, 100, 150, 300)]
    scales = [size / 300 for size in (60, 105, 150, 195, 240, 285, 330)]
    anchors = np.clip(tile_anchors(maps, steps, ssd_shapes(scales, [(2, 3)] * 6)), 0, 1)
    neck = ExtraLevels(inverted_extras(backbone.channels[1], extra, norm, last_relu=False, conv=torch_conv))
    return Model("ssdlite300_mobilenet_v2", SSD(backbone, neck, head), anchors, image_size, num_classes,
                 score="softmax", clip_before_nms=False)


def ssd300_resnet50(num_classes, image_size=300):
    """SSD300-ResNet50: 22,894,902 trainable parameters at 81 classes, 8732 anchors.

    Source: NVIDIA DeepLearningExamples, SSD300 v1.1; yannqi/SSD-for-pytorch and uvipen/SSD-pytorch have the same.
    """
    fixed_size("ssd300_resnet50", image_size, 300)
    backbone = ResNet(batch_norm(), STAGES_TO_C4, Bottleneck, torch_conv, "half", "ones")
    network, anchors = classic_detector(backbone, RESNET_EXTRAS, COCO_300, num_classes, image_size, batch_norm())
    return Model("ssd300_resnet50", network, np.clip(anchors, 0, 1), image_size, num_classes, score="softmax",
                 clip_before_nms=False)


def ssd300_resnet34(num_classes, image_size=300):
    """SSD300-ResNet34: 19,972,534 trainable parameters at 81 classes, 8732 anchors.

    Source: MLPerf training v0.7, single_stage_detector. Its extra levels have biases and no norm.
    """
    fixed_size("ssd300_resnet34", image_size, 300)
    backbone = ResNet(batch_norm(), STAGES_TO_C4, BasicBlock, torch_conv, "half", "ones")
    network, anchors = classic_detector(backbone, RESNET_EXTRAS, COCO_300, num_classes, image_size)
    return Model("ssd300_resnet34", network, np.clip(anchors, 0, 1), image_size, num_classes, score="softmax",
                 clip_before_nms=False)


def ssd300_vgg16(num_classes, image_size=300):
    """SSD300-VGG16: 35,641,826 trainable parameters at 91 classes, 8732 anchors.

    Source: https://arxiv.org/abs/1512.02325, with the numbers of torchvision's ssd300_vgg16 (COCO), whose anchor
    centres are not clamped.
    """
    model = vgg_detector("ssd300_vgg16", VGG_300_EXTRAS, COCO_300, 300, num_classes, image_size)
    model.anchors[:, 2:] = model.anchors[:, 2:].clip(0, 1)
    return replace(model, clip_before_nms=True)


def ssd512_vgg16(num_classes, image_size=512):
    """SSD512-VGG16: 36,038,196 trainable parameters at 81 classes, 24,564 anchors.

    Source: https://arxiv.org/abs/1512.02325, with the numbers of lufficc/SSD, configs/vgg_ssd512_coco_trainval35k.yaml.
    """
    model = vgg_detector("ssd512_vgg16", VGG_512_EXTRAS, COCO_512, 512, num_classes, image_size)
    return replace(model, anchors=np.clip(model.anchors, 0, 1))


def ssd300_vgg16_voc(num_classes, image_size=300):
    """SSD300-VGG16 with the larger anchors of VOC: 26,285,486 trainable parameters at 21 classes, 8732 anchors.

    Source: https://arxiv.org/abs/1512.02325, lufficc/SSD configs/vgg_ssd300_voc0712.yaml, amdegroot/ssd.pytorch.
    """
    model = vgg_detector("ssd300_vgg16_voc", VGG_300_EXTRAS, VOC_300, 300, num_classes, image_size)
    return replace(model, anchors=np.clip(model.anchors, 0, 1))


def ssd512_vgg16_voc(num_classes, image_size=512):
    """SSD512-VGG16 with the larger anchors of VOC: 27,188,676 trainable parameters at 21 classes, 24,564 anchors.

    Source: https://arxiv.org/abs/1512.02325, lufficc/SSD configs/vgg_ssd512_voc0712.yaml.
    """
    model = vgg_detector("ssd512_vgg16_voc", VGG_512_EXTRAS, VOC_512, 512, num_classes, image_size)
    return replace(model, anchors=np.clip(model.anchors, 0, 1))


def vgg_detector(name, extras, levels, published, num_classes, image_size):
    """The SSD of the paper on VGG-16, its anchors not clamped. levels: as of classic_detector."""
    fixed_size(name, image_size, published)
    network, anchors = classic_detector(VGG16(), extras, levels, num_classes, image_size)
    return Model(name, network, anchors, image_size, num_classes, mean=CAFFE_MEAN, std=(1.0,) * 3, score="softmax",
                 clip_before_nms=False)


def classic_detector(backbone, extras, levels, num_classes, image_size, norm=None):
    """Backbone, extra levels, a 3x3 head and the paper's anchors, not clamped -> network, anchors.

    extras: middle and output channels, kernel, stride and padding of each further level (norm: of their convolutions).
    levels: side of the map, step and anchor size in pixels of each level (and the size behind the last), anchors a
    cell: four have ratio 2, six ratios 2 and 3.
    """
    maps, steps, sizes, shapes_a_cell = levels
    channels = list(backbone.channels) + [extra[1] for extra in extras]
    blocks = [extra_block(before, *extra, norm=norm) for before, extra in zip(channels[-len(extras) - 1:], extras)]
    head = LevelHead(channels, shapes_a_cell, num_classes, partial(xavier_conv, bias=True))
    ratios = [(2,) if count == 4 else (2, 3) for count in shapes_a_cell]
    anchors = tile_anchors(maps, [step / image_size for step in steps],
                           ssd_shapes([size / image_size for size in sizes], ratios))
    return SSD(backbone, ExtraLevels(blocks), head), anchors


def anchors_1917(image_size):
    """Shapes of each level and anchors of the model zoo's 300 pixel MobileNets, 1917 at 300."""
    maps = same_maps(image_size)
    # published steps at 300: 16, 32, 64, 100, 150, 300 pixels; from the fourth level on a step is image / map
    steps = [2 ** (4 + k) / image_size if k < 3 else 1 / maps[k] for k in range(6)]
    shapes = reduced_shapes(0.1, LINEAR_SCALES)
    return shapes, tile_anchors(maps, steps, shapes)


def same_maps(image_size):
    """Sides of six feature maps of strides 16 to 512; padding rounds up."""
    return [-(-image_size // stride) for stride in (16, 32, 64, 128, 256, 512)]


def fixed_size(name, image_size, published):
    """Raises OptionError when a model whose last levels need one input size gets another."""
    if image_size != published:
        raise OptionError(f"image_size={image_size}: {name} is built for {published} pixels; leave the option out")


BUILDERS = {builder.__name__: builder for builder in (
    ssd_resnet50_fpn, ssd300_resnet50, ssd300_resnet34, ssd300_mobilenet_v1, ssd300_mobilenet_v1_zoo,
    ssd300_mobilenet_v2, ssd300_mobilenet_v2_tf, ssdlite300_mobilenet_v2, ssd_mobilenet_v1_fpn, ssd300_vgg16,
    ssd512_vgg16, ssd300_vgg16_voc, ssd512_vgg16_voc)}


def published_size(name: str) -> int:
    """The image size that a model was published with, in pixels."""
    return inspect.signature(BUILDERS[name]).parameters["image_size"].default


def build_model(name, num_classes, *, image_size=0, width=1.0):
    """A named model; image_size 0 means its published one. num_classes counts the background. Raises OptionError."""
    if name not in BUILDERS:
        raise unknown_name("model", name, list(BUILDERS))
    chosen = {key: value for key, value, usual in (("image_size", image_size, 0), ("width", width, 1.0))
              if value != usual}
    if "width" in chosen and "width" not in inspect.signature(BUILDERS[name]).parameters:
        raise OptionError(f"width={width}: {name} has width 1.0 only; ssd300_mobilenet_v2 can be narrower")
    return BUILDERS[name](num_classes, **chosen)
