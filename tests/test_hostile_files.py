"""Files that mean harm: code in pickles, bombs, names that lead elsewhere, headers that promise gigabytes."""
import ast
import glob
import io
import os
import pickle
import struct
import zipfile

import cv2
import numpy as np
import pytest
import weight_writers as writers
import yaml
from conftest import Caller, txt_tree

from src.config import read_options
from src.data.annotations import Place, read_text
from src.data.findings import Report
from src.data.labelme import labelme_split
from src.data.per_image import files_below
from src.data.voc import read_xml
from src.data.yolo_files import read_data_yaml, yaml_images
from src.errors import DataError, OptionError
from src.recipes import read_recipe, read_yaml
from src.weights.files import open_weights
from src.weights.formats.archive import FREE_BYTES

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCES = [path for pattern in ("*.py", "scripts/*.py", "src/**/*.py")
           for path in glob.glob(os.path.join(ROOT, pattern), recursive=True)]
# what runs code that a file holds: the calls, and the keywords that let numpy and PyTorch do it
RUNS_CODE = {"pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load", "joblib.load", "dill.load",
             "marshal.loads", "shelve.open", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec",
             "os.system", "pd.read_pickle"}


def calls(path):
    """(name as it is written, the call) of all calls in a file."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def runs_code(name, call):
    """Whether a call may run what a file holds. src.recipes.load_yaml reads YAML, and bounds what aliases stand for."""
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    allowed = any(keywords.get(name, "False") != "False" for name in ("allow_pickle", "shell"))
    return name in RUNS_CODE or allowed or (name == "np.load" and "allow_pickle" not in keywords)


def test_nothing_runs_what_a_file_holds():
    assert len(SOURCES) > 100
    found = [f"{os.path.relpath(path, ROOT)}:{call.lineno} {name}" for path in SOURCES for name, call in calls(path)
             if runs_code(name, call)]
    assert not found


class Evil:
    """A pickle of it calls os.system when it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "paddle", "npz", "npy"])
def test_a_pickle_with_code_is_refused(tmp_path, form):
    mark, path = tmp_path / "ran", str(tmp_path / "x.pth")
    data = pickle.dumps({"w": Evil(mark)}, 2)
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", data)
    elif form == "npz":
        np.savez(path, w=np.array([Evil(mark)], object))
        path += ".npz"
    elif form == "npy":
        np.save(path, np.array([Evil(mark)], object))
        path += ".npy"
    else:
        writers.save_legacy(path, data[2:-1], {}) if form == "legacy" else writers.write(path, data)
    with pytest.raises(DataError):
        open_weights(path)
    assert not mark.exists()


def test_yaml_makes_no_objects(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(f"lr: !!python/object/apply:os.system ['touch {tmp_path}/ran']\n")
    with pytest.raises(OptionError, match="could not determine a constructor"):
        read_recipe(str(path))
    assert not (tmp_path / "ran").exists()


# --- small files that would fill the memory, or never end

DEEP_TUPLE = b"\x80\x02}K\x01" + b"\x85" * 1_000_000 + b"K\x01s."  # its hash would overflow the stack
DOUBLED = b"\x80\x02}K\x01\x85" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60)) + b"K\x01s."  # 2 ** 60 parts
FAR_MEMO = b"\x80\x02}r\xff\xff\xff\x7f."  # the memo of C's unpickler: 16 GiB
LONG_BYTES = b"\x80\x05\x96" + struct.pack("<Q", 1 << 36) + b"abc."  # a bytearray of 64 GiB


@pytest.mark.parametrize(
    "data, message",
    [(DEEP_TUPLE, "nested 101 deep"), (DOUBLED, "parts; the file is damaged"), (FAR_MEMO, "no tensors"),
     (LONG_BYTES, "damaged or cut short"), (b"\x80\x02(K\x01ccollections\nOrderedDict\n\x88tQ.", "only storages")],
)
def test_pickle_bombs(tmp_path, data, message):
    writers.write(tmp_path / "x.pdparams", data)
    with pytest.raises(DataError, match=message):
        open_weights(str(tmp_path / "x.pdparams"))


def test_a_tensor_may_not_show_one_number_a_billion_times(tmp_path):
    path = str(tmp_path / "x.pth")
    many = FREE_BYTES // 4 + 100
    for count, fits in ((1000, True), (many, False)):
        writers.save_zip(
            path, writers.mapping({"a": writers.tensor("0", "Float", 1, 0, (count,), (0,))}), {"0": bytes(4)}
        )
        if fits:
            assert open_weights(path).arrays["a"].shape == (count,)
        else:
            with pytest.raises(DataError, match="again and again"):
                open_weights(path)


def test_zip_bombs(tmp_path):
    path = str(tmp_path / "x.npz")
    stream = io.BytesIO()
    np.save(stream, np.zeros(FREE_BYTES // 2, np.uint8))
    for name, count in (("small", 1), ("bomb", 3)):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(count):
                archive.writestr(f"{number}.npy", stream.getvalue())
        if name == "small":
            assert open_weights(path).arrays["0"].size == FREE_BYTES // 2
        else:
            with pytest.raises(DataError, match="zip bomb"):
                open_weights(path)


@pytest.mark.parametrize(
    "paths, message",
    [(["../secret"], "is outside of its folder"), (["/etc/passwd"], "is outside of its folder"),
     (["a/../../x"], "is outside of its folder"), (["s", "s"], "named twice")],
)
def test_shards_of_tensorflow_js_stay_in_their_folder(tmp_path, paths, message):
    path = writers.save_tfjs(str(tmp_path / "m"), [([{"name": "f", "dtype": "uint8", "shape": [2]}], [b"ab"])])
    assert open_weights(path).arrays["f"].tolist() == [97, 98]
    (tmp_path / "m" / "s").write_bytes(b"a")
    text = (tmp_path / "m" / "model.json").read_text()
    (tmp_path / "m" / "model.json").write_text(text.replace('["group1-shard1of1"]', str(paths).replace("'", '"')))
    with pytest.raises(DataError, match=message):
        open_weights(path)


def test_tensors_of_safetensors_may_hardly_overlap(tmp_path):
    entries = {f"t{number}": {"dtype": "U8", "shape": [1 << 20], "data_offsets": [0, 1 << 20]} for number in range(99)}
    header = str(entries).replace("'", '"').encode()
    writers.write(tmp_path / "x.safetensors", struct.pack("<Q", len(header)) + header + bytes(1 << 20))
    with pytest.raises(DataError, match="its tensors overlap"):
        open_weights(str(tmp_path / "x.safetensors"))


LAUGHS = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'lol'}]\n" for i in range(12))


