"""The tensors of TensorFlow's SSDs (Object Detection API) -> our names and layouts."""
from __future__ import annotations

import re
from collections.abc import Collection, Iterator

import numpy as np

FOLDED_EPSILON = 1e-3  # of the norms these weights fill: variance 1 - epsilon makes the division exactly 1
V1, V2, RESNET = (f"FeatureExtractor/{network}" for network in ("MobilenetV1", "MobilenetV2", "resnet_v1_50"))
KIND = "([a-z_]+)"
HEAD = {"Box": "box", "BoxEncoding": "box", "Class": "cls"}
LEVELS_DOWN = {"block5": 0, "block6": 1, "Conv2d_14": 0, "Conv2d_15": 1, "Conv2d_20": 0, "Conv2d_21": 1}
DOWN = f"bottom_up_({'|'.join(LEVELS_DOWN)})"
# (pattern, cell/part/tensor). Of several that match a name the one counts whose parameter the network has: two networks
# have a conv1_bn, and what is called BoxEncodingPredictor lies behind a depthwise convolution or does not.
SLIM_RULES = (  # TensorFlow 1
    (rf"{V1}/Conv2d_0/(.*)", r"backbone.features.0/full/\1"),
    (rf"{V1}/Conv2d_(\d+)_(depthwise|pointwise)/(.*)",
     lambda m: f"backbone.features.{2 * int(m[1]) - (m[2] == 'depthwise')}/full/{m[3]}"),
    (rf"{V1}/Conv2d_13_pointwise_([12])_Conv2d_(\d)_[^/]*/(.*)",
     lambda m: f"neck.extras.{int(m[2]) - 2}.{int(m[1]) - 1}/full/{m[3]}"),
    (rf"{V2}/Conv/(.*)", r"backbone.features.0/full/\1"),
    (rf"{V2}/Conv_1/(.*)", r"backbone.features.18/full/\1"),
    (rf"{V2}/expanded_conv/(depthwise|project)/(.*)", r"backbone.features.1.conv/first_\1/\2"),
    (rf"{V2}/expanded_conv_(\d+)/(expand|depthwise|project)/(.*)",
     lambda m: f"backbone.features.{int(m[1]) + 1}.conv/{m[2]}/{m[3]}"),
    (rf"{V2}/layer_19_1_Conv2d_(\d)_[^/]*/(.*)", lambda m: f"neck.extras.{int(m[1]) - 2}.conv/expand/{m[2]}"),
    (rf"{V2}/layer_19_2_Conv2d_(\d)_[^/]*_depthwise/(.*)",
     lambda m: f"neck.extras.{int(m[1]) - 2}.conv/depthwise/{m[2]}"),
    (rf"{V2}/layer_19_2_Conv2d_(\d)_[^/]*/(.*)", lambda m: f"neck.extras.{int(m[1]) - 2}.conv/project/{m[2]}"),
    (rf"{RESNET}/conv1/(.*)", r"backbone/conv1/\1"),
    (rf"{RESNET}/block(\d)/unit_(\d)/bottleneck_v1/shortcut/(.*)",
     lambda m: f"backbone.layer{m[1]}.{int(m[2]) - 1}.downsample/full/{m[3]}"),
    (rf"{RESNET}/block(\d)/unit_(\d)/bottleneck_v1/(conv\d)/(.*)",
     lambda m: f"backbone.layer{m[1]}.{int(m[2]) - 1}/{m[3]}/{m[4]}"),
    (r"FeatureExtractor/[^/]*/fpn/projection_(\d)/(.*)", lambda m: f"neck.lateral.{int(m[1]) - 1}/whole/{m[2]}"),
    (r"FeatureExtractor/[^/]*/fpn/smoothing_(\d)/(.*)", lambda m: f"neck.smooth.{int(m[1]) - 1}/full/{m[2]}"),
    (rf"FeatureExtractor/[^/]*/fpn/{DOWN}/(.*)", lambda m: f"neck.down.{LEVELS_DOWN[m[1]]}/full/{m[2]}"),
    (r"BoxPredictor_(\d)/(BoxEncoding|Class)Predictor_depthwise/(.*)",
     lambda m: f"head.{HEAD[m[2]]}.{m[1]}/head/{m[3]}"),
    (r"BoxPredictor_(\d)/(BoxEncoding|Class)Predictor/(.*)", lambda m: f"head.{HEAD[m[2]]}.{m[1]}/out/{m[3]}"),
    (r"BoxPredictor_(\d)/(BoxEncoding|Class)Predictor/(.*)", lambda m: f"head.{HEAD[m[2]]}.{m[1]}/whole/{m[3]}"),
)
# TensorFlow 2, by the names of the variables; the slots of an optimizer have longer ones and no place
KERAS_RULES = (
    (rf"conv1(?:_bn)?/{KIND}", r"backbone.features.0/full/\1"),
    (rf"conv_(dw|pw)_(\d+)(?:_bn)?/{KIND}",
     lambda m: f"backbone.features.{2 * int(m[2]) - (m[1] == 'dw')}/full/{m[3]}"),
    (rf"(?:bn_)?Conv1/{KIND}", r"backbone.features.0/full/\1"),
    (rf"Conv_1(?:_bn)?/{KIND}", r"backbone.features.18/full/\1"),
    (rf"expanded_conv_(depthwise|project)(?:_BN)?/{KIND}", r"backbone.features.1.conv/first_\1/\2"),
    (rf"block_(\d+)_(expand|depthwise|project)(?:_BN)?/{KIND}",
     lambda m: f"backbone.features.{int(m[1]) + 1}.conv/{m[2]}/{m[3]}"),
    (rf"conv1_(?:conv|bn)/{KIND}", r"backbone/conv1/\1"),
    (rf"conv(\d)_block(\d)_0_(?:conv|bn)/{KIND}",
     lambda m: f"backbone.layer{int(m[1]) - 1}.{int(m[2]) - 1}.downsample/full/{m[3]}"),
    (rf"conv(\d)_block(\d)_([123])_(?:conv|bn)/{KIND}",
     lambda m: f"backbone.layer{int(m[1]) - 1}.{int(m[2]) - 1}/conv{m[3]}/{m[4]}"),
    (rf".*/layer_19_([12])_Conv2d_(\d)_[^/]*_(?:conv|batchnorm)/{KIND}",
     lambda m: f"neck.extras.{int(m[2]) - 2}.{int(m[1]) - 1}/full/{m[3]}"),
    (rf".*/top_down/projection_(\d)/{KIND}", lambda m: f"neck.lateral.{int(m[1]) - 1}/whole/{m[2]}"),
    (rf".*/top_down/smoothing_(\d)_(depthwise_conv|batchnorm)/{KIND}",
     lambda m: f"neck.smooth.{int(m[1]) - 1}/separable/{m[3]}"),
    (rf".*/top_down/smoothing_(\d)_(conv|batchnorm)/{KIND}", lambda m: f"neck.smooth.{int(m[1]) - 1}/full/{m[3]}"),
    (rf".*/{DOWN}_(depthwise_conv|batchnorm)/{KIND}", lambda m: f"neck.down.{LEVELS_DOWN[m[1]]}/separable/{m[3]}"),
    (rf".*/{DOWN}_(conv|batchnorm)/{KIND}", lambda m: f"neck.down.{LEVELS_DOWN[m[1]]}/full/{m[3]}"),
    (rf".*/PredictionTower/conv2d_(\d)/BatchNorm/feature_(\d)/{KIND}", r"head.norms.\2.\1/whole/\3"),
    (rf".*/PredictionTower/conv2d_(\d)/{KIND}", r"head.convs.\1/separable/\2"),
    (rf"BoxPredictor/Convolutional(Box|Class)Head_(\d)/[^/]*/{KIND}",
     lambda m: f"head.{HEAD[m[1]]}.{m[2]}/whole/{m[3]}"),
)
# the towers of both
TOWER_RULES = (
    (rf".*/(Box|Class)PredictionTower/conv2d_(\d)/BatchNorm/feature_(\d)/{KIND}",
     lambda m: f"head.{HEAD[m[1]]}_norms.{m[3]}.{m[2]}/whole/{m[4]}"),
    (rf".*/(Box|Class)PredictionTower/conv2d_(\d)/{KIND}", lambda m: f"head.{HEAD[m[1]]}_convs.{m[2]}/whole/{m[3]}"),
    (rf"WeightShared.*/(Box|Class)Predictor/{KIND}", lambda m: f"head.{HEAD[m[1]]}_out/separable/{m[2]}"),
    (rf"WeightShared.*/(Box|Class)Predictor/{KIND}", lambda m: f"head.{HEAD[m[1]]}_out/whole/{m[2]}"),
)
RULES = {"tfjs": SLIM_RULES, "tensorflow": KERAS_RULES + TOWER_RULES, "tensorflow1": SLIM_RULES + TOWER_RULES}
# places of convolution and norm inside the cell that a part of a block is; the first block has no expansion
PLACES = {"full": ("0", "1"), "expand": ("0.0", "0.1"), "depthwise": ("1.0", "1.1"), "project": ("2", "3"),
          "first_depthwise": ("0.0", "0.1"), "first_project": ("1", "2"), "head": ("0", "1"), "out": ("3", ""),
          "separable": ("1", "2"), "whole": ("", ""),
          **{f"conv{number}": (f"conv{number}", f"bn{number}") for number in (1, 2, 3)}}
