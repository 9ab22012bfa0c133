"""--anchors: other shapes for every network, the file that holds them, and what a checkpoint says of them."""
import json
import os

import numpy as np
import pytest
from easydict import EasyDict
from programs import read_json, read_rows, run, succeed

from src.anchor_file import read_shapes, write_shapes
from src.anchors import split_levels, tile_anchors
from src.errors import OptionError
from src.inference.description import describe
from src.inference.predictor import load_model
from src.models.ssd import BUILDERS, build_model, with_shapes
from src.training.anchors import AnchorChooser
from src.training.log import RunLog
from src.weights.files import open_weights

SMALL = {"image_size": 64, "width": 0.25}
COUNTS = [3, 6, 6, 6, 6, 6]


def pixels_of(model):
    """Per level the shapes of the anchors in pixels."""
    return [(level.shapes.astype(np.float64) * model.image_size).tolist() for level in model.levels()]


def halved(model):
    return [(np.array(level) / 2).round(1).tolist() for level in pixels_of(model)]


@pytest.mark.parametrize("name", BUILDERS)
def test_the_published_shapes_give_the_published_anchors(name):
    model = build_model(name, 2)
    again = with_shapes(model, pixels_of(model))
    assert again.anchors.dtype == model.anchors.dtype and np.array_equal(again.anchors, model.anchors)
    assert model.anchor_shapes == [] and again.anchor_shapes == pixels_of(model)
    assert sum(level.side ** 2 * len(level.shapes) for level in model.levels()) == len(model.anchors)
    huge = with_shapes(model, [[[9000, 1]] * len(level.shapes) for level in model.levels()]).anchors
    assert np.array_equal(huge[:, :2], model.anchors[:, :2]) and np.allclose(huge[:, 3], 1 / model.image_size)
    assert np.allclose(huge[:, 2], 1 if model.clip_anchors else 9000 / model.image_size)
    assert model.clip_anchors == (name.startswith(("ssdlite", "ssd300_resnet")) or "vgg" in name)


def test_levels_of_one_cell_are_told_apart():
    model = build_model("ssd300_mobilenet_v2", 2, **SMALL)
    assert [(level.side, len(level.shapes)) for level in model.levels()] == [(4, 3), (2, 6), *[(1, 6)] * 4]
    shapes = [np.full((count, 2), 0.1 * number) for number, count in enumerate((2, 2, 1), 1)]
    levels = split_levels(tile_anchors([2, 1, 1], [0.5, 1, 1], shapes), (2, 2, 1))
    assert [(level.start, level.side) for level in levels] == [(0, 2), (8, 1), (10, 1)]
    assert all(np.allclose(level.shapes, one) for level, one in zip(levels, shapes))


def test_another_number_of_shapes_is_refused():
    model = build_model("ssd300_mobilenet_v2", 2, **SMALL)
    with pytest.raises(OptionError, match="the anchors have"):
        with_shapes(model, pixels_of(model)[:-1])


# --- the file

def test_a_file_is_read_as_it_was_written_and_scaled(tmp_path):
    path = str(tmp_path / "anchors.json")
    shapes = [np.array([[10.5, 20.1], [30, 40]]), np.array([[100, 90.3]])]
    write_shapes(path, shapes, 300)
    assert read_shapes(path, [2, 1], 300) == [[[10.5, 20.1], [30, 40]], [[100, 90.3]]]
    assert np.allclose(read_shapes(path, [2, 1], 450)[0], [[15.75, 30.15], [45, 60]])
    assert "[[10.5, 20.1], [30.0, 40.0]],\n" in (tmp_path / "anchors.json").read_text()


