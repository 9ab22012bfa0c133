"""The tensors of TensorFlow's SSDLite-MobileNetV2 (Object Detection API) -> our names and layouts."""
from __future__ import annotations

import re

import numpy as np

FOLDED_EPSILON = 1e-3  # of the norms these weights fill: variance 1 - epsilon makes the division exactly 1
MOBILENET = "FeatureExtractor/MobilenetV2"
CELL_RULES = (  # -> cell/part/tensor
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
# places of convolution and norm inside the cell that a part of a block is; the first block has no expansion
PLACES = {"full": ("0", "1"), "expand": ("0.0", "0.1"), "depthwise": ("1.0", "1.1"), "project": ("2", "3"),
          "first_depthwise": ("0.0", "0.1"), "first_project": ("1", "2"), "head": ("0", "1"), "out": ("3", "")}
FOLDED = {"sub": "beta", "mul": "gamma"}


def from_tensorflow(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays with our names, weights [out, in, kh, kw] and complete norms; constants keep their names.

    In the released graphs the norms of backbone and extra levels are folded into a factor (`mul`, of depthwise
    convolutions alone) and a shift (`sub`): norms of mean 0 and variance 1 compute the same. Training needs
    --batch_norm=frozen, or a frozen body: statistics of batches would normalise a second time.
    """
    renamed = {cell_name(name): channels_first(array, name) for name, array in arrays.items()}
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
    kind = FOLDED.get(kind, kind)
    if kind in ("gamma", "beta", "moving_mean", "moving_variance"):
        return f"{cell}.{norm}.{kind}"
    return f"{cell}.{conv}.bias" if kind == "biases" else f"{cell}.{conv}.weight"


def apply_rules(name: str, rules: tuple) -> str | None:
    """What the first of the rules (pattern, replacement) that matches all of a name makes of it, None without one."""
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return replacement(match) if callable(replacement) else match.expand(replacement)
    return None


def channels_first(array: np.ndarray, name: str) -> np.ndarray:
    """Weights [kh, kw, in, out], depthwise [kh, kw, channel, multiplier] -> [out, in, kh, kw]; others stay."""
    if name.endswith("/depthwise_weights"):
        return array.transpose(2, 3, 0, 1)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