@pytest.mark.parametrize(
    "text, message",
    [(LAUGHS, "aliases .* stand for more than"), ("a: &a [*a]\n", "aliases .* stand for more than"),
     ("[" * 5000, "nested too deep"), ("a: !!int x", "invalid literal"), ("a: !!timestamp x", "is not"),
     ("a: !!bool maybe", "is not"), ("? [a]\n: b", "unhashable")],
)
def test_yaml_that_is_not_sound(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(OptionError, match=message if "!!" not in text else "is not valid YAML"):

        read_yaml(str(path))
    if "!!" not in text and "?" not in text:
        with pytest.raises(DataError, match=message):
            read_data_yaml(str(path))


def test_lists_on_the_command_line_that_are_nested_deep():
    with pytest.raises(OptionError, match="expected a list"):
        read_options([f"--classes={'[' * 5000}"])


def test_a_nul_and_half_a_letter_are_no_text_of_an_option(tmp_path):
    for text in ('"a\\0b"', '"\\ud800"'):
        (tmp_path / "x.yaml").write_text(f"output_path: {text}\n")
        with pytest.raises(OptionError, match="expected a text"):
            read_options([f"--config_path={tmp_path / 'x.yaml'}"])


def test_recipes_that_lead_on_and_on(tmp_path):
    for number in range(30):
        (tmp_path / f"{number}.yaml").write_text(f"_base_: {number + 1}.yaml\n")
    with pytest.raises(OptionError, match="through more than 20 recipes"):
        read_recipe(str(tmp_path / "0.yaml"))


def test_entities_of_xml(tmp_path):
    """Entities of entities end with an error of the parser; those of other files are not fetched."""
    bomb = "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10 if i else 'lol'}'>" for i in range(10))
    path = tmp_path / "a.xml"
    path.write_text(f"<!DOCTYPE a [{bomb}]><annotation>&a9;</annotation>")
    with pytest.raises(Exception, match="amplification"):
        read_xml(str(path))
    (tmp_path / "secret").write_text("secret")
    path.write_text(
        f"<!DOCTYPE a [<!ENTITY x SYSTEM 'file://{tmp_path}/secret'>]><annotation><name>&x;</name></annotation>"
    )
    with pytest.raises(Exception, match="undefined entity"):
        read_xml(str(path))


# --- files that are none, folders without end


def test_a_text_is_read_from_a_regular_file_only(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "pipe"), "/dev/zero", str(tmp_path)):
        with pytest.raises(DataError, match="cannot be read"):
            read_text(path)
    (tmp_path / "data.yaml").write_text("names: [a]\ntrain: /dev/zero\n")

    with pytest.raises(DataError, match="'/dev/zero' cannot be read: not a regular file"):
        yaml_images(str(tmp_path / "data.yaml"), "train")


def test_a_pipe_among_annotations_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    report = Report()
    with pytest.raises(DataError, match="not a regular file"):
        labelme_split("train", Place(anno_path=str(tmp_path))).read(classes=[], report=report)


def test_links_that_multiply_folders_are_followed_once(tmp_path):
    (tmp_path / "f39").mkdir()
    (tmp_path / "f39" / "a.png").write_bytes(b"")
    for number in range(38, -1, -1):  # each folder holds two links to the next: 2 ** 39 ways to the picture
        (tmp_path / f"f{number}").mkdir()
        for name in "ab":
            os.symlink(tmp_path / f"f{number + 1}", tmp_path / f"f{number}" / name)
    os.symlink(tmp_path / "f0", tmp_path / "f39" / "back")
    assert len(files_below(str(tmp_path / "f0"), ".png")) <= 1
    assert len(files_below(str(tmp_path / "f30"), ".png")) == 1


# --- names that lead out of the folder


def test_names_of_images_are_followed_and_those_outside_are_told(tmp_path):
    txt_tree(tmp_path, f"a.png 1,1,9,9,cat\n../other/b.png 1,1,9,9,cat\n{tmp_path}/other/c.png 2,2,9,9,cat\n",
             images=["a.png"])
    os.makedirs(tmp_path / "other")
    for name in ("b.png", "c.png"):
        cv2.imwrite(str(tmp_path / "other" / name), np.full((20, 40, 3), 90, np.uint8))
    call = Caller(tmp_path)
    assert call.txt().count == 3
    told = [line for line in call.said if "outside of" in line]
    assert len(told) == 1 and told[0].startswith("2 of 3 images lie outside of") and "other/b.png" in told[0]


def test_the_programs_listen_on_this_machine_only_unless_told():
    with open(os.path.join(ROOT, "config", "default.yaml"), encoding="utf-8") as file:
        assert yaml.safe_load(file)["host"] in ("127.0.0.1", "localhost")
