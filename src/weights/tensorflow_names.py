"""The tensors of TensorFlow's SSDLite-MobileNetV2 (Object Detection API) -> our names and layouts."""
from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

FOLDED_EPSILON = 1e-3  # of the norms these weights fill: variance 1 - epsilon makes the division exactly 1


def block(match: re.Match) -> str:
    """The cell and the part of expanded_conv (the first block, which has no expansion) or expanded_conv_N."""
    number, part, tensor = match.groups()
    if number is None:
        return f"backbone.features.1.conv/first_{part}/{tensor}"
    return f"backbone.features.{int(number) + 1}.conv/{part}/{tensor}"


def extra(part: str) -> Callable[[re.Match], str]:
    """Replacement of a rule whose first group numbers an extra level, from 2 on."""
    return lambda match: f"neck.extras.{int(match[1]) - 2}.conv/{part}/{match[2]}"


MOBILENET = "FeatureExtractor/MobilenetV2"
CELL_RULES = (  # pattern, cell/part/tensor
    (rf"{MOBILENET}/Conv/(.*)", r"backbone.features.0/full/\1"),
    (rf"{MOBILENET}/Conv_1/(.*)", r"backbone.features.18/full/\1"),
    (rf"{MOBILENET}/expanded_conv(?:_(\d+))?/(expand|depthwise|project)/(.*)", block),
    (rf"{MOBILENET}/layer_19_1_Conv2d_(\d)_[^/]*/(.*)", extra("expand")),
    (rf"{MOBILENET}/layer_19_2_Conv2d_(\d)_[^/]*_depthwise/(.*)", extra("depthwise")),
    (rf"{MOBILENET}/layer_19_2_Conv2d_(\d)_[^/]*/(.*)", extra("project")),
    (r"BoxPredictor_(\d)/BoxEncodingPredictor_depthwise/(.*)", r"head.box.\1/head/\2"),
    (r"BoxPredictor_(\d)/ClassPredictor_depthwise/(.*)", r"head.cls.\1/head/\2"),
    (r"BoxPredictor_(\d)/BoxEncodingPredictor/(.*)", r"head.box.\1/out/\2"),
    (r"BoxPredictor_(\d)/ClassPredictor/(.*)", r"head.cls.\1/out/\2"),
)
# place of convolution and norm inside the cell that a part of a block is; the first block has no expansion
PLACES = {"full": ("0", "1"), "expand": ("0.0", "0.1"), "depthwise": ("1.0", "1.1"), "project": ("2", "3"),
          "first_depthwise": ("0.0", "0.1"), "first_project": ("1", "2"), "head": ("0", "1"), "out": ("3", "")}
NORM = {"sub": "beta", "mul": "gamma", "beta": "beta", "gamma": "gamma", "moving_mean": "moving_mean",
        "moving_variance": "moving_variance"}


def from_tensorflow(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our names, weights [out, in, kh, kw] and complete norms; constants keep their names.

    In the released graphs the norms of backbone and extra levels are folded: what is left of them is a factor (`mul`,
    of depthwise convolutions alone) and a shift (`sub`). Written as a norm of mean 0 and variance 1 they compute the
    same in evaluation; training must freeze them.
    """
    renamed = {cell_name(name): channels_first(name, array) for name, array in arrays.items()}
    for name in [name for name in renamed if name.endswith(".beta")]:
        prefix, count = name[:-len("beta")], renamed[name].shape
        renamed.setdefault(f"{prefix}gamma", np.ones(count, np.float32))
        renamed.setdefault(f"{prefix}moving_mean", np.zeros(count, np.float32))
        renamed.setdefault(f"{prefix}moving_variance", np.full(count, 1 - FOLDED_EPSILON, np.float32))
    return renamed


def cell_name(name: str) -> str:
    """Our name of a tensor; a constant of pre- or post-processing keeps its own."""
    place = apply_rules(name, CELL_RULES)
    if place is None:
        return name
    cell, part, tensor = place.split("/", 2)
    conv, norm = PLACES[part]
    kind = tensor.rsplit("/", 1)[-1]
    if kind in NORM:
        return f"{cell}.{norm}.{NORM[kind]}"
    return f"{cell}.{conv}.bias" if kind == "biases" else f"{cell}.{conv}.weight"


def apply_rules(name: str, rules: tuple) -> str | None:
    """What the first of the rules (pattern, replacement) whose pattern matches all of a name makes of it, or None."""
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return replacement(match) if callable(replacement) else match.expand(replacement)
    return None


def channels_first(name: str, array: np.ndarray) -> np.ndarray:
    """Weights [kh, kw, in, out], depthwise [kh, kw, channel, multiplier] -> [out, in, kh, kw]; others stay."""
    if name.endswith("/depthwise_weights"):
        return array.transpose(2, 3, 0, 1)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
