"""Files of other programs at --checkpoint_file_path: loaded with --model and --classes, else the command is said."""
import re
import shlex

import mindspore as ms
import numpy as np
import pytest
from programs import run, succeed
from weight_writers import mapping as pushed_mapping
from weight_writers import save_zip, whole_tensor

from src.classes import COCO_CLASSES
from src.config import model_options, read_options
from src.errors import DataError, OptionError
from src.inference.predictor import load_model
from src.models.ssd import build_model
from src.weights import checkpoint, files
from src.weights.files import open_weights
from src.weights.load import load_pretrained
from src.weights.names import published_thresholds
from src.weights.recognise import import_command

MODEL = "ssdlite300_mobilenet_v2"
TYPED = (f"--model={MODEL}", "--width=1.0", "--image_size=0")
PLACES = (("backbone.features.", "feature_extractor.feature_extractor."), ("neck.extras.", "additional_blocks."),
          ("head.box.", "loc."), ("head.cls.", "conf."), (".gamma", ".weight"), (".beta", ".bias"),
          (".moving_mean", ".running_mean"), (".moving_variance", ".running_var"))


def foreign(num_classes):
    """The tensors of a uvipen detector by its names, with what its files hold beside weights."""
    values = {}
    for one in build_model(MODEL, num_classes).network.get_parameters():
        name = one.name
        for ours, theirs in PLACES:
            name = name.replace(ours, theirs)
        values[name] = one.asnumpy()
        if name.endswith(".running_mean"):
            values[name.replace("running_mean", "num_batches_tracked")] = np.array(7)
    return {**values, "dboxes.anchors": np.ones((3000, 4), np.float32), "conf.6.weight": np.ones(3, np.float32)}


def write_npz(path, values):
    np.savez(path, **values)
    return f"{path}.npz"


def write_ckpt(path, values):
    ms.save_checkpoint([{"name": name, "data": ms.Tensor(one)} for name, one in values.items()], f"{path}.ckpt")
    return f"{path}.ckpt"


def write_torch(path, values):
    """As a training program saves it, inside of a checkpoint."""
    tensors = {name: whole_tensor(str(number), np.ascontiguousarray(one))
               for number, (name, one) in enumerate(values.items())}
    body = pushed_mapping({"net": pushed_mapping(tensors)})
    save_zip(f"{path}.pth", body, {str(number): one.tobytes() for number, one in enumerate(values.values())})
    return f"{path}.pth"


WRITERS = {"npz": write_npz, "ckpt": write_ckpt, "torch": write_torch}


@pytest.mark.parametrize("kind", WRITERS)
def test_each_format_is_recognised_or_the_command_is_said_in_full(kind, tmp_path):
    path = WRITERS[kind](tmp_path / "their detector", foreign(81))
    said = []
    model, facts = load_model(path, **model_options(read_options([])), say=said.append)
    assert model.name == MODEL and facts["classes"] == list(COCO_CLASSES) and facts["min_score"] == 0.05
    assert said == [f"recognised: {MODEL} of uvipen/SSD-pytorch, 80 classes, 300 pixels; 493 of 494 arrays fill all "
                    "416 parameters"]  # the anchors are left over
    if kind == "ckpt":
        with pytest.raises(OptionError, match="does not say its classes; make a checkpoint of it by") as refused:
            load_model(WRITERS[kind](tmp_path / "of 4", foreign(5)), **model_options(read_options([])))
        words = shlex.split(re.search("by '(python .*)' and give that", str(refused.value))[1])
        assert words == ["python", "import_weights.py", f"{tmp_path}/of 4.ckpt", "--from=uvipen", f"--model={MODEL}",
                         f"--output=ckpt/{MODEL}.ckpt", "--classes=NAME,NAME,..", "(its", "4", "names)"]
    if kind == "npz":
        with pytest.raises(OptionError, match=f"is {MODEL} of .* with 80 classes, but --model=ssd300_vgg16; leave the"):
            load_model(path, **model_options(read_options(["--model=ssd300_vgg16"])))
        with pytest.raises(OptionError, match=f"; the file fits by 'python import_weights.py .* --model={MODEL} "):
            load_model(path, **model_options(read_options(["--model=ssd300_mobilenet_v2", "--classes=coco"])))
    model, facts = load_model(path, **model_options(read_options([*TYPED, "--classes=coco", "--max_boxes=7"])))
    published = published_thresholds("uvipen")
    assert {name: facts[name] for name in published} == {**published, "max_boxes": 7}
    assert model.name == MODEL and len(facts["classes"]) == 80