WEIGHTS = ("weights", "kernel", "pointwise_kernel", "depthwise_weights", "depthwise_kernel")
CONVOLUTION = {**dict.fromkeys(WEIGHTS, "weight"), "bias": "bias", "biases": "bias"}
NORM = {kind: kind for kind in ("gamma", "beta", "moving_mean", "moving_variance")}
FOLDED = {"sub": "beta", "mul": "gamma", "merged_input": "weights"}


def from_tensorflow(arrays: dict[str, np.ndarray], source: str, known: Collection[str]) -> dict[str, np.ndarray]:
    """The same arrays with our names, weights [out, in, kh, kw] and complete norms; constants keep their names.

    source: of RULES. known: the names of the network's parameters. In the released graphs of TensorFlow.js the norms of
    backbone and extra levels are folded into a factor (`mul`, of depthwise convolutions alone) and a shift (`sub`):
    norms of mean 0 and variance 1 compute the same. Training needs --batch_norm=frozen, or a frozen body: statistics of
    batches would normalise a second time.
    """
    renamed = {our_name(name, source, known): channels_first(array, name) for name, array in arrays.items()}
    for name in [name for name in renamed if name.endswith(".beta")]:
        prefix, count = name[:-len("beta")], renamed[name].shape
        renamed.setdefault(f"{prefix}gamma", np.ones(count, np.float32))
        renamed.setdefault(f"{prefix}moving_mean", np.zeros(count, np.float32))
        renamed.setdefault(f"{prefix}moving_variance", np.full(count, 1 - FOLDED_EPSILON, np.float32))
    return renamed


