"""ONNX files: what they compute, what they say of themselves, and what is refused."""
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import mindspore as ms
import numpy as np
import onnx
import pytest
from programs import CLASSES, COCO_NAMES, ROOT, read_json, run, succeed

from bench.drawn import draw_weights
from src.config import model_options, read_options
from src.data.images import read_image
from src.errors import DataError, EnvironmentFault, OptionError
from src.export.exporter import export_model, refuse_neighbour
from src.export.onnx import trace
from src.inference.description import describe
from src.inference.onnx_session import import_optional, open_session
from src.inference.predictor import from_model, load_exported, load_model
from src.models.detector import RawDetector
from src.models.ssd import BUILDERS, build_model
from src.weights import checkpoint

THRESHOLDS = {"min_score": 0.3, "nms_threshold": 0.5, "nms_candidates": 1000, "max_boxes": 300, "resize": "bilinear"}
STANDARD = ("", "ai.onnx")  # names of the operator set every runtime has


def landscape(size):
    """A picture of smooth colours [S, S, 3] uint8."""
    small = np.random.default_rng(3).integers(0, 256, (9, 9, 3), np.uint8)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)


def sharp_model(name, num_classes, image_size=0, width=1.0):
    """A model that finds boxes of spread scores in the landscape."""
    model = build_model(name, num_classes, image_size=image_size, width=width)
    return draw_weights(model, landscape(model.image_size)[None])


def assert_same(one, two, tolerance):
    """Asserts that two lists of rows (numbers that agree exactly, score, box) hold the same, in any order.

    Scores may lie closer than either side rounds, so the order says nothing.
    """
    keys, scores, boxes = (np.array(column) for column in two)
    assert len(one[1]) == len(scores)
    for key, score, box in zip(*one):
        near = (abs(scores - score) < 1e-4) & (abs(boxes - box).max(axis=1) < tolerance)
        assert (near & (keys == key).reshape(len(keys), -1).all(axis=1)).any()


@pytest.fixture(scope="module")
def narrow():
    """A small model, which several tests share, and its description."""
    model = sharp_model("ssd300_mobilenet_v2", len(CLASSES) + 1, 64, 0.25)
    return model, describe(model, CLASSES, THRESHOLDS)


@pytest.fixture(scope="module")
def exported_onnx(tmp_path_factory):
    """The small model through export.py, for batches of 3: its checkpoint, its .onnx, the output."""
    model = sharp_model("ssd300_mobilenet_v2", len(CLASSES) + 1, 64, 0.25)
    folder = tmp_path_factory.mktemp("onnx")
    path = folder / "sharp.ckpt"
    facts = describe(model, CLASSES, {**THRESHOLDS, "min_score": 0.8})  # few boxes, none of them a matter of rounding
    checkpoint.save(str(path), list(model.network.get_parameters()), facts)
    text = succeed(SimpleNamespace(folder=folder), "export.py", f"--checkpoint_file_path={path}", "--file_format=ONNX",
                   "--file_name=ssd", "--export_batch_size=3")
    return SimpleNamespace(checkpoint=path, path=folder / "ssd.onnx", text=text, folder=folder)


def operator_sets(path):
    """The operator sets that a file names, (domain, version) one by one; the file must pass onnx.checker."""
    onnx.checker.check_model(str(path), full_check=True)
    return [(one.domain, one.version) for one in onnx.load(path).opset_import]


def documented_operators():
    """The operators that docs/export.md names."""
    text = Path(ROOT, "docs", "export.md").read_text(encoding="utf-8")
    return set(re.search("standard domain, nothing else: (.*?)\\. A model", text, re.DOTALL).group(1).split())


# --- the programs

