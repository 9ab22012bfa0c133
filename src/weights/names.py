"""Names and layouts of other people's weights (numpy): one table of rules a source turns them into ours."""
import re
from collections import namedtuple

import numpy as np

from src.classes import COCO_CATEGORY_IDS
from src.weights.tensorflow_names import from_tensorflow

# rules: (pattern, replacement) in order; the first that matches a whole name wins, a name without a match is left over.
# box_order: places of dx, dy, dw, dh in the source. coordinate_major: channel = value * shapes + shape instead of
# shape * values + value. background: its place among the classes of the source.
# post: min_score, nms_threshold, max_boxes and resize it evaluates with.
Source = namedtuple("Source", "rules post box_order coordinate_major background",
                    defaults=((0, 1, 2, 3), False, "first"))
RESNET_CUT = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3"}  # children of torchvision's ResNet
PADDLE_BLOCKS = ("2_1", "2_2", "3_1", "3_2", "4_1", "4_2", "5_1", "5_2", "5_3", "5_4", "5_5", "5_6", "6")
LEVEL_HEADS = ((r"loc\.(\d\..*)", r"head.box.\1"), (r"conf\.(\d\..*)", r"head.cls.\1"))
TORCH_EXTRAS = ((r"additional_blocks\.(.*)", r"neck.extras.\1"), *LEVEL_HEADS)


def child(layers):
    """Replacement of a rule whose first group is a key of layers and whose second is the rest of the name."""
    return lambda match: f"backbone.{layers[match[1]]}.{match[2]}"


def paddle_block(match):
    """Paddle's block (conv2_1 .. conv6) and its half -> the cell of MobileNetV1.features."""
    cell = 2 * PADDLE_BLOCKS.index(match[1]) + (1 if match[2] == "depthwise" else 2)
    return f"backbone.features.{cell}.{match[3]}"


def paddle_half(match):
    """The k-th extra block of Paddle (1..4) -> ours."""
    return f"neck.extras.{int(match[1]) - 1}.{0 if match[2] == 'pointwise' else 1}.{match[3]}"