def our_name(name: str, source: str, known: Collection[str]) -> str:
    """Our name of a tensor, one of the known ones if there is a choice; a constant or a slot keeps its own."""
    candidates = list(possible_names(name, source))
    return next((candidate for candidate in candidates if candidate in known), candidates[0] if candidates else name)


def possible_names(name: str, source: str) -> Iterator[str]:
    """What the rules that match a name make of it."""
    for rule in RULES[source]:
        place = apply_rules(name, (rule,))
        cell, block, tensor = place.split("/", 2) if place else ("", "whole", "")
        kind = tensor.rsplit("/", 1)[-1]
        conv, norm = PLACES[block]
        if block == "separable" and kind == "depthwise_kernel":
            conv = "0"
        if source == "tfjs":
            kind = FOLDED.get(kind, kind)
        for place, kinds in ((conv, CONVOLUTION), (norm, NORM)):
            if kind in kinds:
                yield ".".join(part for part in (cell, place, kinds[kind]) if part)


def apply_rules(name: str, rules: tuple) -> str | None:
    """What the first of the rules (pattern, replacement) that matches all of a name makes of it, None without one."""
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return replacement(match) if callable(replacement) else match.expand(replacement)
    return None


def channels_first(array: np.ndarray, name: str) -> np.ndarray:
    """Weights [kh, kw, in, out], depthwise [kh, kw, channel, multiplier] -> [out, in, kh, kw]; others stay."""
    if name.endswith(("/depthwise_weights", "/depthwise_kernel")):
        return array.transpose(2, 3, 0, 1)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
