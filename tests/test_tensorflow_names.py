"""Small detectors of TensorFlow 1: to the names that its model zoo publishes and back, and against recorded outputs.

The names are written here from ours, part by part; none of the rules that read them is used. tensorflow1.json has
outputs of TensorFlow's Object Detection API with seeded weights; the backbones inside were written after TF-slim, all
else is its own.
"""
import json
import os
import zlib

import mindspore as ms
import numpy as np
import pytest
from weight_writers import constant, raw_tensor, save_bundle, write

from src.boxes import to_corners
from src.errors import OptionError
from src.models.detector import Detector
from src.models.layers import Normalize
from src.models.ssd import build_model
from src.weights.files import WeightFile, open_weights
from src.weights.load import assign, check_version, translate_weights
from src.weights.recognise import recognise

V1, V2 = "FeatureExtractor/MobilenetV1/", "FeatureExtractor/MobilenetV2/"
EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 128))  # channels of the 1x1 and the 3x3 of the extra levels
CLASSES = 91

with open(os.path.join(os.path.dirname(__file__), "tensorflow1.json"), encoding="utf-8") as recorded:
    EXPECTED = json.load(recorded)
Y_FIRST = [1, 0, 3, 2]


def extra(level, step):
    """The end of the name of an extra convolution: step 1 reduces, step 2 halves the map."""
    return f"{step}_Conv2d_{level + 2}_" + ("1x1_" if step == 1 else "3x3_s2_") + str(EXTRAS[level][step - 1])


def heads(depthwise):
    """{scope: (convolution, norm)} of the predictors."""
    scopes = {}
    for ours, theirs in (("box", "BoxEncoding"), ("cls", "Class")):
        for level in range(6):
            scope = f"BoxPredictor_{level}/{theirs}Predictor"
            scopes[scope] = (f"head.{ours}.{level}.3" if depthwise else f"head.{ours}.{level}", None)
            if depthwise:
                scopes[f"{scope}_depthwise"] = f"head.{ours}.{level}.0", f"head.{ours}.{level}.1"
    return scopes


def mobilenet_v1():
    """{scope: (convolution, norm)} of ssd_mobilenet_v1_coco."""
    cells = {f"{V1}Conv2d_0": "backbone.features.0"}
    for block in range(1, 14):
        cells[f"{V1}Conv2d_{block}_depthwise"] = f"backbone.features.{2 * block - 1}"
        cells[f"{V1}Conv2d_{block}_pointwise"] = f"backbone.features.{2 * block}"
    for level in range(4):
        for step in (1, 2):
            cells[f"{V1}Conv2d_13_pointwise_{extra(level, step)}"] = f"neck.extras.{level}.{step - 1}"
    return {**{scope: (f"{cell}.0", f"{cell}.1") for scope, cell in cells.items()}, **heads(depthwise=False)}


def mobilenet_v2(depthwise):
    """{scope: (convolution, norm)} of ssd_mobilenet_v2_coco, and with depthwise of ssdlite_mobilenet_v2_coco."""
    scopes = {f"{V2}Conv": "backbone.features.0 0 1", f"{V2}Conv_1": "backbone.features.18 0 1",
              f"{V2}expanded_conv/depthwise": "backbone.features.1.conv 0.0 0.1",
              f"{V2}expanded_conv/project": "backbone.features.1.conv 1 2"}
    for block in range(1, 17):
        for part, places in (("expand", "0.0 0.1"), ("depthwise", "1.0 1.1"), ("project", "2 3")):
            scopes[f"{V2}expanded_conv_{block}/{part}"] = f"backbone.features.{block + 1}.conv {places}"
    for level in range(4):
        cell = f"neck.extras.{level}.conv"
        scopes[f"{V2}layer_19_{extra(level, 1)}"] = f"{cell} 0.0 0.1"
        scopes[f"{V2}layer_19_{extra(level, 2)}_depthwise"] = f"{cell} 1.0 1.1"
        scopes[f"{V2}layer_19_{extra(level, 2)}"] = f"{cell} 2 3"
    cells = {scope: tuple(f"{text.split()[0]}.{place}" for place in text.split()[1:]) for scope, text in scopes.items()}
    return {**cells, **heads(depthwise)}


