"""Exported files of every format: any number of images, fewer bits, and what is refused."""
import mindspore as ms
import numpy as np
import onnx
import pytest
from programs import COCO_NAMES, read_json, run, succeed
from test_onnx import CLASSES, THRESHOLDS, documented_operators, landscape, operator_sets, sharp_model

from src.errors import DataError, SSDError
from src.export import exporter
from src.export.exporter import export_model
from src.export.quantize import CalibrationReader, Int8, to_float16
from src.inference.description import describe, detector_arguments
from src.inference.exported import run_cell
from src.inference.predictor import load_exported
from src.models.detector import Detector
from src.models.ssd import BUILDERS

ENDINGS = ("mindir", "onnx")


def small_model():
    """A small model that finds things, and its description."""
    model = sharp_model("ssd300_mobilenet_v2", len(CLASSES) + 1, 64, 0.25)
    return model, describe(model, CLASSES, THRESHOLDS)


def pictures(size, count=3):
    """Different pictures [count, S, S, 3] uint8."""
    one = landscape(size)
    return np.stack([one, 255 - one, one[::-1], one[:, ::-1]])[:count]


def initializers(path):
    """{name: array} of the weights of an ONNX file."""
    return {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


# --- any number of images

@pytest.mark.parametrize("ending", ENDINGS)
def test_any_number_gives_what_each_number_gives(ending, tmp_path):
    model, facts = small_model()
    images = pictures(64)
    expected = run_cell(Detector(model, **detector_arguments(THRESHOLDS)), images)
    assert (expected[3] > 10).all()
    meta = export_model(model, facts, str(tmp_path / f"ssd.{ending}"), batch_size=0, raw=False)
    assert meta["batch_size"] == 0 and meta["inputs"]["images"]["shape"] == [None, 64, 64, 3]
    assert meta["outputs"]["boxes"]["shape"][0] is None
    assert set(meta.get("operators", [])) <= documented_operators()
    predict = load_exported(str(tmp_path / f"ssd.{ending}"), 5)
    assert predict.batch_size == 5
    for count in (3, 1, 2):  # each of another size than the one before, which must not be remembered
        found = predict.detect_batch(images[:count])
        assert found[0].shape == (count, *expected[0].shape[1:])
        assert (found[3] == expected[3][:count]).all()
        assert np.allclose(found[1], expected[1][:count], atol=1e-5)  # sorted: near scores may change places


@pytest.mark.parametrize("ending", ENDINGS)
def test_any_number_of_raw_outputs(ending, tmp_path):
    model, facts = small_model()
    meta = export_model(model, facts, str(tmp_path / f"raw.{ending}"), batch_size=0, raw=True)
    assert meta["outputs"]["logits"]["shape"] == [None, 96, 5]


def test_any_number_in_a_pyramid(tmp_path):
    # MindSpore writes the number of images into the upsampling, which the export must undo for the second image too
    model = sharp_model("ssd_mobilenet_v1_fpn", 3, 128)
    facts = describe(model, ["one", "two"], THRESHOLDS)
    meta = export_model(model, facts, str(tmp_path / "raw.onnx"), batch_size=0, raw=True)
    assert meta["largest_difference"] < 1e-4 and "Slice" in meta["operators"]


@pytest.mark.long
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", BUILDERS)
def test_any_number_for_every_model(name, ending, tmp_path):
    # the export itself compares the file with the network for one image and for two
    model = sharp_model(name, 21)
    facts = describe(model, [f"class{number}" for number in range(20)], THRESHOLDS)
    meta = export_model(model, facts, str(tmp_path / f"ssd.{ending}"), batch_size=0, raw=False)
    assert meta["largest_difference"] < 1e-4 and meta["batch_size"] == 0
    assert set(meta.get("operators", [])) <= documented_operators()


@pytest.mark.parametrize("ending", ENDINGS)
def test_eval_takes_any_number(place, trained, evaluated, ending):
    stem = place.folder / f"any_{ending}"
    text = succeed(place, "export.py", f"--checkpoint_file_path={trained.best}", f"--file_format={ending.upper()}",
                   f"--file_name={stem}", "--export_batch_size=0")
    assert "loaded again and compared" in text
    if ending == "onnx":
        assert operator_sets(f"{stem}.onnx") == [("", 11)]
    succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={stem}.{ending}", "--eval_batch_size=5",
            f"--output_path={stem}")
    found, expected = (read_json(folder, "metrics.json") for folder in (stem / "eval", evaluated))
    for name in COCO_NAMES:
        assert found[name] == pytest.approx(expected[name], abs=1e-6)


