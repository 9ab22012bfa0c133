"""Files of TensorFlow: checkpoints of 1 and 2, a SavedModel, a frozen graph. Real ones, and damaged ones."""
import os
import shutil

import mindspore as ms
import numpy as np
import pytest
from weight_writers import constant, field, number_field, save_bundle, tensor_proto, write

from src.errors import DataError, OptionError
from src.weights import checkpoint
from src.weights.files import open_weights
from src.weights.formats import frozen_graph
from src.weights.formats.crc32c import crc32c, masked_crc32c
from src.weights.formats.frozen_graph import MAX_REPEATED
from src.weights.formats.tensor_bundle import KEY_END, TRAINING_STATE

READER = ("..", "parity", "tensorflow", "reader")
FOLDERS = {"bundle_two_shards": "tiny", "tf1_saver": "model.ckpt", "object_checkpoint": "ckpt-0", "saved_model": "",
           "frozen_graph": "frozen_inference_graph.pb"}
FULL_NAMES = {"object_checkpoint": "Net/BoxPredictor/bias", "saved_model": "Net/BoxPredictor/bias"}


def crc_by_hand(data):
    """CRC-32C bit by bit."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_checksums():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the algorithm
    assert crc32c(bytes(32)) == 0x8A9136AA     # RFC 3720, B.4
    rng = np.random.default_rng(0)
    for length in (0, 1, 2, 3, 4, 5, 15, 16, 17, 255, 256, 257, 1000):
        data = rng.bytes(length)
        assert crc32c(data) == crc_by_hand(data), length
    assert masked_crc32c(b"1234", b"56789") == (((0xE3069283 >> 15) | (0xE3069283 << 17)) + 0xA282EAD8) % 2 ** 32


@pytest.mark.parametrize("folder", FOLDERS)
def test_real_files(folder, shared):
    """All numbers of each; those of TensorFlow 2 by the names of the variables, without the state of a training."""
    root = shared(*READER)
    expected = {key.removeprefix(f"{folder}:").removesuffix("#bf16"): array
                for key, array in np.load(os.path.join(root, "expected.npz")).items() if key.startswith(f"{folder}:")}
    file = open_weights(os.path.join(root, folder, FOLDERS[folder]))
    assert file.kind == "tensorflow"
    if folder in FULL_NAMES:
        assert FULL_NAMES[folder] in file.arrays
        expected = {key: array for key, array in expected.items() if not TRAINING_STATE.fullmatch(key)}
        unnamed = sorted(expected.values(), key=lambda array: array.tobytes())
        assert len(unnamed) == len(file.arrays) and all(np.array_equal(one, other) for one, other in zip(
            unnamed, sorted(file.arrays.values(), key=lambda array: array.tobytes())))
        return
    assert {key for key in expected if not key.endswith("#hex")} == set(file.arrays)
    for name, array in file.arrays.items():
        assert array.dtype == expected[name].dtype and array.flags.writeable, name
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


WEIGHTS = {"a/weights": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([7], np.int64),
           "c": np.arange(3000, dtype=np.float32)}


def test_a_written_bundle_is_found_by_each_of_its_names(tmp_path):
    path = save_bundle(tmp_path / "checkpoint" / "ckpt-7", WEIGHTS)
    (tmp_path / "saved_model" / "variables").mkdir(parents=True)
    for given in (f"{path}.index", path, f"{path}.data-00000-of-00001", tmp_path / "checkpoint", tmp_path):
        arrays = open_weights(str(given)).arrays
        assert arrays.keys() == WEIGHTS.keys() and all(np.array_equal(arrays[key], WEIGHTS[key]) for key in arrays)
    save_bundle(tmp_path / "saved_model" / "variables" / "variables", {"x": WEIGHTS["b"]})
    for given in ("saved_model", "saved_model/saved_model.pb", "saved_model/variables"):
        assert list(open_weights(str(tmp_path / given)).arrays) == ["x"]
    save_bundle(tmp_path / "checkpoint" / "ckpt-8", WEIGHTS)
    with pytest.raises(OptionError, match=r"give one of the files in '.*checkpoint': ckpt-7\.index, ckpt-8\.index$"):
        open_weights(str(tmp_path / "checkpoint"))


def test_two_variables_of_one_name_keep_their_keys(tmp_path):
    weights = {f"model/{key}{KEY_END}": array for key, array in (("a", WEIGHTS["b"]), ("b", WEIGHTS["c"]))}
    path = save_bundle(tmp_path / "ckpt", weights, names=["same", "same"])
    assert set(open_weights(path).arrays) == {"model/a", "model/b"}
    path = save_bundle(tmp_path / "ckpt", weights, names=["one", "other"])
    assert set(open_weights(path).arrays) == {"one", "other"}


def test_a_missing_cut_or_changed_data_file(tmp_path):
    path = save_bundle(tmp_path / "ckpt", WEIGHTS)
    data = (tmp_path / "ckpt.data-00000-of-00001").read_bytes()
    for content, message in ((data[:-1], "data files 12031: they are cut short"),
                             (data[:40] + b"\x01" + data[41:], "checksum of 'c' is wrong"),
                             (bytes(len(data)), "checksum of 'a/weights' is wrong")):
        write(f"{path}.data-00000-of-00001", content)
        with pytest.raises(DataError, match=message):
            open_weights(path)
    os.remove(f"{path}.data-00000-of-00001")
    with pytest.raises(DataError, match="data file '.*ckpt.data-00000-of-00001' is missing"):
        open_weights(path)


@pytest.mark.parametrize("changes, message", [
    ({"dtype": 20}, "'b' has the type number 20"), ({"shape": [3]}, "'b' has 8 bytes for the shape .3. of i8"),
    ({"offset": 10 ** 12}, "'b' ends at 1000000000008"),
    ({"size": 10 ** 15}, "its tensors have 1000000000012024 bytes"),
    ({"shape": [2 ** 62, 4]}, "8 bytes for the shape"), ({"shape": [-1]}, "has the shape .-1."),
    ({"shard": 3}, "'b' is in data file 3 of 1"), ({"size": 2 ** 63}, "'b' has -9223372036854775808 bytes"),
    ({"compression": 1}, "compression 1; only 0"), ({"shards": 10 ** 9}, "data file '.*-of-1000000000' is missing"),
    ({"key": ""}, "out of order")])
def test_hostile_bundles(tmp_path, changes, message):
    path = save_bundle(tmp_path / "ckpt", WEIGHTS, **changes)
    with pytest.raises(DataError, match=message) as raised:
        open_weights(path)
    assert "\n" not in str(raised.value)


def test_damaged_anywhere(tmp_path, shared):
    """Any cut and any changed byte gives one named error, or values: never another error, never much memory."""
    for folder, name in (("tf1_saver", "model.ckpt.index"), ("bundle_two_shards", "tiny.index"),
                         ("frozen_graph", "frozen_inference_graph.pb")):
        shutil.copytree(shared(*READER, folder), tmp_path / folder, copy_function=shutil.copyfile)
        os.chmod(tmp_path / folder, 0o755)
        path = str(tmp_path / folder / name)
        with open(path, "rb") as file:
            content = file.read()
        rng, refused = np.random.default_rng(0), 0
        changed = [content[:length] for length in range(1, len(content), 7)]
        for place in rng.integers(len(content), size=150):
            changed.append(content[:place] + bytes([rng.integers(256)]) + content[place + 1:])
        for data in changed:
            write(path, data)
            try:
                open_weights(path)
            except DataError as error:
                refused += 1
                assert "\n" not in str(error)
        assert refused > len(changed) // 2 or folder == "frozen_graph"  # which has no checksums


# --- frozen graphs

def test_a_graph_by_hand(tmp_path):
    path = tmp_path / "graph.pb"
    four = np.arange(4, dtype="<f4")
    raw, one = tensor_proto(1, [2, 2], field(4, four.tobytes())), tensor_proto(1, [3], b"\x2d" + four[2:3].tobytes())
    minus = tensor_proto(3, [1], number_field(7, 2 ** 64 - 5))
    write(path, constant(b"input", b"", b"Placeholder") + constant(b"raw", raw) + constant(b"one", one)
          + constant(b"minus", minus))
    arrays = open_weights(str(path)).arrays
    assert list(arrays) == ["raw", "one", "minus"] and np.array_equal(arrays["raw"], four.reshape(2, 2))
    assert arrays["one"].tolist() == [2, 2, 2] and arrays["minus"].tolist() == [-5]


@pytest.mark.parametrize("value, message", [
    (tensor_proto(1, [2], field(4, bytes(12))), "'x' has 3 numbers for the shape .2."),
    (tensor_proto(99, [1], b""), "'x' has the type number 99"), (tensor_proto(1, [2 ** 40], b""), "repeats one value"),
    (tensor_proto(1, [MAX_REPEATED + 1], b""), "repeats one value 16777217 times"), (b"\x0a", "damaged or cut short")])
def test_hostile_graphs(tmp_path, value, message):
    path = str(tmp_path / "graph.pb")
    write(path, constant(b"x", value))
    with pytest.raises(DataError, match=message):
        open_weights(path)


def test_repeated_values_are_counted_over_all_constants(tmp_path):
    path = str(tmp_path / "graph.pb")
    write(path, constant(b"x", tensor_proto(4, [MAX_REPEATED // 2 + 1], b"")) * 2)
    with pytest.raises(DataError, match="repeats one value"):
        open_weights(path)


def test_a_checkpoint_of_mindspore_is_no_graph(tmp_path):
    path = str(tmp_path / "ours.ckpt")
    checkpoint.save(path, [ms.Parameter(ms.Tensor(WEIGHTS["c"]), name="c")], {})
    other = shutil.copyfile(path, tmp_path / "ours.bin")
    assert open_weights(path).kind == "mindspore"
    with open(other, "rb") as file:
        assert frozen_graph.read(file) is None
