"""State dicts inside of what training programs save: what stands beside the weights is passed over, never called."""
import numpy as np
import pytest
from weight_writers import called, mapping, packed, plain, pushed, save_zip, tensor, two_tensors, whole_tensor

from src.errors import DataError
from src.weights.files import open_weights


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "weights.bin")


# what training programs keep beside the weights; the last ones would run or read something if they were called
BESIDE = {
    "namespace": pushed("argparse.Namespace") + b")\x81" + mapping({"lr": plain(0.1)}) + b"b",
    "list": pushed("omegaconf.listconfig.ListConfig") + b")\x81" + b"(" + plain(1) + plain(2) + b"e",
    "dict": called("collections.defaultdict", pushed("builtins.list")) + plain("a") + plain(1) + b"s",
    "set": b"\x80\x04\x8f(" + plain(1) + b"\x90",
    "with slots": pushed("a.B") + b")}\x92" + packed(mapping({"a": plain(1)}), plain(None)) + b"b",
    "keys": b"}" + pushed("a.B") + b")\x81" + plain(1) + b"s" + pushed("lightning.callbacks.Last") + plain(2) + b"s",
    "bound method": called("__builtin__.getattr", pushed("mmengine.logging.HistoryBuffer"), plain("mean")),
    "type of numbers": pushed("torch.float16"),
    "module": called("torch.load", plain("{0}")),
    "numpy": called("numpy.load", plain("{0}"), plain(None), plain(True)),
    "globals": plain("torch._utils") + plain("_rebuild_tensor_v2.__globals__") + b"\x93",
    "copyreg": called("copyreg._reconstructor", pushed("collections.OrderedDict")),
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_the_weights_is_passed_over(path, name):
    tensors, storages = two_tensors()
    for place in ("hyper_parameters", "optimizer"):
        save_zip(path, mapping({place: BESIDE[name], "state_dict": mapping(tensors)}), storages)
        assert list(open_weights(path).arrays) == ["a", "b"]


def evil(mark):
    """What would write a file if it were called."""
    return called("os.system", plain(f"touch {mark}"))


# where a file may hide a call: beside and inside of what is read, and wherever an object is made of others
HIDDEN = {
    "state_dict": lambda call, tensors: mapping({"state_dict": mapping({**tensors, "a.evil": call})}),
    "ema": lambda call, tensors: mapping({"ema": call, "model": mapping(tensors)}),
    "optimizer": lambda call, tensors: mapping({"model": mapping(tensors), "optimizer": mapping({"state": call})}),
    "a module": lambda call, tensors: module(parameters=mapping(tensors), buffers=mapping({"evil": call})),
    "an argument of a class": lambda call, tensors: mapping({**tensors, "args": called("a.B", call)}),
    "a state of a class": lambda call, tensors: mapping({**tensors, "args": pushed("a.B") + b")\x81"
                                                         + mapping({"evil": call}) + b"b"}),
    "a state of a tensor": lambda call, tensors: mapping({**tensors, "a": tensors["a"] + call + b"b"}),
    "an item of a list": lambda call, tensors: mapping({**tensors, "list": b"](" + plain(1) + call + b"e"}),
    "a name": lambda call, tensors: mapping(tensors) + call + plain(1) + b"s",
    "a storage": lambda call, tensors: mapping({**tensors, "evil": packed(plain("storage"), call) + b"Q"}),
    "what a call gave": lambda call, tensors: mapping({**tensors, "evil": call + packed(plain(1)) + b"R"}),
    "what is dropped": lambda call, tensors: call + b"0" + mapping(tensors),
}


@pytest.mark.parametrize("place", HIDDEN)
def test_a_hidden_call_is_refused_and_not_made(path, tmp_path, place):
    tensors, storages = two_tensors()
    save_zip(path, HIDDEN[place](evil(tmp_path / "mark"), tensors), storages)
    with pytest.raises(DataError, match="wants to call os.system; only tensors are read and nothing is executed"):
        open_weights(path)
    assert not (tmp_path / "mark").exists()


def module(*, parameters, buffers=b"}", modules=b"}", name="torch.nn.modules.container.Sequential"):
    """A pickled module of torch, as torch.save(network) writes it."""
    state = {"training": plain(True), "_parameters": parameters, "_buffers": buffers, "_modules": modules}
    return pushed(name) + b")\x81" + mapping(state) + b"b"


def test_a_pickled_network_gives_the_tensors_of_its_modules(path):
    """As ultralytics keeps it: half precision, the average beside the weights it is of; an absent bias is None."""
    half, storages = np.array([0.5, 2], np.float16), {"0": np.array([0.5, 2], np.float16).tobytes()}
    tensor_of = whole_tensor("0", half)
    inner = module(parameters=mapping({"weight": tensor_of, "bias": plain(None)}), buffers=mapping({"mean": tensor_of}))
    network = module(parameters=b"}", modules=mapping({"0": inner, "1": plain(None)}), name="models.yolo.Model")
    save_zip(path, network, storages)
    values = open_weights(path).arrays
    assert list(values) == ["0.weight", "0.mean"] and values["0.weight"].tolist() == [0.5, 2]
    average = module(parameters=mapping({"average": tensor_of}))
    for body in ({"model": network, "ema": average}, {"ema": average, "model": plain(None), "optimizer": network}):
        save_zip(path, mapping(body), storages)
        assert list(open_weights(path).arrays) == ["average"]
    save_zip(path, mapping({"model": network, "ema": plain(None)}), storages)
    assert list(open_weights(path).arrays) == ["0.weight", "0.mean"]


def test_a_network_inside_itself(path):
    tensors, storages = two_tensors()
    modules = mapping({"self": b"h\x09"})
    body = pushed("a.Net") + b")\x81q\x09" + mapping({"_parameters": mapping(tensors), "_buffers": b"}",
                                                     "_modules": modules}) + b"b"
    save_zip(path, body, storages)
    assert list(open_weights(path).arrays) == ["a", "b"]


def test_an_unknown_type_of_numbers(path):
    save_zip(path, mapping({"a": tensor("0", "Float8_e4m3fn", 1, 0, (1,), (1,))}), {"0": b"1"})
    with pytest.raises(DataError, match="a tensor in it has the type 'Float8_e4m3fnStorage'; known are DoubleStorage"):
        open_weights(path)