# --- fewer bits

def test_float16_is_for_the_network_only(tmp_path):
    model, facts = small_model()
    images, path = pictures(64), str(tmp_path / "ssd.onnx")
    expected = run_cell(Detector(model, **detector_arguments(THRESHOLDS)), images)
    meta = export_model(model, facts, path, batch_size=3, raw=False, quantize=to_float16)
    assert 0 < meta["largest_difference"] < 0.05
    weights = initializers(path)
    assert {one.dtype for one in weights.values() if one.ndim == 4} == {np.dtype(np.float16)}
    anchors = [one for one in weights.values() if one.shape == (96, 2)]
    assert len(anchors) == 2 and {one.dtype for one in anchors} == {np.dtype(np.float32)}
    found = load_exported(path).detect_batch(images)
    assert np.abs(found[3] - expected[3]).max() <= 4 and np.abs(found[1] - expected[1])[:, :50].max() < 0.02


def test_int8_keeps_the_last_convolutions(tmp_path):
    model, facts = small_model()
    path = str(tmp_path / "raw.onnx")
    images = np.concatenate([pictures(64), np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)])
    meta = export_model(model, facts, path, batch_size=0, raw=True, quantize=Int8(images))
    assert meta["opset"] == {"ai.onnx": 13} and {"QuantizeLinear", "DequantizeLinear"} < set(meta["operators"])
    assert set(meta["operators"]) <= documented_operators() | {"QuantizeLinear", "DequantizeLinear"}
    kernels = [one for one in initializers(path).values() if one.ndim == 4]
    assert sorted({str(one.dtype) for one in kernels}) == ["float32", "int8"]
    # logits and deltas of six levels
    assert sum(one.dtype == np.float32 for one in kernels) == 12


def test_int8_from_the_validation_split(place, trained):
    text = succeed(place, "export.py", *place.data, f"--checkpoint_file_path={trained.best}",
                   "--file_format=ONNX", "--quantize=int8", "--calibration_images=3", "--file_name=int8")
    assert "ranges are measured on 3 of the 7 images of val2017" in text and "QuantizeLinear" in text
    assert "Warning" not in text and "WARNING" not in text
    meta = read_json(place.folder, "int8.json")
    assert meta["quantize"] == "int8" and meta["largest_difference"] > 1e-4
    assert operator_sets(place.folder / "int8.onnx") == [("", 13)]
    succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={place.folder / 'int8.onnx'}")


def test_feed_fills_the_last_batch():
    feed = CalibrationReader(np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1), 2)
    assert [feed.get_next()["images"].ravel().tolist() for _ in range(2)] == [[0, 1], [2, 2]]
    assert feed.get_next() is None
    with pytest.raises(DataError, match="without pictures"):
        CalibrationReader(np.zeros((0, 1, 1, 3), np.uint8), 1)


def test_fewer_bits_are_for_onnx(place, trained):
    done = run(place, "export.py", f"--checkpoint_file_path={trained.best}", "--quantize=int8")
    assert done.returncode == 2 and "--quantize=int8 is for ONNX files only; add --file_format=ONNX" in done.stderr


# --- the file is the unfolded network

def test_an_export_that_differs_is_not_kept(tmp_path, monkeypatch):
    model, facts = small_model()

    def wrong_fold(network):
        for one in network.head.get_parameters():
            one.set_data(one + ms.Tensor(0.01, one.dtype))
    monkeypatch.setattr(exporter, "fold_norms", wrong_fold)
    with pytest.raises(SSDError, match="differs from the network by .*; nothing was kept"):
        export_model(model, facts, str(tmp_path / "ssd.mindir"), batch_size=1, raw=True)
    assert not list(tmp_path.iterdir())