DETECTORS = {"ssd300_mobilenet_v1_tf1": mobilenet_v1(), "ssd300_mobilenet_v2_tf1": mobilenet_v2(depthwise=False),
             "ssd300_mobilenet_v2_tf": mobilenet_v2(depthwise=True)}


def draw(network):
    """Numbers for all parameters; the level that TensorFlow takes from inside block 14 has those of the block."""
    rng = np.random.default_rng(0)
    ours = {one.name: rng.normal(size=one.shape).astype(np.float32) for one in network.get_parameters()}
    return {name: ours.get(name.replace("neck.expand.", "backbone.features.14.conv.0."), array)
            for name, array in ours.items()}


def theirs(ours, scopes):
    """Our arrays by their names, in their layouts."""
    arrays = {}
    for scope, (conv, norm) in scopes.items():
        weight = ours[f"{conv}.weight"]
        if "BoxEncodingPredictor" in scope and "depthwise" not in scope:  # theirs is y first
            weight = weight.reshape(-1, 4, *weight.shape[1:])[:, [1, 0, 3, 2]].reshape(weight.shape)
        if weight.shape[1] == 1:
            arrays[f"{scope}/depthwise_weights"] = weight.transpose(2, 3, 0, 1)
        else:
            arrays[f"{scope}/weights"] = weight.transpose(2, 3, 1, 0)
        if norm is None:
            bias = ours[f"{conv}.bias"]
            swap = "BoxEncoding" in scope
            arrays[f"{scope}/biases"] = bias.reshape(-1, 4)[:, [1, 0, 3, 2]].reshape(-1) if swap else bias
        else:
            arrays.update({f"{scope}/BatchNorm/{kind}": ours[f"{norm}.{kind}"]
                           for kind in ("gamma", "beta", "moving_mean", "moving_variance")})
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


@pytest.mark.parametrize("model", DETECTORS)
def test_there_and_back(model, tmp_path):
    network = build_model(model, CLASSES).network
    ours = draw(network)
    stored = theirs(ours, DETECTORS[model])
    momentum = {f"{name}/Momentum": array + 1 for name, array in stored.items() if name.endswith("/biases")}
    path = save_bundle(tmp_path / "model.ckpt", {**stored, **momentum, "global_step": np.array(5)})
    file = open_weights(path)
    found = recognise(file, ("ssd300_mobilenet_v2", "ssd300_mobilenet_v2_tf2", *DETECTORS))
    assert (found.model, found.source, found.classes) == (model, "tensorflow1", CLASSES - 1)
    report = assign(network, translate_weights(network, file))
    assert report.complete and sorted(report.unused) == sorted(momentum)
    for one in network.get_parameters():
        assert np.array_equal(one.asnumpy(), ours[one.name]), one.name


