"""What a checkpoint and an exported file say of themselves, the graphs beside it, and the detectors made of them."""
import json

import mindspore as ms
import numpy as np
import onnx
import pytest
from harness import check_both, fuzz
from hypothesis import strategies as st
from mindspore import nn
from mutations import EDITS, edit_bytes, edit_tree, to_json
from onnx import TensorProto, helper, numpy_helper

from src.config import model_options, read_options
from src.inference.predictor import load_exported, load_model
from src.models.ssd import build_model
from src.progress import quiet
from src.weights import checkpoint

SIZE = 32
FACTS = {"model": "ssd300_mobilenet_v2", "image_size": SIZE, "width": 0.25, "anchor_shapes": [], "clip_anchors": True,
         "classes": ["cat", "dog"], "mean": [123.0, 117.0, 104.0], "std": [1.0, 1.0, 1.0], "score": "sigmoid",
         "min_score": 0.05, "nms_threshold": 0.5, "nms_candidates": 100, "max_boxes": 5, "resize": "bilinear",
         "draw_score": 0.3, "class_scores": {"cat": 0.4}, "version": "1.0"}
FOUND = {"boxes": np.float32([[[0.1, 0.1, 0.5, 0.5], [0, 0, 1, 1]]]), "scores": np.float32([[0.9, 0.2]]),
         "labels": np.int32([[1, 2]]), "count": np.int32([2])}


def graph():
    """An .onnx that finds FOUND in every picture."""
    kinds = {"f": TensorProto.FLOAT, "i": TensorProto.INT32}
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, f"{name}_value"))
        for name, array in FOUND.items()
    ]
    outputs = [
        helper.make_tensor_value_info(name, kinds[array.dtype.kind], array.shape) for name, array in FOUND.items()
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, [1, SIZE, SIZE, 3])
    model = helper.make_model(
        helper.make_graph(nodes, "g", [images], outputs), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exported")


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def test_onnx_and_its_json(folder, examples):
    """A file and its .json, one of them damaged; where both are accepted, a picture goes through."""
    content, path = graph(), str(folder / "x.onnx")
    facts = {**FACTS, "raw": False, "batch_size": 1, "format": "ONNX", "mindspore": ms.__version__,
             "inputs": {"images": {"shape": [1, SIZE, SIZE, 3], "dtype": "uint8"}}}
    picture = np.zeros((20, 30, 3), np.uint8)

    def read_edited(of_json, edits, more):
        text = to_json(edit_tree(facts, edits)) if of_json else to_json(facts)
        write(path, content if of_json else edit_bytes(content, edits))
        write(str(folder / "x.json"), edit_bytes(text, more) if of_json and more else text)
        predict = load_exported(path)
        found = predict.detect(picture)
        if of_json:
            assert len(found.boxes) == 2 and isinstance(json.dumps(predict.meta), str)

    tally = fuzz("ONNX and its json", examples(2000), st.booleans(), EDITS, st.just([]) | EDITS, read=read_edited)
    check_both(tally)


class Constant(nn.Cell):
    """As graph()."""

    def construct(self, images):
        return images.astype(ms.float32).mean()


def test_mindir_and_its_json(folder, examples):
    path = str(folder / "y.mindir")
    ms.export(Constant(), ms.Tensor(np.zeros((1, SIZE, SIZE, 3), np.uint8)), file_name=path[:-7], file_format="MINDIR")
    with open(path, "rb") as file:
        content = file.read()
    facts = {**FACTS, "raw": False, "batch_size": 1, "format": "MINDIR", "mindspore": ms.__version__,
             "inputs": {"images": {"shape": [1, SIZE, SIZE, 3], "dtype": "uint8"}}}

    def read_edited(of_json, edits):
        write(path, content if of_json else edit_bytes(content, edits))
        write(str(folder / "y.json"), to_json(edit_tree(facts, edits) if of_json else facts))
        load_exported(path)

    tally = fuzz("MindIR and its json", examples(1000), st.booleans(), EDITS, read=read_edited)
    check_both(tally)


def test_what_a_checkpoint_says_of_itself(folder, examples):
    """The JSON in a checkpoint, changed and put back: a model is built of it or it is refused."""
    path = str(folder / "z.ckpt")
    network = build_model(FACTS["model"], 3, image_size=SIZE, width=0.25).network
    parameters = list(network.get_parameters())
    options = model_options(read_options([f"--model={FACTS['model']}"], "predict.py"))
    options["defaults"]["classes"] = FACTS["classes"]  # else all models are built to recognise the file
    rows = [{"name": parameter.name, "data": parameter} for parameter in parameters]

    def read_edited(edits, more):
        text = to_json(edit_tree(FACTS, edits))
        text = (edit_bytes(text, more) if more else text).decode("utf-8", "replace")
        with quiet():
            ms.save_checkpoint(rows, path, append_dict={checkpoint.META: text})
        load_model(path, **options)

    tally = fuzz("facts of a checkpoint", examples(300), EDITS, st.just([]) | EDITS, read=read_edited)
    check_both(tally)
