"""Against real outputs of mmdetection's SSD300 and SSD512, of seeded weights: mmdetection.json says which versions.

Their names are written here from ours, part by part; none of the rules that read them is used.
"""
import json
import os
import re
import zlib

import mindspore as ms
import numpy as np
import pytest

from src.boxes import to_corners
from src.config import model_options, read_options
from src.inference.predictor import load_model
from src.models.detector import Detector
from src.models.layers import Normalize
from src.models.ssd import build_model
from src.weights.files import open_weights
from src.weights.recognise import import_command

with open(os.path.join(os.path.dirname(__file__), "mmdetection.json"), encoding="utf-8") as file:
    EXPECTED = json.load(file)
MODELS = {300: "ssd300_vgg16", 512: "ssd512_vgg16"}
CLASSES = 4  # with the background, which is their last


def their_name(name):
    """The name in mmdetection of one of our parameters."""
    extra = re.fullmatch(r"neck\.extras\.(\d)\.([02])\.(.*)", name)
    if extra:
        return f"neck.extra_layers.{extra[1]}.{int(extra[2]) // 2}.conv.{extra[3]}"
    for ours, theirs in (("head.cls.", "bbox_head.cls_convs."), ("head.box.", "bbox_head.reg_convs.")):
        if name.startswith(ours):
            level, kind = name.removeprefix(ours).split(".")
            return f"{theirs}{level}.0.{kind}"
    return name.replace("backbone.l2_norm", "neck.l2_norm")


def draw(name, shape):
    """Seeded numbers of one of their tensors, small enough in the last layers for scores between 0 and 1."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("l2_norm.weight"):
        return rng.uniform(5, 15, shape).astype(np.float32)
    if len(shape) == 1:
        return rng.normal(0, 0.1, shape).astype(np.float32)
    factor = 0.01 if name.startswith("bbox_head") and "_convs.0." not in name else 1
    return rng.normal(0, factor * (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)


@pytest.mark.parametrize("size", MODELS)
def test_a_detector(size, tmp_path):
    """Anchors, outputs and detections of a file with their names."""
    shapes = {one.name: one.shape for one in build_model(MODELS[size], CLASSES).network.get_parameters()}
    path = str(tmp_path / "theirs.npz")
    np.savez(path, **{their_name(name): draw(their_name(name), shape) for name, shape in shapes.items()})
    assert f"--from=mmdetection --model={MODELS[size]} " in import_command(open_weights(path))
    model, facts = load_model(path, **model_options(read_options([f"--model={MODELS[size]}", "--classes=a,b,c"])))
    assert facts["clip_before_nms"] and not facts["clip_anchors"] and facts["mean"] == [123.675, 116.28, 103.53]
    expected = {name: np.array(values) for name, values in EXPECTED[str(size)].items()}
    rows, background_first = expected["rows"], [3, 0, 1, 2]
    assert np.abs(to_corners(model.anchors)[rows] * size - expected["anchors"]).max() < 1e-3
    small = np.random.default_rng(size).integers(0, 256, (size // 4, size // 4, 3), np.uint8)
    images = ms.Tensor(small.repeat(4, 0).repeat(4, 1)[None])
    logits, deltas = model.network.set_train(False)(Normalize(model.mean, model.std)(images))
    assert np.abs(logits.asnumpy()[0, rows] - expected["logits"][:, background_first]).max() < 1e-4
    assert np.abs(deltas.asnumpy()[0, rows] - expected["deltas"]).max() < 1e-4
    assert abs(logits.asnumpy().astype(np.float64).sum() - expected["logit_sum"]) < 0.05
    detector = Detector(model, min_score=facts["min_score"], nms_threshold=facts["nms_threshold"],
                        topk_candidates=5000, max_boxes=facts["max_boxes"])  # they take 1000 of each level
    box, score, label, count = (output.asnumpy()[0] for output in detector.finish(logits, deltas))
    assert count == expected["count"] and np.abs(score[:30] - expected["scores"]).max() < 1e-4
    assert np.array_equal(label[:30] - 1, expected["labels"])
    assert np.abs(box[:30] * size - expected["boxes"]).max() < 0.01