SOURCES = {
    # SSD300 and SSDLite of torchvision, its ImageNet ResNets, MobileNetV2 and VGG16
    "torchvision": Source(post=(0.01, 0.45, 200, "bilinear"), rules=(
        (r"backbone\.scale_weight", "backbone.l2_norm.weight"),
        (r"backbone\.extra\.0\.([135])\.(.*)", lambda m: f"backbone.features.{int(m[1]) + 23}.{m[2]}"),
        (r"backbone\.extra\.0\.7\.([13])\.(.*)", lambda m: f"backbone.features.{int(m[1]) + 30}.{m[2]}"),
        (r"backbone\.extra\.(\d)\.(.*)", lambda m: f"neck.extras.{int(m[1]) - 1}.{m[2]}"),
        (r"(backbone\.features\..*)", r"\1"),
        (r"head\.classification_head\.module_list\.(.*)", r"head.cls.\1"),
        (r"head\.regression_head\.module_list\.(.*)", r"head.box.\1"),
        (r"(features\.\d+\..*)", r"backbone.\1"),
        (r"((?:conv1|bn1|layer\d)\..*)", r"backbone.\1"))),
    # official/cv/SSD and its ImageNet backbones
    "mindspore_zoo": Source(post=(0.1, 0.6, 100, "bilinear"), box_order=(1, 0, 3, 2), rules=(
        (r"(?:network\.)?feature_extractor\.resnet\.(.*)", r"backbone.\1"),
        (r"(?:network\.)?feature_extractor\.fpn\.lateral_convs_list\.(.*)", r"neck.lateral.\1"),
        (r"(?:network\.)?feature_extractor\.fpn\.fpn_convs_list\.(.*)", r"neck.smooth.\1"),
        (r"(?:network\.)?feature_extractor\.bottom_up\.blocks\.(.*)", r"neck.down.\1"),
        (r"(?:network\.)?multi_box\.addition_layer_loc\.0\.(\d)\.features\.0\.(.*)", r"head.box_convs.\1.\2"),
        (r"(?:network\.)?multi_box\.addition_layer_cls\.0\.(\d)\.features\.0\.(.*)", r"head.cls_convs.\1.\2"),
        (r"(?:network\.)?multi_box\.addition_layer_loc\.(\d)\.(\d)\.features\.1\.(.*)", r"head.box_norms.\1.\2.\3"),
        (r"(?:network\.)?multi_box\.addition_layer_cls\.(\d)\.(\d)\.features\.1\.(.*)", r"head.cls_norms.\1.\2.\3"),
        (r"(?:network\.)?multi_box\.loc_layers\.0\.(.*)", r"head.box_out.\1"),
        (r"(?:network\.)?multi_box\.cls_layers\.0\.(.*)", r"head.cls_out.\1"),
        (r"(?:network\.)?backbone\.expand_layer_conv_13\.features\.(.*)", r"neck.expand.\1"),
        (r"(?:network\.)?backbone\.features_1\.(.*)", r"backbone.features.\1"),
        (r"(?:network\.)?backbone\.features_2\.(\d)\.(.*)", lambda m: f"backbone.features.{int(m[1]) + 14}.{m[2]}"),
        (r"(?:network\.)?feature_extractor\.(?:mobilenet_v1\.)?network\.(.*)", r"backbone.features.\1"),
        (r"(?:network\.)?multi_residual\.(.*)", r"neck.extras.\1"),
        (r"(?:network\.)?multi_box\.multi_loc_layers\.(.*)", r"head.box.\1"),
        (r"(?:network\.)?multi_box\.multi_cls_layers\.(.*)", r"head.cls.\1"),
        (r"network\.(\d+\..*)", r"backbone.features.\1"),
        (r"(features\.\d+\..*)", r"backbone.\1"),
        (r"((?:conv1|bn1|layer\d)\..*)", r"backbone.\1"))),
    "nvidia": Source(post=(0.05, 0.5, 200, "antialias"), coordinate_major=True, rules=(
        (r"feature_extractor\.feature_extractor\.([01456])\.(.*)", child(RESNET_CUT)), *TORCH_EXTRAS)),
    "mlperf": Source(post=(0.05, 0.5, 200, "antialias"), coordinate_major=True, rules=(
        (r"model\.layer1\.([0145])\.(.*)", child(RESNET_CUT)),
        (r"model\.layer2\.0\.(.*)", r"backbone.layer3.\1"), *TORCH_EXTRAS)),
    "uvipen": Source(post=(0.05, 0.5, 200, "antialias"), coordinate_major=True, rules=(
        (r"feature_extractor\.feature_extractor\.(.*)", r"backbone.features.\1"),
        (r"(?:loc|conf)\.6\..*", "unused"),  # in its checkpoints, never run
        *TORCH_EXTRAS)),
    # and amdegroot/ssd.pytorch, whose order it keeps; bare numbers are vgg16_reducedfc.pth
    "lufficc": Source(post=(0.01, 0.45, 100, "bilinear"), rules=(
        (r"(?:backbone\.)?vgg\.(.*)", r"backbone.features.\1"),
        (r"(\d+\.(?:weight|bias))", r"backbone.features.\1"),
        (r"(?:backbone\.)?extras\.(\d)\.(.*)", lambda m: f"neck.extras.{int(m[1]) // 2}.{int(m[1]) % 2 * 2}.{m[2]}"),
        (r"(?:backbone\.l2_norm|L2Norm)\.weight", "backbone.l2_norm.weight"),
        (r"box_head\.predictor\.cls_headers\.(.*)", r"head.cls.\1"),
        (r"box_head\.predictor\.reg_headers\.(.*)", r"head.box.\1"), *LEVEL_HEADS)),
    "paddle": Source(post=(0.01, 0.45, 200, "bilinear"), background="last", rules=(
        (r"(?:backbone\.)?conv1\.(.*)", r"backbone.features.0.\1"),
        (r"(?:backbone\.)?conv(\d(?:_\d)?)\._(depthwise|pointwise)_conv\.(.*)", paddle_block),
        (r"(?:backbone\.)?conv7_(\d)\.(pointwise|normal)_conv\.(.*)", paddle_half),
        (r"ssd_head\.boxes(\d)\.(.*)", r"head.box.\1.\2"),
        (r"ssd_head\.scores(\d)\.(.*)", r"head.cls.\1.\2"))),
    # names and layouts are turned by from_tensorflow before; with antialias it gives its known AP of 0.2939
    "tfjs": Source(post=(0.01, 0.6, 100, "antialias"), box_order=(1, 0, 3, 2), rules=(
        (r"((?:backbone|neck|head)\..*)", r"\1"),)),
}
# cells that the model zoo and Paddle put around a convolution and its norm; `backbone.features` is ours
WRAPPERS = ((r"(?<!backbone)\.features\.([01])\.", r".\1."), (r"down_sample_layer", "downsample"),
            (r"\._conv\.", ".0."), (r"\._batch_norm\.", ".1."))
NORMS = (("running_mean", "running_var"), ("_mean", "_variance"))  # PyTorch, Paddle
BOX_OUTPUT = re.compile(r"head\.box(_out|\.\d+(\.3)?)\.(weight|bias)")
CLASS_OUTPUT = re.compile(r"head\.cls(_out|\.\d+(\.3)?)\.(weight|bias)")


def published_thresholds(source):
    """What a source evaluates with, and our number of candidates, by the names of options."""
    return {**dict(zip(("min_score", "nms_threshold", "max_boxes", "resize"), SOURCES[source].post)),
            "nms_candidates": 1000}


