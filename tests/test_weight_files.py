"""Weight files of other programs that are no pickles, and those that are none at all."""
import os
import struct
import zipfile

import mindspore as ms
import numpy as np
import pytest
from weight_writers import ARRAYS, SAFE, check_arrays, check_damage, safetensors, save_tfjs, write

from src.boxes import to_corners
from src.errors import DataError, OptionError
from src.models.ssd import build_model
from src.weights import checkpoint
from src.weights.files import open_weights


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "weights.bin")  # an ending that says nothing


def test_npz(path):
    with open(path, "wb") as file:
        np.savez_compressed(file, **ARRAYS)
    file = open_weights(path)
    kind, values = file.kind, file.arrays
    assert kind == "npz"
    check_arrays(values)
    with open(path, "wb") as file:
        np.savez(file, a=np.array([{"a": 1}], object))
    with pytest.raises(DataError, match="allow_pickle"):
        open_weights(path)


def test_safetensors(path):
    write(path, safetensors())
    file = open_weights(path)
    kind, values = file.kind, file.arrays
    assert kind == "safetensors"
    check_arrays(values, SAFE.values())
    write(path, safetensors(upper={"dtype": "BF16", "shape": [], "data_offsets": [0, 2]}))
    assert open_weights(path).arrays["upper"].dtype == np.float32


@pytest.mark.parametrize("changes, message", [
    ({"dtype": "F8_E4M3"}, "'weight' has the type F8_E4M3"), ({"shape": [5]}, "12 numbers for the shape .5."),
    ({"shape": [-1, 4]}, "12 numbers for the shape"), ({"data_offsets": [0, 9999]}, "lies at 0..9999"),
    ({"data_offsets": [48, 0]}, "lies at 48..0"), ({"data_offsets": [-8, 40]}, "lies at -8..40"),
    ({"data_offsets": [0, 47]}, "damaged"), ({"shape": "text"}, "damaged"), ({"data_offsets": None}, "damaged")])
def test_damaged_safetensors(path, changes, message):
    write(path, safetensors(changes))
    with pytest.raises(DataError, match=message):
        open_weights(path)


def quantized(name, kind, shape, stored, **how):
    return {"name": name, "dtype": kind, "shape": shape, "quantization": {"dtype": stored, **how}}


def test_tfjs_with_shards_and_quantized_weights(tmp_path):
    floats, flags = np.arange(6, dtype=np.float32), np.array([True, False, True])
    data = floats.tobytes() + np.array([-7], np.int32).tobytes()
    first = ([{"name": "f", "dtype": "float32", "shape": [2, 3]}, {"name": "i", "dtype": "int32", "shape": []}],
             [data[:5], data[5:]])
    second = ([quantized("q8", "float32", [3], "uint8", scale=0.1, min=-2.0),
               quantized("q16", "float32", [2], "uint16", scale=0.5, min=1.0),
               {"name": "b", "dtype": "bool", "shape": [3]},
               quantized("qi", "int32", [2], "uint8", scale=1.5, min=-3.0), quantized("h", "float32", [1], "float16")],
              [bytes([0, 20, 255]) + struct.pack("<2H", 0, 65535) + flags.tobytes() + bytes([1, 4])
               + np.array([0.1], np.float16).tobytes()])
    path = save_tfjs(str(tmp_path / "model"), [first, second])
    for place in (path, str(tmp_path / "model")):
        file = open_weights(place)
        kind, values = file.kind, file.arrays
        assert kind == "tfjs" and list(values) == ["f", "i", "q8", "q16", "b", "qi", "h"]
    np.testing.assert_array_equal(values["f"], floats.reshape(2, 3))
    assert values["i"].shape == () and values["i"] == -7 and values["i"].dtype == np.int32
    np.testing.assert_array_equal(values["q8"], np.array([-2, 0, 23.5], np.float32))
    assert values["q16"].tolist() == [1, 32768.5] and values["q16"].dtype == np.float32
    assert values["qi"].tolist() == [-1, 3] and values["qi"].dtype == np.int32  # 1.5 - 3 = -1.5 rounds up
    assert values["b"].tolist() == [True, False, True] and values["b"].dtype == bool
    assert values["h"].dtype == np.float32 and values["h"][0] == np.float32(np.float16(0.1))


