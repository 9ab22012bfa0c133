"""Files of torch and Paddle: the right numbers, a plain refusal of anything else, and nothing is ever executed."""
import os
import pickle
import struct

import numpy as np
import pytest
from weight_writers import (
    ARRAYS,
    STORAGE,
    called,
    check_arrays,
    check_damage,
    mapping,
    packed,
    plain,
    pushed,
    save_legacy,
    save_zip,
    tensor,
    two_tensors,
    whole,
    whole_tensor,
    write,
)

from src.errors import DataError
from src.weights.files import open_weights
from src.weights.formats.pytorch import GLOBALS, Bystander, Call

SAVERS = pytest.mark.parametrize("save", [save_zip, save_legacy])


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "weights.bin")  # an ending that says nothing


@pytest.mark.parametrize("code", STORAGE)
@SAVERS
def test_torch_types(path, save, code):
    array = np.array([[0, 1, 2], [100, 3, 0]]).astype(code)
    save(path, mapping({"a": whole_tensor("0", array)}), {"0": array.tobytes()},
         **({"width": array.itemsize} if save is save_legacy else {}))
    file = open_weights(path)
    kind, values = file.kind, file.arrays
    assert kind == "torch" and list(values) == ["a"] and values["a"].dtype == array.dtype
    np.testing.assert_array_equal(values["a"], array)


def test_bfloat16_becomes_float32(path):
    body = mapping({"a": tensor("0", "BFloat16", 3, 0, (3,), (1,))})
    save_zip(path, body, {"0": struct.pack("<3H", 0x3F80, 0xC020, 0x7F80)})
    assert open_weights(path).arrays["a"].dtype == np.float32
    assert open_weights(path).arrays["a"].tolist() == [1.0, -2.5, np.inf]


@SAVERS
def test_strides_offsets_and_shared_storages(path, save):
    flat = np.arange(24, dtype=np.float32)
    seen = {"all": (0, (2, 3, 4), (12, 4, 1)), "turned": (0, (4, 3, 2), (1, 4, 12)), "rows": (4, (2, 4), (12, 1)),
            "every_other": (1, (3,), (2,)), "one": (23, (), ()), "empty": (0, (0, 3), (3, 1)),
            "spread": (5, (2, 2), (0, 1))}
    save(path, mapping({name: tensor("7", "Float", 24, *view) for name, view in seen.items()}), {"7": flat.tobytes()})
    values = open_weights(path).arrays
    np.testing.assert_array_equal(values["all"], flat.reshape(2, 3, 4))
    np.testing.assert_array_equal(values["turned"], flat.reshape(2, 3, 4).transpose(2, 1, 0))
    assert values["rows"].tolist() == [[4, 5, 6, 7], [16, 17, 18, 19]]
    assert values["every_other"].tolist() == [1, 3, 5]
    assert values["one"].shape == () and values["one"] == 23
    assert values["empty"].shape == (0, 3)
    assert values["spread"].tolist() == [[5, 6], [5, 6]]
    values["all"][:] = 0  # a copy of its own
    assert values["rows"][0, 0] == 4


@pytest.mark.parametrize("view", [(0, (25,), (1,)), (20, (2, 3), (3, 1)), (-1, (2,), (1,)), (5, (2,), (-1,)),
                                  (0, (-2,), (1,)), (0, (2, 2), (1,)), (0, (10**12,), (1,)), (0, ("a",), (1,)),
                                  (0, 3, 1)])
def test_tensors_outside_of_their_storage(path, view):
    save_zip(path, mapping({"a": tensor("0", "Float", 24, *view)}), {"0": bytes(96)})
    with pytest.raises(DataError, match="weights.bin"):
        open_weights(path)


def test_views_of_older_files(path):
    flat = np.arange(9, dtype=np.float32)
    views = {"a": tensor("0", "Float", 9, 0, (2,), (1,), packed(plain("5"), plain(3), plain(4))),
             "b": tensor("0", "Float", 9, 1, (2,), (1,), plain(None))}
    save_legacy(path, mapping(views), {"0": flat.tobytes()})
    assert {name: value.tolist() for name, value in open_weights(path).arrays.items()} == {"a": [3, 4], "b": [1, 2]}


def test_each_pickle_of_an_older_file_has_its_own_memo(path):
    tensors, storages = two_tensors()
    remembered = b"}\x94" + b"0" + b"h\0"  # a dict, put at the next index, dropped, fetched from index 0
    save_legacy(path, remembered + b"(" + plain("a") + tensors["a"] + b"u", {"0": storages["0"]}, protocol=4)
    assert list(open_weights(path).arrays) == ["a"]