@pytest.mark.parametrize("text, words", [
    (None, "cannot be read"),
    ("{", "is broken"),
    ("[]", "is broken"),
    ("7", "is broken"),
    ('{"image_size": 300}', "has no 'shapes'"),
    ('{"shapes": [[[1, 2]]]}', "has no 'image_size'"),
    ('{"image_size": 0, "shapes": [[[1, 2]]]}', "0 is not a positive"),
    ('{"image_size": 300, "shapes": 5}', "is broken"),
    ('{"image_size": 300, "shapes": [[[1, 0]]]}', "0 is not a positive"),
    ('{"image_size": 300, "shapes": [[[1, -3]]]}', "-3 is not a positive"),
    ('{"image_size": 300, "shapes": [[[1, NaN]]]}', "nan is not a positive"),
    ('{"image_size": 300, "shapes": [[[Infinity, 1]]]}', "inf is not a positive"),
    ('{"image_size": 300, "shapes": [[["1", 1]]]}', "'1' is not a positive"),
    ('{"image_size": 300, "shapes": [[[true, 1]]]}', "True is not a positive"),
    ('{"image_size": 300, "shapes": [[[1, 2, 3]]]}', r"not \[width, height\]"),
    ('{"image_size": 300, "shapes": [[[1, 2]], [[1, 2]]]}', "levels of 1, 1 shapes, the model has levels of 1"),
    ('{"image_size": 300, "shapes": [[[1, 2], [3, 4]]]}', "levels of 2 shapes, the model has levels of 1"),
    ('{"image_size": 300, "shapes": []}', "the model has levels of 1")])
def test_errors_of_a_file_are_one_line(tmp_path, text, words):
    path = tmp_path / "anchors.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(OptionError, match=words) as caught:
        read_shapes(str(path), [1], 300)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe\0\x80")
    for path in (tmp_path / "x", tmp_path):
        with pytest.raises(OptionError, match="anchors"):
            read_shapes(str(path), [1], 300)


# --- choosing them

def chooser(choice, **more):
    return AnchorChooser(choice, **{"threshold": 0.5, "seed": 1, "max_images": 0, "log": RunLog(), "rank": 0,
                                    "world": 1, **more})


