"""The door for Python: load() and what it finds."""
import os
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import ROOT
from programs import environment, succeed

from src.errors import DataError, OptionError
from src.inference import predictor
from src.inference.api import LoadedModel, load

PIXELS = np.full((50, 100, 3), 90, np.uint8)


@pytest.fixture
def model():
    """A model that finds a dog and, less surely, two cats, whatever it is shown."""
    boxes = np.float32([[0, 0, 0.5, 1], [0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 1, 1]])
    detect = lambda image, windows: (boxes, np.float32([0.9, 0.5, 0.3]), np.int32([2, 1, 1]))  # noqa: E731
    predict = SimpleNamespace(detect=detect, classes=["cat", "dog"], meta={"model": "ssd", "image_size": 64})
    return LoadedModel(predict, "a.ckpt", min_shown=0.4)


def test_boxes_are_pixels_and_low_scores_are_left_out(model):
    found = model(PIXELS)
    assert len(found) == 2 and found.names == ["dog", "cat"] and found.labels.tolist() == [2, 1]
    assert found.boxes.dtype == np.float32
    assert found.boxes == pytest.approx(np.array([[0, 0, 50, 50], [10, 10, 30, 20]]), abs=1e-4)
    assert found.scores == pytest.approx([0.9, 0.5])
    assert repr(found) == "2 object(s) in 100 x 50 pixels: 1 dog, 1 cat"
    assert repr(model) == "ssd of 'a.ckpt': 64 pixels, 2 class(es): cat, dog"


def test_each_class_is_returned_from_its_own_score_on(model):
    model.min_shown = np.array([0.3, 0.95])
    assert model(PIXELS).names == ["cat", "cat"]


def test_it_draws_itself(model, tmp_path):
    found = model(PIXELS)
    drawing = found.draw()
    assert drawing.shape == PIXELS.shape and drawing.dtype == np.uint8
    assert (drawing[25, 50] != 90).any() and (drawing[40, 80] == 90).all()  # the edge of the dog; nothing is there
    assert (found.image == 90).all()
    found.save(tmp_path / "found.png")
    shown = cv2.imdecode(np.frombuffer(found._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    for picture in (cv2.imread(str(tmp_path / "found.png")), shown):
        assert (picture[..., ::-1] == drawing).all()


def test_nothing_found(model):
    model.min_shown = 1.0
    found = model(PIXELS)
    assert len(found) == 0 and found.boxes.shape == (0, 4) and found.names == []
    assert repr(found) == "0 object(s) in 100 x 50 pixels" and (found.draw() == PIXELS).all()


def test_a_path_is_a_picture_too(model, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((50, 100, 3), (10, 20, 30), np.uint8))
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert model(path).image[0, 0].tolist() == [30, 20, 10]  # RGB
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b\.png"):
        model(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"picture 'none\.png' does not exist; give the path"):
        model("none.png")


@pytest.mark.parametrize("image, named", [
    (np.zeros((5, 5)), r"\[5, 5\] of float64"), (np.zeros((5, 5, 4), np.uint8), r"\[5, 5, 4\]"),
    (np.zeros((0, 5, 3), np.uint8), r"\[0, 5, 3\]"), (None, "of object")])
def test_what_is_not_a_picture(model, image, named):
    with pytest.raises(DataError, match=named):
        model(image)


def test_options_are_those_of_predict():
    with pytest.raises(OptionError, match="min_scor"):
        load("a.ckpt", min_scor=0.1)
    with pytest.raises(OptionError, match="not used by predict.py"):
        load("a.ckpt", epoch_size=3)
    with pytest.raises(OptionError, match=r"a\.ckpt"):
        load("a.ckpt")


def test_a_file_brings_the_scores_that_count(monkeypatch):
    """As predict.py takes them: each class has its own, what is typed counts before it."""
    boxes = np.tile(np.float32([[0, 0, 0.5, 1]]), (4, 1))

    def stand_in(path, **_):
        return SimpleNamespace(
            detect=lambda *_: (boxes, np.float32([0.6, 0.5, 0.4, 0.3]), np.int32([1, 2, 1, 2])),
            classes=["cat", "dog"], meta={"draw_score": 0.45, "class_scores": {"dog": 0.25}})
    monkeypatch.setattr(predictor, "load_predictor", stand_in)
    for typed, kept in (({}, [0.6, 0.5, 0.3]), ({"score_threshold": "cat:0.35"}, [0.6, 0.5, 0.4, 0.3]),
                        ({"score_threshold": 0.45}, [0.6, 0.5]), ({"only_classes": "[dog]"}, [0.5, 0.3])):
        assert load("a.ckpt", **typed)(PIXELS).scores.tolist() == pytest.approx(kept), typed


def test_every_kind_of_file(place, trained, exported, tmp_path):
    """In a Python of its own, which has not imported MindSpore: a checkpoint, MindIR and ONNX find the same."""
    onnx = tmp_path / "ssd.onnx"
    succeed(place, "export.py", f"--checkpoint_file_path={trained.best}", "--file_format=ONNX", f"--file_name={onnx}")
    code = f"""
from src.inference.api import load
first, *others = [load(path, draw_score=0.01)({str(place.coco / "val2017" / "000001.jpg")!r})
                  for path in {[str(trained.best), str(exported.path), str(onnx)]}]
assert len(first) > 0 and len(load({str(trained.last)!r}).classes) == 4  # one more, when the device is in use
for other in others:
    assert len(other) == len(first) and abs(other.scores - first.scores).max() < 1e-3  # near ties change places
print(first)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0 and "object(s) in " in done.stdout, done.stderr
    assert not os.path.exists(os.path.join(ROOT, "ssd.onnx"))
