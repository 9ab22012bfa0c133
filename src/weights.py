"""Names and layouts of other people's checkpoints (numpy): rules that turn them into ours."""
import re

import numpy as np

# (pattern, replacement) in order; the first that matches a whole name wins. Left: model zoo official/cv/SSD and its
# ImageNet backbones; right: this repository.
MODEL_ZOO = {
    "ssd_resnet50_fpn": (
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
        (r"((?:conv1|bn1|layer\d)\..*)", r"backbone.\1"),
    ),
    "ssd300_mobilenet_v2": (
        (r"(?:network\.)?backbone\.expand_layer_conv_13\.features\.(.*)", r"neck.expand.\1"),
        (r"(?:network\.)?backbone\.features_1\.(.*)", r"backbone.features.\1"),
        (r"(?:network\.)?backbone\.features_2\.(\d)\.(.*)", lambda m: f"backbone.features.{int(m[1]) + 14}.{m[2]}"),
        (r"(?:network\.)?multi_residual\.(.*)", r"neck.extras.\1"),
        (r"(?:network\.)?multi_box\.multi_loc_layers\.(.*)", r"head.box.\1"),
        (r"(?:network\.)?multi_box\.multi_cls_layers\.(.*)", r"head.cls.\1"),
        (r"(features\.\d+\..*)", r"backbone.\1"),
    ),
}
# the model zoo wraps convolution and norm in a cell called `features`; `backbone.features` is ours
WRAPPER = re.compile(r"(?<!backbone)\.features\.([01])\.")
BOX_OUTPUT = re.compile(r"head\.box(_out|\.\d+\.3)\.(weight|bias)")
CLASS_OUTPUT = re.compile(r"head\.cls(_out|\.\d+\.3)\.(weight|bias)")


def from_model_zoo(model, values):
    """Renames a model-zoo checkpoint {name: array}; names without a rule stay as they are.

    Box layers of whole detectors are turned from y-first to x-first (dy, dx, dh, dw -> dx, dy, dw, dh).
    """
    renamed = {}
    for name, value in values.items():
        ours = rename(name, MODEL_ZOO.get(model, ()))
        if ours != name and BOX_OUTPUT.fullmatch(ours):
            value = value.reshape(-1, 4, *value.shape[1:])[:, [1, 0, 3, 2]].reshape(value.shape)
        renamed[ours] = np.ascontiguousarray(value)
    return renamed


def rename(name, rules):
    """The name after the first rule that matches all of it."""
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            name = replacement(match) if callable(replacement) else match.expand(replacement)
            return WRAPPER.sub(r".\1.", name.replace("down_sample_layer", "downsample"))
    return name


def is_class_output(name):
    """Whether a parameter of ours depends on the list of classes."""
    return CLASS_OUTPUT.fullmatch(name) is not None
