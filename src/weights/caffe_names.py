"""The layers of Caffe's SSDs -> our names and layouts.

VGG-16 by the paper's authors (https://github.com/weiliu89/caffe/tree/ssd, examples/ssd), MobileNet-SSD by chuanqi305
(https://github.com/chuanqi305/MobileNet-SSD, deploy.prototxt). Arrays are named LAYER.INDEX.
"""
from __future__ import annotations

import re

import numpy as np

NORM_EPS = 1e-5                     # of Caffe's BatchNorm, and of the norms that these weights fill
VGG_STAGES = (0, 5, 10, 17, 24)     # number of each stage's first convolution in VGG16.features
VGG_LEVELS = ("conv4_3_norm", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2", "conv10_2")
MOBILE_LEVELS = ("conv11", "conv13", "conv14_2", "conv15_2", "conv16_2", "conv17_2")
# PriorBox has both squares in front of the aspect ratios, ssd300_mobilenet_v1 the second one behind them
SQUARES_APART = [0, 2, 3, 4, 5, 1]
INPUTS = ("conv1_1", "conv0")       # convolutions of the pixels, in which blue comes first


def from_caffe(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays with our names, for RGB; names of other layers stay.

    BatchNorm and Scale become one norm. Where both are merged into the convolution, the norm only adds its bias:
    training needs --batch_norm=frozen, or a frozen body.
    """
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        layer, _, index = name.rpartition(".")
        layers.setdefault(layer, {})[index] = array
    mobile, converted = "conv0" in layers, {}
    for layer, values in layers.items():
        cell = (mobile_cell if mobile else vgg_cell)(re.sub("/(bn|scale)$", "", layer))
        if cell is None or "0" not in values:
            converted.update({f"{layer}.{index}": array for index, array in values.items()})
            continue
        if layer in INPUTS:
            values = {**values, "0": values["0"][:, ::-1]}
        if not mobile or "_mbox_" in layer:
            converted.update(conv_arrays(cell, values, squares_apart=mobile))
        elif not layer.endswith(("/bn", "/scale")):
            converted.update(norm_arrays(cell, values, [layers.get(f"{layer}/{kind}", {}) for kind in ("bn", "scale")]))
    return converted


def vgg_cell(layer: str) -> str | None:
    """Where a layer of SSD's VGG-16 is here, None for others."""
    if layer in ("fc6", "fc7", "conv4_3_norm"):
        return {"fc6": "backbone.features.31", "fc7": "backbone.features.33"}.get(layer, "backbone.l2_norm")
    match = re.fullmatch(r"conv(\d+)_(\d)", layer)
    stage, number = map(int, match.groups()) if match else (0, 0)
    if 1 <= stage <= 5:
        return f"backbone.features.{VGG_STAGES[stage - 1] + 2 * (number - 1)}"
    return f"neck.extras.{stage - 6}.{2 * (number - 1)}" if stage else head_cell(layer, VGG_LEVELS)


def mobile_cell(layer: str) -> str | None:
    """Where a layer of MobileNet-SSD is here, None for others."""
    block = re.fullmatch(r"conv(\d+)(/dw)?", layer)
    if block:
        return f"backbone.features.{max(2 * int(block[1]) - bool(block[2]), 0)}"
    extra = re.fullmatch(r"conv(1[4-7])_([12])", layer)
    return f"neck.extras.{int(extra[1]) - 14}.{int(extra[2]) - 1}" if extra else head_cell(layer, MOBILE_LEVELS)


def head_cell(layer: str, levels: tuple[str, ...]) -> str | None:
    """Where a layer that predicts from one of the levels is here, None for others."""
    level, _, kind = layer.rpartition("_mbox_")
    kinds = {"loc": "box", "conf": "cls"}
    return f"head.{kinds[kind]}.{levels.index(level)}" if level in levels and kind in kinds else None


def conv_arrays(cell: str, values: dict[str, np.ndarray], *, squares_apart: bool) -> dict[str, np.ndarray]:
    """Weight and bias of a layer {index: array}. squares_apart: of a head, for the order of ssd300_mobilenet_v1."""
    weight, bias = values["0"], values.get("1")
    arrays = {f"{cell}.weight": weight.reshape(-1) if cell.endswith("l2_norm") else weight}
    if bias is not None:
        arrays[f"{cell}.bias"] = bias.reshape(-1)
    if not squares_apart or cell.endswith(".0"):  # the first level has one square
        return arrays
    return {name: array.reshape(6, -1, *array.shape[1:])[SQUARES_APART].reshape(array.shape)
            for name, array in arrays.items() if len(array) % 6 == 0}


def norm_arrays(cell: str, values: dict[str, np.ndarray], norms: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """A convolution and the norm behind it. norms: BatchNorm (sums, and their weight) and Scale, or {} for a bias."""
    arrays, (norm, scale) = {f"{cell}.0.weight": values["0"]}, norms
    channels = len(values["0"])
    if norm.keys() >= {"0", "1", "2"} and scale.keys() >= {"0", "1"}:
        factor = float(norm["2"].reshape(-1)[0])
        share = 1 / factor if factor else 0.0
        kinds = {"moving_mean": norm["0"] * share, "moving_variance": norm["1"] * share, "gamma": scale["0"],
                 "beta": scale["1"]}
    else:
        kinds = {"moving_mean": np.zeros(channels), "moving_variance": np.full(channels, 1 - NORM_EPS),
                 "gamma": np.ones(channels), "beta": values.get("1", np.zeros(channels))}
    return {**arrays, **{f"{cell}.1.{kind}": array.reshape(-1).astype(np.float32) for kind, array in kinds.items()}}