def test_the_file_describes_itself(exported_onnx):
    meta = read_json(exported_onnx.path.with_suffix(".json"))
    assert "loaded again and compared" in exported_onnx.text and meta["largest_difference"] <= 1e-4
    assert (meta["format"], meta["opset"], meta["batch_size"]) == ("ONNX", {"ai.onnx": 11}, 3)
    assert operator_sets(exported_onnx.path) == [("", 11)]
    graph = onnx.load(exported_onnx.path)
    assert {node.op_type for node in graph.graph.node} == set(meta["operators"]) > {"Conv", "NonMaxSuppression"}
    assert set(meta["operators"]) <= documented_operators()
    assert all(node.domain in STANDARD for node in graph.graph.node)
    session = open_session(str(exported_onnx.path))
    types = {"boxes": "tensor(float)", "scores": "tensor(float)", "labels": "tensor(int32)", "count": "tensor(int32)"}
    assert {one.name: one.type for one in session.get_outputs()} == types
    assert [(one.name, one.type, one.shape) for one in session.get_inputs()] == [
        ("images", "tensor(uint8)", [3, 64, 64, 3])]
    assert sorted(one.name for one in exported_onnx.folder.iterdir()) == ["sharp.ckpt", "ssd.json", "ssd.onnx"]


def test_the_file_scores_as_the_checkpoint(place, exported_onnx):
    # three batches of 3 for seven pictures
    for file, out in ((exported_onnx.checkpoint, "a"), (exported_onnx.path, "b")):
        succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={file}", f"--output_path={place.folder / out}")
    one, two = (read_json(place.folder, out, "eval", "metrics.json") for out in "ab")
    for name in COCO_NAMES:
        assert one[name] == pytest.approx(two[name], abs=1e-6)
    rows = [read_json(place.folder, out, "eval", "detections.json") for out in "ab"]
    assert len(rows[0]) > 70
    assert_same(*([[(row["image_id"], row["category_id"]) for row in one], [row["score"] for row in one],
                   [row["bbox"] for row in one]] for one in rows), tolerance=1e-2)


def test_pictures_are_predicted(place, exported_onnx):
    picture = exported_onnx.folder.parent / "landscape.png"
    cv2.imwrite(str(picture), landscape(100))
    succeed(place, "predict.py", f"--checkpoint_file_path={exported_onnx.path}", f"--source={picture}",
            "--output_path=found_by_onnx")
    assert read_json(place.folder, "found_by_onnx", "predictions.json")[0]["objects"]


def test_a_damaged_file_ends_in_one_line(place, exported_onnx, tmp_path):
    (tmp_path / "cut.onnx").write_bytes(exported_onnx.path.read_bytes()[:100000])
    shutil.copy(exported_onnx.path.with_suffix(".json"), tmp_path / "cut.json")
    done = run(place, "eval.py", *place.data, f"--checkpoint_file_path={tmp_path / 'cut.onnx'}")
    assert done.returncode == 3 and "cut.onnx' or its .json is damaged" in done.stderr, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


# --- files that do not fit

