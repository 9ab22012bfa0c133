"""Exports that must not pass: a network of NaN or infinity, in any format; and files of any name."""
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest
from programs import ROOT, run, succeed
from test_export import ENDINGS, small_model
from test_nms_ties import THRESHOLDS, pixel_model

from scripts import compare_metrics
from src.errors import NotFiniteError
from src.export import exporter
from src.export.exporter import export_model
from src.export.quantize import Int8, to_float16
from src.export.trial import difference_of
from src.inference.description import describe


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working folder, which MindSpore may fill."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_difference_is_a_number(bad):
    good, other = np.array([1.0, 2.0]), np.array([1.0, bad])
    assert difference_of([good], [good + 1e-3]) == pytest.approx(5e-4)
    for pair in ((good, other), (other, good), (other, other)):
        with pytest.raises(NotFiniteError, match="gives NaN or infinity"):
            difference_of([good, pair[0]], [good, pair[1]])


@pytest.fixture(scope="module")
def shared_model():
    """A small model and its description, for exports that fail before its norms are folded."""
    return small_model()


@pytest.fixture
def poison(shared_model):
    """Function: fills a parameter of the shared model with a value until the end of the test."""
    changed = []

    def fill(parameter, value):
        changed.append((parameter, parameter.asnumpy().copy()))
        parameter.set_data(ms.Tensor(np.full(parameter.shape, value, np.float32)))
    yield fill
    for parameter, before in changed:
        parameter.set_data(ms.Tensor(before))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_network_that_is_not_finite_is_not_exported(shared_model, poison, ending, raw, bad, tmp_path):
    model, facts = shared_model
    poison(model.network.head.cls[2][3].bias, bad)
    with pytest.raises(NotFiniteError, match="the network gives NaN or infinity on .*; nothing was kept"):
        export_model(model, facts, str(tmp_path / f"ssd.{ending}"), batch_size=1, raw=raw)
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


@pytest.mark.parametrize("quantize", [to_float16, Int8(np.zeros((1, 64, 64, 3), np.uint8))], ids=["fp16", "int8"])
def test_nor_in_fewer_bits(shared_model, poison, quantize, tmp_path):
    model, facts = shared_model
    poison(model.network.head.box[1][3].bias, np.nan)
    with pytest.raises(NotFiniteError, match="the network gives NaN"):
        export_model(model, facts, str(tmp_path / "ssd.onnx"), batch_size=1, raw=False, quantize=quantize)


def test_a_network_that_float16_cannot_hold(tmp_path):
    model, facts = small_model()
    weight = model.network.head.cls[0][3].weight
    weight.set_data(ms.Tensor(np.full(weight.shape, 3e4, np.float32)))  # of many channels, each up to 6
    with pytest.raises(NotFiniteError, match="the exported file gives NaN or infinity"):
        export_model(model, facts, str(tmp_path / "ssd.onnx"), batch_size=1, raw=True, quantize=to_float16)
    assert [one.name for one in tmp_path.iterdir()] == ["work"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_fold_that_breaks_the_network(ending, tmp_path, monkeypatch):
    model, facts = small_model()

    def broken_fold(network):
        for one in network.head.get_parameters():
            one.set_data(one * ms.Tensor(np.nan, one.dtype))
    monkeypatch.setattr(exporter, "fold_norms", broken_fold)
    with pytest.raises(NotFiniteError):
        export_model(model, facts, str(tmp_path / f"ssd.{ending}"), batch_size=1, raw=False)
    assert [one.name for one in tmp_path.iterdir()] == ["work"]


def test_compared_metrics_are_numbers(tmp_path):
    def compare(one, other):
        for name, text in (("a", one), ("b", other)):
            (tmp_path / f"{name}.json").write_text(text)
        command = [sys.executable, compare_metrics.__file__, str(tmp_path / "a.json"), str(tmp_path / "b.json")]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert compare('{"AP": 0.5, "per_class": {}}', '{"AP": 0.5}').returncode == 0
    for one, other in (("0.5", "0.4"), ("NaN", "NaN"), ("Infinity", "Infinity"), ("0.5", "NaN")):
        done = compare(f'{{"AP": {one}}}', f'{{"AP": {other}}}')
        assert done.returncode == 1 and "DIFFERENT" in done.stdout and not done.stderr
    assert compare('{"AP": 0.5}', '{"AP": 0.5, "AP50": 0.6}').returncode == 1
    assert compare('{"AP": 0.5, "AP50": 0.6}', '{"AP": 0.5}').returncode == 1


# --- names

@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["two words", "größe", "a+(b", "'quoted' $HOME;*[1]", "検出"])
def test_files_and_folders_of_any_name(ending, name, tmp_path):
    model = pixel_model("sigmoid")
    facts = describe(model, ["a", "b", "c"], THRESHOLDS)
    folder = tmp_path / f"in {name}"
    folder.mkdir()
    path = folder / f"{name}.{ending}"
    export_model(model, facts, str(path), batch_size=1, raw=True)
    assert sorted(found.name for found in folder.iterdir()) == sorted([f"{name}.json", path.name])


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_of_any_name_is_read_again(place, trained, ending):
    name = f"für uns/a+(b) ok.{ending}"
    text = succeed(place, "export.py", f"--checkpoint_file_path={trained.best}", f"--file_format={ending.upper()}",
                   f"--file_name={name}")
    assert f"wrote {name} (" in text
    succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={name}", f"--output_path=für uns/{ending}")
    assert (place.folder / "für uns" / ending / "eval" / "metrics.json").exists()


@pytest.mark.parametrize("name", ["", "runs/", ".mindir"])
def test_a_name_without_a_name(place, trained, name):
    done = run(place, "export.py", f"--checkpoint_file_path={trained.best}", f"--file_name={name}")
    assert done.returncode == 2 and "does not name a file" in done.stderr and done.stderr.count("\n") == 1
