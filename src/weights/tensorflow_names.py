"""The tensors of TensorFlow's SSDLite-MobileNetV2 (Object Detection API) -> our names and layouts (numpy)."""
import re

import numpy as np

FOLDED_EPSILON = 1e-3  # of the norms these weights fill: variance 1 - epsilon makes the division exactly 1
CELLS = (
    (r"FeatureExtractor/MobilenetV2/Conv/(.*)", lambda m: f"backbone.features.0/full/{m[1]}"),
    (r"FeatureExtractor/MobilenetV2/Conv_1/(.*)", lambda m: f"backbone.features.18/full/{m[1]}"),
    (r"FeatureExtractor/MobilenetV2/expanded_conv(?:_(\d+))?/(expand|depthwise|project)/(.*)",
     lambda m: f"backbone.features.{int(m[1] or 0) + 1}.conv/{m[2] if m[1] else 'first_' + m[2]}/{m[3]}"),
    (r"FeatureExtractor/MobilenetV2/layer_19_1_Conv2d_(\d)_[^/]*/(.*)",
     lambda m: f"neck.extras.{int(m[1]) - 2}.conv/expand/{m[2]}"),
    (r"FeatureExtractor/MobilenetV2/layer_19_2_Conv2d_(\d)_[^/]*_depthwise/(.*)",
     lambda m: f"neck.extras.{int(m[1]) - 2}.conv/depthwise/{m[2]}"),
    (r"FeatureExtractor/MobilenetV2/layer_19_2_Conv2d_(\d)_[^/]*/(.*)",
     lambda m: f"neck.extras.{int(m[1]) - 2}.conv/project/{m[2]}"),
    (r"BoxPredictor_(\d)/BoxEncodingPredictor_depthwise/(.*)", lambda m: f"head.box.{m[1]}/head/{m[2]}"),
    (r"BoxPredictor_(\d)/ClassPredictor_depthwise/(.*)", lambda m: f"head.cls.{m[1]}/head/{m[2]}"),
    (r"BoxPredictor_(\d)/BoxEncodingPredictor/(.*)", lambda m: f"head.box.{m[1]}/out/{m[2]}"),
    (r"BoxPredictor_(\d)/ClassPredictor/(.*)", lambda m: f"head.cls.{m[1]}/out/{m[2]}"),
)
# place of convolution and norm inside the cell that a part of a block is; the first block has no expansion
PLACES = {"full": ("0", "1"), "expand": ("0.0", "0.1"), "depthwise": ("1.0", "1.1"), "project": ("2", "3"),
          "first_depthwise": ("0.0", "0.1"), "first_project": ("1", "2"), "head": ("0", "1"), "out": ("3", "")}
NORM = {"sub": "beta", "mul": "gamma", "beta": "beta", "gamma": "gamma", "moving_mean": "moving_mean",
        "moving_variance": "moving_variance"}


def from_tensorflow(values):
    """{name: array} -> the same with our names, [out, in, kh, kw] weights and whole norms; constants keep their names.

    In the released graphs the norms of backbone and extra levels are folded: what is left of them is a factor (`mul`,
    of depthwise convolutions alone) and a shift (`sub`). Written as a norm of mean 0 and variance 1 they compute the
    same in evaluation; training must freeze them.
    """
    renamed = {}
    for name, value in values.items():
        renamed[place(name)] = layout(name, value)
    for name in [name for name in renamed if name.endswith(".beta")]:
        prefix, count = name[:-len("beta")], renamed[name].shape
        renamed.setdefault(f"{prefix}gamma", np.ones(count, np.float32))
        renamed.setdefault(f"{prefix}moving_mean", np.zeros(count, np.float32))
        renamed.setdefault(f"{prefix}moving_variance", np.full(count, 1 - FOLDED_EPSILON, np.float32))
    return renamed


def place(name):
    """Our name of a tensor; a constant of pre- or post-processing keeps its own."""
    for pattern, replacement in CELLS:
        match = re.fullmatch(pattern, name)
        if match:
            cell, part, tensor = replacement(match).split("/", 2)
            conv, norm = PLACES[part]
            kind = tensor.rsplit("/", 1)[-1]
            if kind in NORM:
                return f"{cell}.{norm}.{NORM[kind]}"
            return f"{cell}.{conv}.{'bias' if kind == 'biases' else 'weight'}"
    return name


def layout(name, value):
    """Weights from height, width, in, out (depthwise: channel, multiplier) to out, in, height, width."""
    if name.endswith("/depthwise_weights"):
        return value.transpose(2, 3, 0, 1)
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
