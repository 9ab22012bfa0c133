"""The tensors of TensorFlow's SSDs with MobileNetV2 (Object Detection API) -> our names and layouts."""
from __future__ import annotations

import re

import numpy as np

FOLDED_EPSILON = 1e-3  # of the norms these weights fill: variance 1 - epsilon makes the division exactly 1
MOBILENET = "FeatureExtractor/MobilenetV2"
SSDLITE_RULES = (  # TensorFlow 1, ssdlite_mobilenet_v2_coco -> cell/part/tensor
    (rf"{MOBILENET}/Conv/(.*)", r"backbone.features.0/full/\1"),
    (rf"{MOBILENET}/Conv_1/(.*)", r"backbone.features.18/full/\1"),
    (rf"{MOBILENET}/expanded_conv/(depthwise|project)/(.*)", r"backbone.features.1.conv/first_\1/\2"),
    (rf"{MOBILENET}/expanded_conv_(\d+)/(expand|depthwise|project)/(.*)",
     lambda m: f"backbone.features.{int(m[1]) + 1}.conv/{m[2]}/{m[3]}"),
    (rf"{MOBILENET}/layer_19_1_Conv2d_(\d)_[^/]*/(.*)", lambda m: f"neck.extras.{int(m[1]) - 2}.conv/expand/{m[2]}"),
    (rf"{MOBILENET}/layer_19_2_Conv2d_(\d)_[^/]*_depthwise/(.*)",
     lambda m: f"neck.extras.{int(m[1]) - 2}.conv/depthwise/{m[2]}"),
    (rf"{MOBILENET}/layer_19_2_Conv2d_(\d)_[^/]*/(.*)", lambda m: f"neck.extras.{int(m[1]) - 2}.conv/project/{m[2]}"),
    (r"BoxPredictor_(\d)/BoxEncodingPredictor_depthwise/(.*)", r"head.box.\1/head/\2"),
    (r"BoxPredictor_(\d)/ClassPredictor_depthwise/(.*)", r"head.cls.\1/head/\2"),
    (r"BoxPredictor_(\d)/BoxEncodingPredictor/(.*)", r"head.box.\1/out/\2"),
    (r"BoxPredictor_(\d)/ClassPredictor/(.*)", r"head.cls.\1/out/\2"),
)
# TensorFlow 2, ssd_mobilenet_v2_fpnlite: the names of the variables, and the keys of its checkpoints. Slots of an
# optimizer have longer names and no place.
KEY_END = "/.ATTRIBUTES/VARIABLE_VALUE"  # of every key
EXTRACTOR, PREDICTOR, KIND = "model/_feature_extractor", "model/_box_predictor", "([a-z_]+)"
FPNLITE_RULES = (
    (rf"(?:bn_)?Conv1/{KIND}", r"backbone.features.0/full/\1"),
    (rf"Conv_1(?:_bn)?/{KIND}", r"backbone.features.18/full/\1"),
    (rf"expanded_conv_(depthwise|project)(?:_BN)?/{KIND}", r"backbone.features.1.conv/first_\1/\2"),
    (rf"block_(\d+)_(expand|depthwise|project)(?:_BN)?/{KIND}",
     lambda m: f"backbone.features.{int(m[1]) + 1}.conv/{m[2]}/{m[3]}"),
    (rf"{EXTRACTOR}/classification_backbone/layer_with_weights-(\d+)/{KIND}",
     lambda m: f"{mobilenet_cell(int(m[1]) // 2)}/{m[2]}"),  # convolution and norm in turn
    (rf".*/FeatureMaps/top_down/projection_(\d)/{KIND}", lambda m: f"neck.lateral.{int(m[1]) - 1}/whole/{m[2]}"),
    (rf"{EXTRACTOR}/_fpn_features_generator/top_layers/0/{KIND}", r"neck.lateral.2/whole/\1"),
    (rf"{EXTRACTOR}/_fpn_features_generator/residual_blocks/(\d)/0/{KIND}",
     lambda m: f"neck.lateral.{1 - int(m[1])}/whole/{m[2]}"),  # from P5 up, as the next
    (rf"{EXTRACTOR}/_fpn_features_generator/conv_layers/(\d)/\d/{KIND}",
     lambda m: f"neck.smooth.{1 - int(m[1])}/separable/{m[2]}"),
    (rf".*/FeatureMaps/top_down/smoothing_(\d)_(?:depthwise_conv|batchnorm)/{KIND}",
     lambda m: f"neck.smooth.{int(m[1]) - 1}/separable/{m[2]}"),
    (rf".*/bottom_up_Conv2d_2(\d)_(?:depthwise_conv|batchnorm)/{KIND}", r"neck.down.\1/separable/\2"),
    (rf"{EXTRACTOR}/_coarse_feature_layers/(\d)/\d/{KIND}", r"neck.down.\1/separable/\2"),
    (rf".*/PredictionTower/conv2d_(\d)/BatchNorm/feature_(\d)/{KIND}", r"head.norms.\2.\1/whole/\3"),
    (rf"{PREDICTOR}/_base_tower_layers_for_heads/box_encodings/(\d)/(\d+)/{KIND}",  # 1, 4, 7, 10
     lambda m: f"head.norms.{m[1]}.{int(m[2]) // 3}/whole/{m[3]}"),
    (rf".*/PredictionTower/(?:conv2d_)?(\d)/{KIND}", r"head.convs.\1/separable/\2"),
    (rf".*/(?:BoxPredictor|_box_encoder_layers/0)/{KIND}", r"head.box_out/separable/\1"),
    (rf".*/(?:ClassPredictor|_class_predictor_layers/0)/{KIND}", r"head.cls_out/separable/\1"),
)
RULES = {"tfjs": SSDLITE_RULES, "tensorflow": FPNLITE_RULES}  # by source
# places of convolution and norm inside the cell that a part of a block is; the first block has no expansion
PLACES = {"full": ("0", "1"), "expand": ("0.0", "0.1"), "depthwise": ("1.0", "1.1"), "project": ("2", "3"),
          "first_depthwise": ("0.0", "0.1"), "first_project": ("1", "2"), "head": ("0", "1"), "out": ("3", ""),
          "separable": ("1", "2"), "whole": ("", "")}
