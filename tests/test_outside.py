"""Models outside the repository: --model=my_file.py:my_model."""
import os
from types import SimpleNamespace

import pytest
import yaml
from programs import RECIPE, run, succeed

from src.config import read_options
from src.errors import OptionError
from src.inference.description import describe
from src.inference.predictor import load_model
from src.models.outside import is_outside, may_run, same_model
from src.models.ssd import build_model, published_size
from src.training.resume import Saved, refuse_other_network
from src.weights import checkpoint

CODE = """
from dataclasses import replace

from src.models.ssd import ssd300_mobilenet_v2
import {beside}


def tiny(num_classes, image_size=64):
    return replace(ssd300_mobilenet_v2(num_classes, image_size, {beside}.WIDTH), name="of no use")


def number(num_classes, image_size=64):
    return 5


def no_size(num_classes):
    return None
"""
THRESHOLDS = {"min_score": 0.1, "nms_threshold": 0.6, "nms_candidates": 100, "max_boxes": 10, "resize": "bilinear"}


def write_model(folder, beside="widths_of_a_test"):
    """A file with builders, which imports another one beside it -> its path."""
    folder.mkdir(exist_ok=True)
    (folder / f"{beside}.py").write_text("WIDTH = 0.25\n")
    path = folder / "my_models.py"
    path.write_text(CODE.format(beside=beside))
    return path


@pytest.fixture
def file(tmp_path):
    return write_model(tmp_path / "mine")


def test_a_builder_in_a_file(file):
    model = build_model(f"{file}:tiny", 3)
    assert model.name == f"{file}:tiny" and model.image_size == 64 and model.num_classes == 3
    narrow = build_model("ssd300_mobilenet_v2", 3, width=0.25)
    assert model.network.backbone.channels == narrow.network.backbone.channels
    assert build_model(f"{file}:tiny", 3, image_size=96).image_size == 96 and published_size(f"{file}:tiny") == 64
    with pytest.raises(OptionError, match=r"tiny has width 1\.0 only"):
        build_model(f"{file}:tiny", 3, width=0.5)


@pytest.mark.parametrize("builder, words", [
    ("tyny", "model=tyny: did you mean 'tiny'"), ("replace", "known models are tiny, number, no_size"),
    ("number", "returns int; docs/new_model.md"), ("no_size", r"takes \(num_classes\); a builder takes num_classes")])
def test_what_is_no_builder(file, builder, words):
    with pytest.raises(OptionError, match=words):
        build_model(f"{file}:{builder}", 3)


def test_a_file_that_is_not_there_or_fails(tmp_path):
    with pytest.raises(OptionError, match=r"there is no file '.*nowhere\.py'; say where it is by --model=FOLDER"):
        build_model(f"{tmp_path}/nowhere.py:tiny", 3)
    for text, words in (("\n\nimport not_a_module\n", r"line 3 \(ModuleNotFoundError: No module"),
                        ("x = (\n", r"line 1 \(SyntaxError"), ("1 / 0", r"line 1 \(ZeroDivisionError")):
        (tmp_path / "broken.py").write_text(text)
        with pytest.raises(OptionError, match=f"the file fails in {words}"):
            build_model(f"{tmp_path}/broken.py:tiny", 3)
    (tmp_path / "broken.py").write_text("")  # mended
    with pytest.raises(OptionError, match=r"known models are \(no function\)"):
        build_model(f"{tmp_path}/broken.py:tiny", 3)


def test_names(tmp_path, monkeypatch):
    assert is_outside("a/b.py:c") and not is_outside("ssd300_vgg16") and not is_outside("a.py")
    assert same_model("/a/m.py:x", "/b/m.py:x") and same_model("x", "x")
    assert not same_model("/a/m.py:x", "/a/m.py:y") and not same_model("x", "/a/m.py:x")
    monkeypatch.chdir(tmp_path)
    assert read_options(["--model=m.py:x"]).model == f"{tmp_path}/m.py:x"
    assert read_options(["--model=~/m.py:x"]).model == os.path.expanduser("~/m.py:x")
    assert read_options(["--model=ssd300_vgg16"]).model == "ssd300_vgg16"
    assert may_run("ssd300_vgg16") and may_run(f"{tmp_path}/deep/m.py:x") and not may_run("/elsewhere/m.py:x")
    assert not may_run(f"{tmp_path}_2/m.py:x")


def test_a_checkpoint_says_where_its_code_is_but_does_not_run_it(file, tmp_path, monkeypatch):
    """Without being told only in the working folder; a file that has moved is given by --model."""
    name, path = f"{file}:tiny", str(tmp_path / "tiny.ckpt")
    model = build_model(name, 3)
    checkpoint.save(path, model.network.get_parameters(), dict(describe(model, ["a", "b"], THRESHOLDS)))
    defaults = {**THRESHOLDS, "model": "ssd_resnet50_fpn", "image_size": 0, "width": 1.0, "classes": []}
    load = lambda **typed: load_model(path, defaults=defaults, overrides=typed)  # noqa: E731
    monkeypatch.chdir(tmp_path)
    assert load()[0].name == load()[1]["model"] == name
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(OptionError, match=rf"if you trust that code, add --model={file}:tiny"):
        load()
    assert load(model=name)[0].name == name
    moved = write_model(tmp_path / "new", "other_widths_of_a_test")
    os.remove(file)
    with pytest.raises(OptionError, match=r"add --model=FOLDER/my_models\.py:tiny"):
        load()
    assert load(model=f"{moved}:tiny")[1]["model"] == f"{moved}:tiny"
    for other in (f"{moved}:number", "ssd300_vgg16"):
        with pytest.raises(OptionError, match=f"--model={other}, but"):
            load(model=other)


def test_a_resumed_run_may_have_its_file_elsewhere():
    facts = {"model": "/a/m.py:x", "classes": ["a"], "image_size": 64, "width": 1.0}
    saved = Saved({}, facts, "last.ckpt", {})
    refuse_other_network(saved, {**facts, "model": "/b/m.py:x"})
    with pytest.raises(OptionError, match="holds model /a/m.py:x"):
        refuse_other_network(saved, {**facts, "model": "/a/m.py:y"})


def test_the_programs(place, tmp_path):
    """Training by a recipe elsewhere, prediction in the same folder, and the line that another folder is told."""
    here = SimpleNamespace(folder=tmp_path)
    write_model(tmp_path, "widths_of_the_programs")
    recipe = {**{key: value for key, value in RECIPE.items() if key != "width"}, "model": "my_models.py:tiny"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "run_eval": False}))
    succeed(here, "train.py", "--config_path=recipe.yaml", f"--coco_root={place.coco}", "--max_steps=1",
            "--output_path=run")
    found = ("predict.py", f"--checkpoint_file_path={tmp_path}/run/ckpt/last.ckpt",
             f"--source={place.coco}/val2017/000001.jpg", f"--output_path={tmp_path}/found")
    assert "object(s)" in succeed(here, *found)
    told = run(place, *found)
    assert told.returncode == 2 and told.stderr.strip().endswith(f"add --model={tmp_path}/my_models.py:tiny")
    assert "object(s)" in succeed(place, *found, f"--model={tmp_path}/my_models.py:tiny")