@pytest.mark.parametrize("kind", ["npz", "ckpt"])
def test_a_file_is_opened_once(kind, tmp_path, monkeypatch):
    """However often its arrays are tried: here for the options' model, then for all models."""
    path, opened, loaded = WRITERS[kind](tmp_path / "theirs", foreign(5)), [], []
    monkeypatch.setattr(files, "open", lambda *given: opened.append(given[0]) or open(*given), raising=False)
    monkeypatch.setattr(checkpoint, "load_checkpoint", lambda given: loaded.append(given) or ms.load_checkpoint(given))
    with pytest.raises(OptionError, match="; the file fits by"):
        load_model(path, **model_options(read_options(["--model=ssd300_mobilenet_v2", "--classes=coco"])))
    assert opened == [path] and loaded == ([path] if kind == "ckpt" else [])


def test_the_command_by_hand(place, tmp_path):
    path = write_npz(tmp_path / "coco", foreign(81))
    words = shlex.split(import_command(open_weights(path))[1:-1])
    text = succeed(place, *words[1:])
    assert "the 1 left over are not weights of this network: all its parameters are filled" in text
    assert "wrote" in text and "whole detector, 80 classes" in text
    done = run(place, "import_weights.py", path, "--model=ssd300_mobilenet_v2", f"--output={tmp_path}/o.ckpt")
    assert done.returncode == 2 and f"--model={MODEL}" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    done = run(place, "import_weights.py", path, "--model=ssdlite_mobilenet_v2", f"--output={tmp_path}/o.ckpt")
    assert done.returncode == 2 and f"did you mean '{MODEL}'?" in done.stderr


def test_other_classes_and_other_files(tmp_path):
    four = open_weights(write_npz(tmp_path / "four", foreign(5)))
    assert import_command(four).endswith("=NAME,NAME,.. (its 4 names)'")
    values = foreign(81)
    part = {name: value for name, value in values.items() if not name.startswith("loc.")}
    assert import_command(open_weights(write_npz(tmp_path / "part", part))) is None
    mine = build_model("ssd300_mobilenet_v2", 3, image_size=64, width=0.25).network
    path = write_npz(tmp_path / "ours", {p.name: p.asnumpy() for p in mine.get_parameters()})
    assert import_command(open_weights(path)) is None


def test_tensorflow(shared, tmp_path):
    path, name = shared("weights", "tfjs_ssdlite_mobilenet_v2_coco"), "ssd300_mobilenet_v2_tf"
    for place in (path, f"{path}/model.json"):
        assert import_command(open_weights(place)) == (f"'python import_weights.py {place} --from=tfjs --model={name} "
                                         f"--output=ckpt/{name}.ckpt'")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(place, tmp_path, bad):
    network = build_model("ssd300_mobilenet_v2", 4, image_size=64, width=0.25).network
    values = {one.name: one.asnumpy().copy() for one in network.get_parameters()}
    name = "neck.extras.1.conv.0.0.weight"
    values[name].flat[3] = bad
    path, message = str(tmp_path / "bad.ckpt"), f"bad.ckpt': 1 of the {values[name].size} numbers of {name} are NaN or"
    checkpoint.save(path, [ms.Parameter(ms.Tensor(value), name=one) for one, value in values.items()],
                    {"model": "ssd300_mobilenet_v2", "classes": ["a", "b", "c"], "image_size": 64, "width": 0.25})
    with pytest.raises(DataError, match=message):
        load_pretrained(network, open_weights(path), "ssd300_mobilenet_v2")
    with pytest.raises(DataError, match=message):
        load_model(path, **model_options(read_options([])))


def test_weights_of_nan_are_not_imported(place, tmp_path):
    values = foreign(81)
    values["conf.0.3.bias"] = values["conf.0.3.bias"] * np.nan
    done = run(place, "import_weights.py", write_npz(tmp_path / "nan", values), f"--model={MODEL}",
               f"--output={tmp_path}/o.ckpt")
    assert done.returncode == 3 and "head.cls.0.3.bias are NaN or infinite" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "o.ckpt").exists()
