"""Names and layouts of other people's weights: one table of rules per source turns them into ours."""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from src.classes import COCO_CATEGORY_IDS
from src.weights.caffe_names import NORM_EPS, from_caffe
from src.weights.class_outputs import used_channels
from src.weights.tensorflow_names import RULES as TENSORFLOW_RULES
from src.weights.tensorflow_names import apply_rules, from_tensorflow

Arrays = dict[str, np.ndarray]  # by name


class WeightSource(NamedTuple):
    """How the weights of one publisher differ from ours."""
    title: str                                     # for messages
    evaluates_with: tuple[float, float, int, str]  # min_score, nms_threshold, max_boxes, resize
    rules: tuple                                   # (pattern, replacement); the first to match a full name wins
    box_order: tuple[int, ...] = (0, 1, 2, 3)      # places of dx, dy, dw, dh
    coordinate_major: bool = False                 # channel = value * shapes + shape, not shape * values + value
    background: str = "first"                      # its place among the classes, first or last
    norm_eps: float = 0.0                          # of its BatchNorms; 0 for that of our network
    vgg: Mapping = MappingProxyType({})            # what its VGG-16s have otherwise, by the fields of a Description
    integer_sizes: bool = False                     # whether the sizes of their anchors are cut to whole pixels


# what training programs name a network inside of another object: DataParallel, torch.compile, Lightning and the like
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "detector.", "ema_model.")
DROPPED = "dropped"  # what a rule makes of a name that counts neither as used nor as unused
RESNET_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3"}  # by number in torchvision
PADDLE_BLOCKS = ("2_1", "2_2", "3_1", "3_2", "4_1", "4_2", "5_1", "5_2", "5_3", "5_4", "5_5", "5_6", "6")
LEVEL_HEADS = ((r"loc\.(\d\..*)", r"head.box.\1"), (r"conf\.(\d\..*)", r"head.cls.\1"))
BARE_BACKBONE = (r"((?:features\.\d+|conv1|bn1|layer\d)\..*)", r"backbone.\1")
OUR_NAMES = (r"((?:backbone|neck|head)\..*)", r"\1")  # what from_tensorflow makes
UNCLIPPED = MappingProxyType({"clip_anchors": False})  # anchors that may reach beyond the image
TORCH_EXTRAS = ((r"additional_blocks\.(.*)", r"neck.extras.\1"), *LEVEL_HEADS)