def test_big_endian_files(path):
    array = np.array([1.5, -2], ">f4")
    save_zip(path, mapping({"a": tensor("0", "Float", 2, 0, (2,), (1,))}), {"0": array.tobytes()}, "big")
    assert open_weights(path).arrays["a"].tolist() == [1.5, -2] and open_weights(path).arrays["a"].dtype == np.float32


@pytest.mark.parametrize("keys", [(), ("state_dict",), ("model",), ("model_state_dict",), ("ema",), ("network",),
                                  ("model", "state_dict"), ("net",), ("weights",), ("model_state",),
                                  ("ema_net", "params"), ("a", "b", "c", "d", "e", "f")])
def test_state_dicts_inside_of_checkpoints(path, keys):
    tensors, storages = two_tensors()
    body = mapping(tensors)
    for key in reversed(keys):
        others = {"epoch": plain(3), "best": plain(0.5), "size": called("torch.Size", plain((2, 3))),
                  "where": called("torch.device", plain("cpu")), "loss": tensors["b"],
                  "optimizer": mapping({"lr": plain(1)})}
        body = mapping({**others, key: body})
    save_zip(path, body, storages)
    values = open_weights(path).arrays
    assert list(values) == ["a", "b"] and values["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and values["b"].tolist() == [5]


def test_the_largest_of_several_state_dicts_and_no_optimiser(path):
    tensors, storages = two_tensors()
    moments = mapping({f"moment_{name}": tensors["a"] for name in range(5)})
    lists = b"]" + mapping({"first": tensors["a"], **tensors}) + b"a"
    save_zip(path, mapping({"step": tensors["b"], "optimizer": moments, "G_optim": moments, "nets": lists}), storages)
    assert list(open_weights(path).arrays) == ["first", "a", "b"]
    save_zip(path, mapping({**tensors, "extra": mapping({"c": tensors["a"]})}), storages)
    assert list(open_weights(path).arrays) == ["a", "b"]
    save_zip(path, b"}\x94" + b"(" + plain("self") + b"h\0" + plain("net") + mapping(tensors) + b"u", storages)
    assert list(open_weights(path).arrays) == ["a", "b"]  # a dict inside of itself
    save_zip(path, mapping({"optimizer": moments}), storages)
    with pytest.raises(DataError, match="there are no tensors in it"):
        open_weights(path)


def test_ordered_dicts_and_parameters(path):
    tensors, storages = two_tensors()
    entries = b"(" + plain("module.a") + called("torch._utils._rebuild_parameter", tensors["a"], plain(True),
                                                called("collections.OrderedDict"))
    entries += plain("module.module.b") + tensors["b"] + b"u"
    attributes = mapping({"_metadata": mapping({"version": plain(1)}), "items": plain("no function")}) + b"b"
    save_zip(path, called("collections.OrderedDict") + entries + attributes, storages)
    values = open_weights(path).arrays
    assert list(values) == ["module.a", "module.module.b"] and values["module.a"].tolist() == [[0, 1, 2], [3, 4, 5]]


MARK = "touch {0}"
HOSTILE = {
    "posix.system": called("posix.system", plain(MARK)),
    "os.system": called("os.system", plain(MARK)),
    "builtins.eval": called("builtins.eval", plain("open('{0}', 'w')")),
    "builtins.exec": plain("builtins") + plain("exec") + b"\x93" + packed(plain("open('{0}', 'w')")) + b"R",
    "subprocess.Popen": b"(" + plain(MARK) + plain(-1) + plain(None) * 6 + plain(True) + b"isubprocess\nPopen\n",
}


def save_plain(path, body, storages):
    """One pickle alone, as Paddle writes it."""
    write(path, whole(body))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("save", [save_zip, save_legacy, save_plain])
def test_hostile_pickles_are_refused_and_not_executed(path, tmp_path, save, name):
    mark = str(tmp_path / "was_here")
    tensors, storages = two_tensors()
    evil = HOSTILE[name].replace(plain(MARK), plain(MARK.format(mark))).replace(plain("{0}"), plain(mark))
    evil = evil.replace(plain("open('{0}', 'w')"), plain(f"open('{mark}', 'w')"))
    assert b"{0}" not in evil
    save(path, mapping({**tensors, "evil": evil}), storages)
    with pytest.raises(DataError, match=f"wants to call {name};") as refused:
        open_weights(path)
    assert str(refused.value).count("\n") == 0
    assert not os.path.exists(mark)


def test_the_hostile_pickles_would_work_elsewhere(tmp_path):
    mark = tmp_path / "was_here"
    pickle.loads(whole(called("posix.system", plain(MARK.format(mark)))))
    assert mark.exists()


@pytest.mark.parametrize("name", sorted({f"{module}.{name}" for module, name in GLOBALS} | {"a.Class"}))
def test_a_pickle_cannot_change_what_stands_for_a_global(path, name):
    body = pushed(name) + packed(plain(None), mapping({"value": plain("changed"), "__init__": plain(1)})) + b"b"
    save_zip(path, mapping({"a": body}), {})
    before = {cls: dict(vars(cls)) for cls in [*GLOBALS.values(), Call, Bystander]}
    with pytest.raises(DataError):
        open_weights(path)
    assert all(dict(vars(cls)) == attributes for cls, attributes in before.items())


INSIDE_ITSELF = b"}q\x09" + plain("model") + b"h\x09s"


@pytest.mark.parametrize("body", [plain(1), plain("text"), b"]", b"}", mapping({"epoch": plain(1)}), INSIDE_ITSELF])
def test_files_without_tensors(path, body):
    save_zip(path, body, {})
    with pytest.raises(DataError, match="no tensors"):
        open_weights(path)


def test_other_persistent_objects(path):
    save_zip(path, mapping({"a": packed(*[plain("module")] * 5) + b"Q"}), {})
    with pytest.raises(DataError, match="refers to a 'module'"):
        open_weights(path)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_paddle(path, protocol):
    saved = {**ARRAYS, "epoch": np.int64(3), "StructuredToParameterName@@": {"weight": "conv2d_0.w_0"}}
    write(path, pickle.dumps(saved, protocol))
    file = open_weights(path)
    kind, values = file.kind, file.arrays
    assert kind == "paddle"
    check_arrays(values)


def test_paddle_of_numpy_2_and_python_2(path):
    data = pickle.dumps(ARRAYS, 2)
    write(path, data.replace(b"numpy.core.multiarray", b"numpy._core.multiarray"))
    check_arrays(open_weights(path).arrays)
    dtype = called("numpy.dtype", plain("i2"), plain(0), plain(1))
    dtype += packed(plain(3), plain("<"), *[plain(None)] * 3, plain(-1), plain(-1), plain(0)) + b"b"
    state = packed(plain(1), plain((2,)), dtype, plain(False), b"U\x04\xff\xff\x02\x00")
    body = called("numpy.core.multiarray._reconstruct", pushed("numpy.ndarray"), plain((0,)), b"U\x01b") + state + b"b"
    write(path, whole(mapping({"a": body})))
    assert open_weights(path).arrays["a"].tolist() == [-1, 2]


@pytest.mark.parametrize("value", [np.array([None, 1]), np.array(["text"]), np.array([(1, 2.0)], "i4,f4")])
def test_arrays_of_anything_but_numbers(path, value):
    write(path, pickle.dumps({"a": value}, 2))
    with pytest.raises(DataError):
        open_weights(path)


@pytest.mark.parametrize("save", [save_zip, save_legacy])
def test_damaged_torch_files(path, save):
    tensors, storages = two_tensors()
    save(path, mapping({"a": tensors["a"]}), {"0": storages["0"]})
    with open(path, "rb") as file:
        check_damage(path, file.read())


@pytest.mark.parametrize("protocol", [2, 4])
def test_damaged_paddle_files(path, protocol):
    check_damage(path, pickle.dumps(ARRAYS, protocol))


def test_the_torchvision_weights(shared, tmp_path):
    path = shared("weights/mobilenet_v2-b0353104.pth")
    file = open_weights(path)
    kind, values = file.kind, file.arrays
    assert kind == "torch" and len(values) == 314
    trained = [value.size for name, value in values.items() if "num_batches" not in name and "running" not in name]
    assert sum(trained) == 3504872
    assert values["features.0.0.weight"].shape == (32, 3, 3, 3) and values["classifier.1.weight"].shape == (1000, 1280)
    assert values["features.0.1.num_batches_tracked"].shape == () and all(np.isfinite(v).all() for v in values.values())
    assert (values["features.18.1.running_var"] > 0).all()
    cut = str(tmp_path / "cut.pth")
    for length in (1000, 40000, 60000, 14212971):
        write(cut, open(path, "rb").read()[:length])
        with pytest.raises(DataError, match="damaged"):
            open_weights(cut)