def split_of(tmp_path, boxes):
    """A Split of one image of 320 x 320 with boxes x, y, w, h, as far as it matters here."""
    truth = {"images": [{"id": 1, "width": 320, "height": 320}],
             "annotations": [{"image_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0} for box in boxes]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    return EasyDict(name="train", ground_truth=str(tmp_path / "truth.json"))


def test_shapes_are_fitted_and_said(tmp_path, capsys):
    boxes = [[x, y, 12, 30] for x in range(0, 300, 16) for y in range(0, 280, 16)]
    model = build_model("ssd300_mobilenet_v2", 2, image_size=320, width=0.25)
    fitted, again = (chooser("auto")(model, split_of(tmp_path, boxes)) for _ in range(2))
    assert fitted.anchor_shapes == again.anchor_shapes and [len(level) for level in fitted.anchor_shapes] == COUNTS
    text = capsys.readouterr().out.splitlines()
    assert len(text) == 2 and text[0] == text[1] and "0.0% -> " in text[0] and "anchors.json" in text[0]
    assert np.array_equal(chooser("")(model, None).anchors, model.anchors)


@pytest.mark.parametrize("boxes", [[], [[100, 100, 32, 32]]])
def test_the_published_stay_where_nothing_is_gained(tmp_path, capsys, boxes):
    model = build_model("ssd300_mobilenet_v2", 2, image_size=320, width=0.25)
    assert chooser("auto")(model, split_of(tmp_path, boxes)).anchor_shapes == []
    assert ("the published anchors stay" in capsys.readouterr().out) == bool(boxes)


# --- what a checkpoint says of them

def test_a_checkpoint_brings_its_anchors(tmp_path):
    from src.config import model_options, read_options
    from src.weights import checkpoint
    options = read_options([])
    model = build_model("ssd300_mobilenet_v2", 2, **SMALL)
    other = with_shapes(model, halved(model))
    for name, one in (("other", other), ("published", model)):
        facts = describe(one, ["a"], options)
        assert facts["anchor_shapes"] == one.anchor_shapes
        checkpoint.save(str(tmp_path / f"{name}.ckpt"), list(one.network.get_parameters()), facts)
    del facts["anchor_shapes"]
    checkpoint.save(str(tmp_path / "old.ckpt"), list(model.network.get_parameters()), facts)
    for name, one in (("other", other), ("published", model), ("old", model)):
        loaded, meta = load_model(str(tmp_path / f"{name}.ckpt"), **model_options(options))
        assert np.array_equal(loaded.anchors, one.anchors) and meta["anchor_shapes"] == one.anchor_shapes


@pytest.mark.parametrize("choice", ["", "auto"])
def test_weights_for_other_anchors_are_told(tmp_path, capsys, choice):
    from src.config import read_options
    from src.training.build import build_training_model
    from src.weights import checkpoint
    model = build_model("ssd300_mobilenet_v2", 2, **SMALL)
    options = read_options(["--model=ssd300_mobilenet_v2", "--image_size=64", "--width=0.25", f"--anchors={choice}",
                            f"--pre_trained={tmp_path}/other.ckpt"])
    checkpoint.save(options.pre_trained, list(model.network.get_parameters()),
                    describe(with_shapes(model, halved(model)), ["a"], options))
    build_training_model(options, ["a"], log=RunLog(), world=1)
    assert ("anchors of their own" in capsys.readouterr().out) == (choice == "")


def test_the_table_of_all_models_has_no_anchors_of_one(place):
    done = run(place, "scripts/model_info.py", "--anchors=x.json")
    assert done.returncode == 2 and "--model=NAME" in done.stderr and done.stderr.count("\n") == 1


def test_training_evaluation_export_and_resume(place):
    """The anchors of a run go from its checkpoint into every file and program, without an option."""
    folder, path = place.folder / "fitted", place.folder / "mine.json"
    shapes = halved(build_model("ssd300_mobilenet_v2", 2, **SMALL))
    write_shapes(str(path), shapes, 64)
    succeed(place, "train.py", *place.data, f"--output_path={folder}", f"--anchors={path}", "--max_steps=2",
            "--run_eval=False")
    last = folder / "ckpt" / "last.ckpt"
    assert open_weights(str(last)).meta["anchor_shapes"] == shapes == read_json(folder, "anchors.json")["shapes"]
    os.remove(path)  # from here on the checkpoint has them
    succeed(place, "train.py", "--resume=True", f"--output_path={folder}", "--max_steps=3")
    assert open_weights(str(last)).meta["anchor_shapes"] == shapes and read_rows(folder)[-1]["step"] == 3
    refused = run(place, "train.py", "--resume=True", f"--output_path={folder}", "--max_steps=4", "--anchors=auto")
    assert refused.returncode == 2 and "-> auto" in refused.stderr and refused.stderr.count("\n") == 1
    succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={last}", "--min_score=0.001")
    from_checkpoint = read_json(folder, "eval", "detections.json")
    succeed(place, "export.py", f"--checkpoint_file_path={last}", f"--file_name={folder}/ssd", "--min_score=0.001",
            "--export_batch_size=4")
    assert read_json(folder, "ssd.json")["anchor_shapes"] == shapes
    succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={folder}/ssd.mindir", "--output_path=exported")
    for one, other in zip(from_checkpoint, read_json(place.folder, "exported", "eval", "detections.json")):
        assert np.allclose(one["bbox"], other["bbox"], atol=0.01)


def test_a_wrong_file_is_told_before_data_is_converted(place):
    done = run(place, "train.py", *place.data, "--output_path=wrong", "--anchors=none.json", "--mindrecord_dir=unmade")
    assert done.returncode == 2 and "none.json" in done.stderr and done.stderr.count("\n") == 1
    assert not (place.folder / "unmade").exists()