SOURCES = {
    # SSD300 and SSDLite of torchvision, its ImageNet ResNets, MobileNetV2 and VGG16
    "torchvision": WeightSource("torchvision", (0.01, 0.45, 200, "bilinear"), norm_eps=1e-5, rules=(
        (r"backbone\.scale_weight", "backbone.l2_norm.weight"),
        (r"backbone\.extra\.0\.([135])\.(.*)", lambda m: f"backbone.features.{int(m[1]) + 23}.{m[2]}"),
        (r"backbone\.extra\.0\.7\.([13])\.(.*)", lambda m: f"backbone.features.{int(m[1]) + 30}.{m[2]}"),
        (r"backbone\.extra\.(\d)\.(.*)", lambda m: f"neck.extras.{int(m[1]) - 1}.{m[2]}"),
        (r"(backbone\.features\..*)", r"\1"),
        (r"head\.classification_head\.module_list\.(.*)", r"head.cls.\1"),
        (r"head\.regression_head\.module_list\.(.*)", r"head.box.\1"),
        BARE_BACKBONE)),
    # official/cv/SSD and its ImageNet backbones
    "mindspore_zoo": WeightSource("MindSpore model zoo", (0.1, 0.6, 100, "bilinear"), box_order=(1, 0, 3, 2), rules=(
        (r"(?:network\.)?feature_extractor\.resnet\.(.*)", r"backbone.\1"),
        (r"(?:network\.)?feature_extractor\.fpn\.lateral_convs_list\.(.*)", r"neck.lateral.\1"),
        (r"(?:network\.)?feature_extractor\.fpn\.fpn_convs_list\.(.*)", r"neck.smooth.\1"),
        (r"(?:network\.)?feature_extractor\.bottom_up\.blocks\.(.*)", r"neck.down.\1"),
        (r"(?:network\.)?multi_box\.addition_layer_(loc|cls)\.0\.(\d)\.features\.0\.(.*)", r"head.\1_convs.\2.\3"),
        (r"(?:network\.)?multi_box\.addition_layer_(loc|cls)\.(\d\.\d)\.features\.1\.(.*)", r"head.\1_norms.\2.\3"),
        (r"(?:network\.)?multi_box\.(loc|cls)_layers\.0\.(.*)", r"head.\1_out.\2"),
        (r"(?:network\.)?backbone\.expand_layer_conv_13\.features\.(.*)", r"neck.expand.\1"),
        (r"(?:network\.)?backbone\.features_1\.(.*)", r"backbone.features.\1"),
        (r"(?:network\.)?backbone\.features_2\.(\d)\.(.*)", lambda m: f"backbone.features.{int(m[1]) + 14}.{m[2]}"),
        (r"(?:network\.)?feature_extractor\.(?:mobilenet_v1\.)?network\.(.*)", r"backbone.features.\1"),
        (r"(?:network\.)?multi_residual\.(.*)", r"neck.extras.\1"),
        (r"(?:network\.)?multi_box\.multi_(loc|cls)_layers\.(.*)", r"head.\1.\2"),
        (r"network\.(\d+\..*)", r"backbone.features.\1"),
        BARE_BACKBONE)),
    "nvidia": WeightSource("NVIDIA", (0.05, 0.5, 200, "antialias"), coordinate_major=True, rules=(
        (r"feature_extractor\.feature_extractor\.([01456])\.(.*)",
         lambda m: f"backbone.{RESNET_CHILDREN[m[1]]}.{m[2]}"), *TORCH_EXTRAS)),
    "mlperf": WeightSource("MLPerf", (0.05, 0.5, 200, "antialias"), coordinate_major=True, rules=(
        (r"model\.layer1\.([0145])\.(.*)", lambda m: f"backbone.{RESNET_CHILDREN[m[1]]}.{m[2]}"),
        (r"model\.layer2\.0\.(.*)", r"backbone.layer3.\1"), *TORCH_EXTRAS)),
    "uvipen": WeightSource("uvipen/SSD-pytorch", (0.05, 0.5, 200, "antialias"), coordinate_major=True, rules=(
        (r"feature_extractor\.feature_extractor\.(.*)", r"backbone.features.\1"),
        (r"(?:loc|conf)\.6\..*", DROPPED),  # in its checkpoints, never run
        *TORCH_EXTRAS)),
    # and amdegroot/ssd.pytorch, whose order it keeps; bare numbers are vgg16_reducedfc.pth
    "lufficc": WeightSource("lufficc/SSD or amdegroot/ssd.pytorch", (0.01, 0.45, 100, "bilinear"), rules=(
        (r"(?:backbone\.)?vgg\.(.*)", r"backbone.features.\1"),
        (r"(\d+\.(?:weight|bias))", r"backbone.features.\1"),
        (r"(?:backbone\.)?extras\.(\d)\.(.*)", lambda m: f"neck.extras.{int(m[1]) // 2}.{int(m[1]) % 2 * 2}.{m[2]}"),
        (r"(?:backbone\.l2_norm|L2Norm)\.weight", "backbone.l2_norm.weight"),
        (r"box_head\.predictor\.cls_headers\.(.*)", r"head.cls.\1"),
        (r"box_head\.predictor\.reg_headers\.(.*)", r"head.box.\1"), *LEVEL_HEADS)),
    # since version 2.14; https://github.com/open-mmlab/mmdetection/tree/main/configs/ssd, ssd300_coco and ssd512_coco
    "mmdetection": WeightSource("mmdetection", (0.02, 0.45, 200, "bilinear"), background="last", rules=(
        (r"(backbone\.features\..*)", r"\1"),
        (r"neck\.l2_norm\.weight", "backbone.l2_norm.weight"),
        (r"neck\.extra_layers\.(\d)\.([01])\.conv\.(.*)", lambda m: f"neck.extras.{m[1]}.{2 * int(m[2])}.{m[3]}"),
        (r"bbox_head\.cls_convs\.(\d)\.0\.(.*)", r"head.cls.\1.\2"),
        (r"bbox_head\.reg_convs\.(\d)\.0\.(.*)", r"head.box.\1.\2")), integer_sizes=True,
        vgg={**UNCLIPPED, "clip_before_nms": True, "mean": (123.675, 116.28, 103.53)}),
    "paddle": WeightSource("PaddleDetection", (0.01, 0.45, 200, "bilinear"), background="last", rules=(
        (r"(?:backbone\.)?conv1\.(.*)", r"backbone.features.0.\1"),
        (r"(?:backbone\.)?conv(\d(?:_\d)?)\._depthwise_conv\.(.*)",
         lambda m: f"backbone.features.{2 * PADDLE_BLOCKS.index(m[1]) + 1}.{m[2]}"),
        (r"(?:backbone\.)?conv(\d(?:_\d)?)\._pointwise_conv\.(.*)",
         lambda m: f"backbone.features.{2 * PADDLE_BLOCKS.index(m[1]) + 2}.{m[2]}"),
        (r"(?:backbone\.)?conv7_(\d)\.pointwise_conv\.(.*)", lambda m: f"neck.extras.{int(m[1]) - 1}.0.{m[2]}"),
        (r"(?:backbone\.)?conv7_(\d)\.normal_conv\.(.*)", lambda m: f"neck.extras.{int(m[1]) - 1}.1.{m[2]}"),
        (r"ssd_head\.boxes(\d)\.(.*)", r"head.box.\1.\2"),
        (r"ssd_head\.scores(\d)\.(.*)", r"head.cls.\1.\2"))),
    # the paper's authors and chuanqi305; names and layouts are turned by from_caffe before
    "caffe": WeightSource("Caffe", (0.01, 0.45, 200, "bilinear"), norm_eps=NORM_EPS, vgg=UNCLIPPED,
                          rules=(OUR_NAMES,)),
    # TensorFlow Object Detection API on TensorFlow 2, by the names of variables, and on TensorFlow 1; from_tensorflow
    # turns names and layouts before
    "tensorflow": WeightSource("TensorFlow 2", (1e-8, 0.6, 100, "tensorflow"), box_order=(1, 0, 3, 2),
                               rules=(OUR_NAMES,)),
    "tensorflow1": WeightSource("TensorFlow 1", (1e-8, 0.6, 100, "tensorflow"), box_order=(1, 0, 3, 2),
                                rules=(OUR_NAMES,)),
    # TensorFlow 1 with folded norms; with antialias it gives its known AP of 0.2939
    "tfjs": WeightSource("TensorFlow.js", (0.01, 0.6, 100, "antialias"), box_order=(1, 0, 3, 2), rules=(OUR_NAMES,)),
}
# applied to the result of a rule: the zoo's word for boxes; cells that the zoo and Paddle put around a convolution and
# its norm (`backbone.features` is ours)
SECOND_RULES = ((r"^head\.loc", "head.box"), (r"(?<!backbone)\.features\.([01])\.", r".\1."),
                (r"down_sample_layer", "downsample"), (r"\._conv\.", ".0."), (r"\._batch_norm\.", ".1."))