@pytest.mark.parametrize("shards, message", [
    ([bytes(8), bytes(7)], "damaged"), ([bytes(8), bytes(9)], "17 bytes, model.json says 16"),
    ([bytes(8)], "'f' has 2 numbers for the shape"), ([], "'f' has 0 numbers")])
def test_tfjs_of_another_size(tmp_path, shards, message):
    path = save_tfjs(str(tmp_path), [([{"name": "f", "dtype": "float32", "shape": [4]}], shards)])
    with pytest.raises(DataError, match=message):
        open_weights(path)


def test_damaged_tfjs(tmp_path):
    path = save_tfjs(str(tmp_path), [([{"name": "f", "dtype": "float32", "shape": [1]}], [bytes(2), bytes(2)])])
    os.remove(tmp_path / "group1-shard2of2")
    with pytest.raises(DataError, match="shard '.*group1-shard2of2' is missing"):
        open_weights(path)
    save_tfjs(str(tmp_path), [([{"name": "f", "dtype": "string", "shape": [1]}], [bytes(4)])])
    with pytest.raises(DataError, match="'f' has the type string; known are float32"):
        open_weights(path)
    for text in ('{"a": 1}', '{"weightsManifest": 3}', '{"weightsManifest": [{}]}', '{"weightsManifest": [',
                 '{"a":' * 100000):
        write(path, text.encode())
        with pytest.raises(DataError, match=r"model\.json"):
            open_weights(path)


def test_mindspore(tmp_path):
    path = str(tmp_path / "ours.ckpt")
    checkpoint.save(path, [ms.Parameter(ms.Tensor(ARRAYS["weight"]), name="a.weight")], {"model": "x"})
    file = open_weights(path)
    kind, values = file.kind, file.arrays
    assert kind == "mindspore" and list(values) == ["a.weight"]
    np.testing.assert_array_equal(values["a.weight"], ARRAYS["weight"])
    assert file.meta == {"model": "x"} and file.path == path


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(OptionError, match=r"none\.pth' is not a file"):
        open_weights(str(tmp_path / "none.pth"))
    with pytest.raises(OptionError, match="' holds no weights; give a file of"):
        open_weights(str(tmp_path))
    (tmp_path / "run" / "ckpt").mkdir(parents=True)
    (tmp_path / "run" / "ckpt" / "best.ckpt").write_bytes(b"")
    with pytest.raises(OptionError, match=r"give one of the files in '.*run': ckpt/best\.ckpt$"):
        open_weights(str(tmp_path / "run"))
    path = str(tmp_path / "odd.pth")
    for data in (b"", b"P", b"hello, this is text", b"\x89HDF\r\n\x1a\n", bytes(100)):
        write(path, data)
        with pytest.raises(DataError, match=r"odd.pth'.*unknown format .*\.safetensors.*MindSpore \.ckpt"):
            open_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(DataError, match="zip file without data.pkl"):
        open_weights(path)
    write(str(tmp_path / "odd.ckpt"), b"")
    with pytest.raises(DataError, match="damaged or not a MindSpore checkpoint"):
        open_weights(str(tmp_path / "odd.ckpt"))


def test_the_tensorflow_js_detector(shared):
    file = open_weights(shared("weights/tfjs_ssdlite_mobilenet_v2_coco"))
    kind, values = file.kind, file.arrays
    assert kind == "tfjs" and len(values) == 262
    stored = values["Postprocessor/ExpandDims"][0]  # corners, y before x
    corners = to_corners(build_model("ssd300_mobilenet_v2_tf", 2).anchors)
    np.testing.assert_allclose(stored[:, [1, 0, 3, 2]], corners, atol=1e-6)
    depthwise = values["BoxPredictor_5/ClassPredictor_depthwise/depthwise_weights"]
    assert depthwise.shape == (3, 3, 128, 1) and depthwise.dtype == np.float32 and depthwise.std() > 0.01
    assert values["Preprocessor/map/while/ResizeImage/stack"].tolist() == [300, 300]


def test_files_cut_anywhere_and_bytes_changed_anywhere(tmp_path, path):
    with open(path, "wb") as file:
        np.savez(file, a=ARRAYS["weight"], b=ARRAYS["turned"])
    for content in (open(path, "rb").read(), safetensors()):
        check_damage(path, content)
    model = save_tfjs(str(tmp_path), [([{"name": "f", "dtype": "bool", "shape": [1]}], [b"\1"])])
    check_damage(model, open(model, "rb").read())