def convert_weights(source, values, shapes):
    """Tensors {name: array} of a source -> {name of ours: array} and the names that are left over.

    shapes: {name: shape} of the network's parameters. Box layers become x first and shape-major, the background class
    the first; of COCO's 91 class channels (ids with gaps) the 80 used ones stay where the network has 81.
    """
    renamed, left = {}, []
    values = from_tensorflow(values) if source == "tfjs" else rename_norms(decimate_vgg(values))
    for name, value in values.items():
        ours = rename(name, SOURCES[source].rules)
        if ours is None:
            left.append(name)
        elif ours != "unused":
            renamed[ours] = value
    for name, value in renamed.items():
        if BOX_OUTPUT.fullmatch(name) and divides(4, value):
            value = arrange(value, 4, SOURCES[source].coordinate_major)[:, list(SOURCES[source].box_order)]
        elif CLASS_OUTPUT.fullmatch(name) and name in shapes and divides(
                shapes_a_cell := shapes[name.replace("cls", "box", 1)][0] // 4, value):
            value = class_rows(value, shapes[name], shapes_a_cell, SOURCES[source])
        else:
            continue
        renamed[name] = value.reshape(-1, *value.shape[2:])
    copy_expansion(renamed, shapes)
    return {name: np.ascontiguousarray(value) for name, value in renamed.items()}, left


def divides(count, value):
    """Whether the output channels of a layer are a multiple of count; those of another model's head may not be."""
    return value.ndim > 0 and len(value) > 0 and len(value) % count == 0


def guess_source(values, shapes):
    """The source whose rules give the most tensors a place in the network (name and shape), None where none does."""
    def fitting(source):
        converted, _ = convert_weights(source, values, shapes)
        return sum(shapes.get(name) == value.shape for name, value in converted.items())
    best = max(SOURCES, key=fitting)
    return best if fitting(best) else None


def decimate_vgg(values):
    """The classifier of an ImageNet VGG-16 -> the convolutions fc6 and fc7 (SSD paper section 3), every fourth row."""
    fc6, fc7 = values.get("classifier.0.weight"), values.get("classifier.3.weight")
    if fc6 is None or fc7 is None or fc6.shape != (4096, 25088):
        return values
    kept = {name: value for name, value in values.items() if not name.startswith(("classifier.0.", "classifier.3."))}
    if not np.isfinite(fc6).all():  # torchvision's vgg16_features-amdegroot fills the classifier with NaN
        return kept
    return {**kept, "features.31.weight": fc6.reshape(4096, 512, 7, 7)[::4, :, ::3, ::3],
            "features.31.bias": values["classifier.0.bias"][::4],
            "features.33.weight": fc7.reshape(4096, 4096, 1, 1)[::4, ::4],
            "features.33.bias": values["classifier.3.bias"][::4]}


def rename_norms(values):
    """PyTorch's and Paddle's names of BatchNorm parameters -> MindSpore's; counters of batches are dropped."""
    renamed = dict(values)
    for mean, variance in NORMS:
        for name in [name for name in values if name.endswith(f".{mean}")]:
            prefix = name[:-len(mean)]
            for theirs, ours in (("weight", "gamma"), ("bias", "beta"), (mean, "moving_mean"),
                                 (variance, "moving_variance")):
                if prefix + theirs in renamed:
                    renamed[prefix + ours] = renamed.pop(prefix + theirs)
            renamed.pop(f"{prefix}num_batches_tracked", None)
    return renamed


def rename(name, rules):
    """The name after the first rule that matches all of it, None without one."""
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            name = replacement(match) if callable(replacement) else match.expand(replacement)
            for wrapper, plain in WRAPPERS:
                name = re.sub(wrapper, plain, name)
            return name
    return None


def arrange(value, count, coordinate_major):
    """Output channels [n * count, ...] -> [n, count, ...]."""
    if coordinate_major:
        return value.reshape(count, -1, *value.shape[1:]).swapaxes(0, 1)
    return value.reshape(-1, count, *value.shape[1:])


def class_rows(value, shape, shapes_a_cell, source):
    """A class layer -> [shapes a cell, classes, ...] with the background first and as many classes as the network."""
    value = arrange(value, len(value) // shapes_a_cell, source.coordinate_major)
    if source.background == "last":
        value = np.roll(value, 1, axis=1)
    if value.shape[1] == COCO_CATEGORY_IDS[-1] + 1 and shape[0] == (len(COCO_CATEGORY_IDS) + 1) * shapes_a_cell:
        value = value[:, [0, *COCO_CATEGORY_IDS]]
    return value


def copy_expansion(values, shapes):
    """Fills neck.expand from the expansion inside block 14, which it equals in TensorFlow's SSD, where it is absent."""
    for name in [name for name in shapes if name.startswith("neck.expand.")]:
        twin = name.replace("neck.expand.", "backbone.features.14.conv.0.")
        if name not in values and twin in values:
            values[name] = values[twin]