FOLDED = {"sub": "beta", "mul": "gamma"}


def from_tensorflow(arrays: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """The same arrays with our names, weights [out, in, kh, kw] and complete norms; constants keep their names.

    source: of RULES. In the released graphs of SSDLite the norms of backbone and extra levels are folded into a factor
    (`mul`, of depthwise convolutions alone) and a shift (`sub`): norms of mean 0 and variance 1 compute the same.
    Training needs --batch_norm=frozen, or a frozen body: statistics of batches would normalise a second time.
    """
    renamed = {cell_name(name, RULES[source]): channels_first(array, name) for name, array in arrays.items()}
    for name in [name for name in renamed if name.endswith(".beta")]:
        prefix, count = name[:-len("beta")], renamed[name].shape
        renamed.setdefault(f"{prefix}gamma", np.ones(count, np.float32))
        renamed.setdefault(f"{prefix}moving_mean", np.zeros(count, np.float32))
        renamed.setdefault(f"{prefix}moving_variance", np.full(count, 1 - FOLDED_EPSILON, np.float32))
    return renamed


def cell_name(name: str, rules: tuple) -> str:
    """Our name of a tensor; a constant of pre- or post-processing keeps its own."""
    place = apply_rules(name.removesuffix(KEY_END), rules)
    if place is None:
        return name
    cell, block, tensor = place.split("/", 2)
    conv, norm = PLACES[block]
    kind = tensor.rsplit("/", 1)[-1]
    kind = FOLDED.get(kind, kind)
    if kind in ("gamma", "beta", "moving_mean", "moving_variance"):
        inside = norm, kind
    else:
        first = block == "separable" and kind == "depthwise_kernel"
        inside = "0" if first else conv, "bias" if kind in ("bias", "biases") else "weight"
    return ".".join(part for part in (cell, *inside) if part)


def mobilenet_cell(number: int) -> str:
    """cell/part of the convolution of this number in MobileNetV2, counted from 0."""
    if number in (0, 51):
        return f"backbone.features.{18 if number else 0}/full"
    block, part = divmod(number, 3)  # the first block has no expansion: its number 0 is the first convolution
    parts = ("expand", "depthwise", "project") if block else ("", "first_depthwise", "first_project")
    return f"backbone.features.{block + 1}.conv/{parts[part]}"


def apply_rules(name: str, rules: tuple) -> str | None:
    """What the first of the rules (pattern, replacement) that matches all of a name makes of it, None without one."""
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return replacement(match) if callable(replacement) else match.expand(replacement)
    return None


def channels_first(array: np.ndarray, name: str) -> np.ndarray:
    """Weights [kh, kw, in, out], depthwise [kh, kw, channel, multiplier] -> [out, in, kh, kw]; others stay."""
    if name.removesuffix(KEY_END).endswith(("/depthwise_weights", "/depthwise_kernel")):
        return array.transpose(2, 3, 0, 1)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