def seeded(name, shape):
    """Numbers of an array, by the name that TensorFlow gives it."""
    rng, kind = np.random.default_rng(zlib.crc32(name.encode())), name.rsplit("/", 1)[-1]
    if kind in ("gamma", "moving_variance"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if kind in ("beta", "moving_mean", "biases"):
        return rng.normal(0, 0.2, shape).astype(np.float32)
    inputs = shape[0] * shape[1] * (1 if kind == "depthwise_weights" else shape[2])
    gain = 1 if name.startswith("BoxPredictor") else 2
    return rng.normal(0, gain ** 0.5 / inputs ** 0.5, shape).astype(np.float32)


@pytest.mark.parametrize("name", DETECTORS)
def test_outputs_are_those_of_tensorflow(name):
    expected = {key: np.array(value) for key, value in EXPECTED[name].items()}
    model = build_model(name, CLASSES)
    names = theirs(draw(model.network), DETECTORS[name])
    assert len(names) == expected["variables"]
    file = WeightFile("a", "tensorflow", {key: seeded(key, array.shape) for key, array in names.items()}, {})
    assert assign(model.network, translate_weights(model.network, file)).complete
    small = np.random.default_rng(300).integers(0, 256, (75, 75, 3), np.uint8)
    pixels = Normalize(model.mean, model.std)(ms.Tensor(small.repeat(4, 0).repeat(4, 1)[None]))
    logits, deltas = model.network.set_train(False)(pixels)
    rows, columns = expected["rows"], expected["columns"]
    for ours, kind, part in ((logits.asnumpy()[0], "logit", expected["logits"]),
                             (deltas.asnumpy()[0][:, Y_FIRST], "box", expected["boxes"])):
        shown = ours[rows][:, columns] if kind == "logit" else ours[rows]
        assert np.abs(shown - part).max() < 5e-5 * max(np.abs(part).max(), 1), kind
        assert np.square(ours, dtype=np.float64).sum() == pytest.approx(expected[f"{kind}_squares"], rel=1e-5)
    corners = to_corners(model.anchors)[rows][:, Y_FIRST]
    assert np.abs(corners - expected["anchors"]).max() < 1e-6
    detector = Detector(model, min_score=1e-8, nms_threshold=0.6, topk_candidates=2000, max_boxes=100)
    box, score, label, count = (output.asnumpy()[0] for output in detector.finish(logits, deltas))
    assert count == expected["count"] and np.abs(score[:30] - expected["scores"]).max() < 1e-5
    for row, (right, place) in enumerate(zip(expected["classes"] + 1, expected["corners"])):
        near = np.abs(score - expected["scores"][row]) < 1e-5  # near scores may change places
        same = near & (label == right) & (np.abs(box[:, Y_FIRST] - place).max(1) < 1e-4)
        assert same.any(), f"row {row}"


def test_a_frozen_graph_is_a_detector_too(tmp_path):
    model = "ssd300_mobilenet_v2_tf"
    network = build_model(model, CLASSES).network
    ours = draw(network)
    path = str(tmp_path / "frozen_inference_graph.pb")
    write(path, b"".join(constant(name.encode(), raw_tensor(array))
                         for name, array in theirs(ours, DETECTORS[model]).items()))
    file = open_weights(str(tmp_path))
    assert file.kind == "tensorflow"
    assert assign(network, translate_weights(network, file)).complete
    assert all(np.array_equal(one.asnumpy(), ours[one.name]) for one in network.get_parameters())


def test_weights_of_the_other_version_are_refused():
    for model, source, right in (("ssd_resnet50_fpn_tf2", "tensorflow1", "ssd_resnet50_fpn_tf1"),
                                 ("ssd_mobilenet_v1_fpn_tf1", "tensorflow", "ssd_mobilenet_v1_fpn_tf2")):
        with pytest.raises(OptionError, match=f"model={model}: .*; use --model={right}$"):
            check_version(model, source)
        check_version(right, source)
    for model, source in (("ssd300_mobilenet_v2_tf", "tensorflow1"), ("ssd300_vgg16", "caffe"),
                          ("ssd_resnet50_fpn_tf2", "ours")):
        check_version(model, source)


def test_arrays_of_another_rank_are_weights_of_another_network():
    network = build_model("ssd300_mobilenet_v1_tf1", 3).network
    stored = {f"{V1}Conv2d_1_depthwise/depthwise_weights": np.ones((3, 3), np.float32),
              f"{V1}Conv2d_0/weights": np.ones((1, 1, 1, 1, 1), np.float32),
              f"{V1}Conv2d_0/BatchNorm/gamma": np.ones(32, np.float32)}
    report = assign(network, translate_weights(network, WeightFile("x", "tensorflow", stored, {})))
    assert report.loaded == ["backbone.features.0.1.gamma"] and len(report.skipped) == 2