def test_missing_and_foreign_files(exported_onnx, tmp_path):
    path = shutil.copy(exported_onnx.path, tmp_path / "alone.onnx")
    with pytest.raises(OptionError, match="alone.json' is not a file; export.py writes a .onnx"):
        load_exported(str(path))
    meta = read_json(exported_onnx.path.with_suffix(".json"))
    meta["inputs"]["images"]["shape"][0] = 1
    (tmp_path / "alone.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match=r"takes images \[3, 64, 64, 3\], the .json says \[1, 64, 64, 3\]"):
        load_exported(str(path))
    (tmp_path / "alone.json").write_text("[]")
    with pytest.raises(DataError, match="damaged"):
        load_exported(str(path))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_package_that_is_not_installed(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvironmentFault, match=f"need the package {package}, .*pip install -r requirements.txt"):
        import_optional(package)


def test_an_operator_without_onnx(narrow, tmp_path, monkeypatch):
    model, facts = narrow
    strange = replace(model, network=Strange(model.network))
    monkeypatch.chdir(tmp_path)  # MindSpore leaves a dump of what it could not write
    with pytest.raises(OptionError, match="cannot be written as ONNX .*HSwish.* use --file_format=MINDIR"):
        export_model(strange, facts, str(tmp_path / "ssd.onnx"), batch_size=1, raw=True)
    assert not list(tmp_path.glob("*ssd*"))


class Strange(ms.nn.Cell):
    """A network with an operator that MindSpore cannot write."""

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network, self.strange = network, ms.nn.HSwish()

    def construct(self, images):
        logits, deltas = self.network(images)
        return self.strange(logits), deltas


def test_two_formats_share_a_json_only_if_it_fits_both(tmp_path):
    path, facts = tmp_path / "ssd.mindir", {"model": "a", "batch_size": 3, "version": "1.0.0"}
    path.write_text("")
    refuse_neighbour(str(tmp_path / "ssd.onnx"), facts)
    (tmp_path / "ssd.json").write_text(json.dumps({**facts, "format": "MINDIR"}))
    refuse_neighbour(str(tmp_path / "ssd.onnx"), facts)
    refuse_neighbour(str(tmp_path / "ssd.onnx"), {**facts, "version": "1.1.0"})  # a later release of this repository
    refuse_neighbour(str(path), {**facts, "batch_size": 1})  # it goes with the file that is written again
    with pytest.raises(OptionError, match="describes .*ssd.mindir' with batch_size 3, not 1; choose another --file_n"):
        refuse_neighbour(str(tmp_path / "ssd.onnx"), {**facts, "batch_size": 1})
    # a second format of the first model: its .json must not lose the other file's facts at the next export
    (tmp_path / "ssd.onnx").write_text("")
    (tmp_path / "ssd.json").write_text(json.dumps({**facts, "format": "ONNX"}))
    with pytest.raises(OptionError, match="describes .*ssd.mindir' with model a, not b; .* or remove '.*ssd.mindir'"):
        refuse_neighbour(str(tmp_path / "ssd.onnx"), {**facts, "model": "b"})


# --- the numbers

def test_raw_outputs(narrow, tmp_path):
    model, facts = narrow
    meta = export_model(model, facts, str(tmp_path / "raw.onnx"), batch_size=2, raw=True)
    assert meta["outputs"]["logits"]["shape"] == [2, 96, 5] and meta["outputs"]["deltas"]["shape"] == [2, 96, 4]
    images = np.stack([landscape(64), 255 - landscape(64)])
    raw = RawDetector(model)
    raw.set_train(False)
    found = open_session(str(tmp_path / "raw.onnx")).run(["logits", "deltas"], {"images": images})
    assert all(np.allclose(a.asnumpy(), b, atol=1e-4) for a, b in zip(raw(ms.Tensor(images)), found))
    with pytest.raises(OptionError, match="--raw=True"):
        load_exported(str(tmp_path / "raw.onnx"))


@pytest.mark.long
@pytest.mark.parametrize("name", BUILDERS)
def test_every_model(name, tmp_path):
    # the export itself compares logits and deltas of random pixels, and the post-processing on drawn predictions
    model = sharp_model(name, 21)
    facts = describe(model, [f"class{number}" for number in range(20)], THRESHOLDS)
    meta = export_model(model, facts, str(tmp_path / "ssd.onnx"), batch_size=1, raw=False)
    assert meta["largest_difference"] < 1e-4 and set(meta["operators"]) <= documented_operators()
    boxes, scores, labels = load_exported(str(tmp_path / "ssd.onnx")).detect(landscape(model.image_size))
    assert len(boxes) > 10 and scores.min() > THRESHOLDS["min_score"] and 1 <= labels.min() <= labels.max() <= 20


@pytest.mark.long
def test_real_weights_on_real_pictures(shared, place, tmp_path):
    pictures, path = sorted(Path(shared("coco", "val2017")).iterdir())[:20], str(tmp_path / "coco.ckpt")
    weights = shared("weights", "tfjs_ssdlite_mobilenet_v2_coco")
    succeed(place, "import_weights.py", "--from=tfjs", weights, "--model=ssd300_mobilenet_v2_tf", f"--output={path}")
    model, facts = load_model(path, **model_options(read_options([])))
    export_model(model, facts, str(tmp_path / "ssd.onnx"), batch_size=1, raw=False)
    both = (from_model(model, facts["classes"], thresholds=facts, batch_size=1),
            load_exported(str(tmp_path / "ssd.onnx")))
    for picture in pictures:
        one, two = (predict.detect(read_image(str(picture))) for predict in both)
        assert len(one[0]) > 10
        assert_same(*([labels, scores, boxes] for boxes, scores, labels in (one, two)), tolerance=1e-4)


def test_a_file_that_mindspore_did_not_write_is_told(tmp_path, monkeypatch):
    """On a full disk it returns as if all were well."""
    monkeypatch.setattr(ms.onnx, "export", lambda *_, **__: None)
    with pytest.raises(OSError, match="wrote no file; is the disk full"):
        trace(None, np.zeros((1, 8, 8, 3), np.uint8), str(tmp_path / "x.onnx"))