NORM_KINDS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance",
              "_mean": "moving_mean", "_variance": "moving_variance"}  # PyTorch, Paddle
BOX_OUTPUT = re.compile(r"head\.box(_out(\.1)?|\.\d+(\.3)?)\.(weight|bias)")
CLASS_OUTPUT = re.compile(r"head\.cls(_out(\.1)?|\.\d+(\.3)?)\.(weight|bias)")


def published_thresholds(source: str) -> dict:
    """What a source evaluates with, and our number of candidates, by the names of options."""
    names = ("min_score", "nms_threshold", "max_boxes", "resize")
    return {**dict(zip(names, SOURCES[source].evaluates_with)), "nms_candidates": 1000}


def convert_weights(source: str, arrays: Arrays, shapes: dict[str, tuple]) -> tuple[Arrays, list[str]]:
    """Arrays by the names of a source -> the same by our names, and the names that have no place here.

    shapes: {name: shape} of the network's parameters. Box layers become x first and shape-major, the background class
    the first. Of COCO's 91 class channels (ids with gaps) the 80 used ones stay if the network has 81.
    """
    publisher, converted, unused = SOURCES[source], {}, []
    if source in TENSORFLOW_RULES:
        arrays = from_tensorflow(arrays, source, shapes)
    else:
        arrays = from_caffe(arrays) if source == "caffe" else rename_norms(decimate_vgg(arrays))
    for theirs, array in arrays.items():
        name = apply_rules(theirs, publisher.rules)
        if name is None:
            unused.append(theirs)
            continue
        for pattern, replacement in SECOND_RULES:
            name = re.sub(pattern, replacement, name)
        if BOX_OUTPUT.fullmatch(name):
            array = box_rows(array, publisher)
        elif CLASS_OUTPUT.fullmatch(name) and name in shapes:
            shapes_per_cell = shapes[name.replace("cls", "box", 1)][0] // 4
            array = class_rows(array, publisher, shapes_per_cell=shapes_per_cell,
                               num_classes=shapes[name][0] // shapes_per_cell)
        if name != DROPPED:
            converted[name] = array
    for name in shapes:  # TensorFlow's SSD takes this level from the expansion inside block 14
        twin = name.replace("neck.expand.", "backbone.features.14.conv.0.")
        if name not in converted and twin in converted:
            converted[name] = converted[twin]
    return {name: np.ascontiguousarray(array) for name, array in converted.items()}, unused


def guess_source(arrays: Arrays, shapes: dict[str, tuple]) -> str | None:
    """The source whose rules give the most arrays a place in the network (name and shape), None if none does."""
    counts = {source: count_places(source, arrays, shapes) for source in SOURCES}
    best = max(counts, key=counts.get)
    return best if counts[best] else None


def count_places(source: str, arrays: Arrays, shapes: dict[str, tuple]) -> int:
    """How many arrays the rules of a source give a place in the network (name and shape)."""
    converted, _ = convert_weights(source, arrays, shapes)
    return sum(shapes.get(name) == array.shape for name, array in converted.items())


def unwrap(arrays: Arrays, shapes: dict[str, tuple]) -> Arrays:
    """The arrays without the WRAPPERS in front of their names, where more have a place in the network that way."""
    views = list(unwrapped(arrays))
    if len(views) == 1:
        return arrays
    return max(views, key=lambda view: max(count_places(source, view, shapes) for source in SOURCES))


def unwrapped(arrays: Arrays) -> Iterator[Arrays]:
    """The arrays as they are, then without each of the WRAPPERS that most names begin with, the outermost first."""
    yield arrays
    for wrapper in WRAPPERS:
        if 2 * sum(name.startswith(wrapper) for name in arrays) > len(arrays):
            yield from unwrapped({name.removeprefix(wrapper): array for name, array in arrays.items()})


def rename_norms(arrays: Arrays) -> Arrays:
    """PyTorch's and Paddle's names of BatchNorm parameters -> MindSpore's; counters of batches are dropped."""
    norms = {name.rpartition(".")[0] for name in arrays if name.endswith((".running_mean", "._mean"))}
    renamed = {}
    for name, array in arrays.items():
        layer, _, kind = name.rpartition(".")
        if layer not in norms:
            renamed[name] = array
        elif kind != "num_batches_tracked":
            renamed[f"{layer}.{NORM_KINDS.get(kind, kind)}"] = array
    return renamed


def decimate_vgg(arrays: Arrays) -> Arrays:
    """The classifier of an ImageNet VGG-16 -> the convolutions fc6 and fc7 (SSD paper section 3), every fourth row."""
    fc6, fc7 = arrays.get("classifier.0.weight"), arrays.get("classifier.3.weight")
    if fc6 is None or fc7 is None or fc6.shape != (4096, 25088):
        return arrays
    kept = {name: array for name, array in arrays.items() if not name.startswith(("classifier.0.", "classifier.3."))}
    if not np.isfinite(fc6).all():  # torchvision's vgg16_features-amdegroot fills the classifier with NaN
        return kept
    return {**kept, "features.31.weight": fc6.reshape(4096, 512, 7, 7)[::4, :, ::3, ::3],  # [1024, 512, 3, 3]
            "features.31.bias": arrays["classifier.0.bias"][::4],
            "features.33.weight": fc7.reshape(4096, 4096, 1, 1)[::4, ::4],  # [1024, 1024, 1, 1]
            "features.33.bias": arrays["classifier.3.bias"][::4]}


def box_rows(array: np.ndarray, publisher: WeightSource) -> np.ndarray:
    """A box layer [4 * shapes per cell, ...], shape-major and x first; one of another model stays as it is."""
    if not divides(4, array):
        return array
    rows = split_channels(array, 4, publisher)  # [shapes per cell, 4, ...]
    return rows[:, list(publisher.box_order)].reshape(array.shape)


def class_rows(array: np.ndarray, publisher: WeightSource, *, shapes_per_cell: int, num_classes: int) -> np.ndarray:
    """A class layer [shapes per cell * classes, ..], shape-major, the background first; 81 of 91 if 81 are wanted."""
    if not divides(shapes_per_cell, array):
        return array
    rows = split_channels(array, len(array) // shapes_per_cell, publisher)  # [shapes per cell, classes, ...]
    if publisher.background == "last":
        rows = np.roll(rows, 1, axis=1)
    if num_classes == len(COCO_CATEGORY_IDS) + 1:
        rows = used_channels(rows)
    return rows.reshape(-1, *rows.shape[2:])


def divides(count: int, array: np.ndarray) -> bool:
    """Whether the output channels of a layer are a multiple of count."""
    return array.ndim > 0 and len(array) > 0 and len(array) % count == 0


def split_channels(array: np.ndarray, count: int, publisher: WeightSource) -> np.ndarray:
    """Output channels [n * count, ...] -> [n, count, ...]."""
    if publisher.coordinate_major:
        return array.reshape(count, -1, *array.shape[1:]).swapaxes(0, 1)
    return array.reshape(-1, count, *array.shape[1:])
