"""Caffe's .caffemodel: the new and the old layout, damage, and who else begins with the same byte."""
import mindspore as ms
import numpy as np
import pytest
from caffe_files import caffemodel, field
from weight_writers import check_damage, write

from src.errors import DataError
from src.weights import checkpoint
from src.weights.caffe_names import from_caffe
from src.weights.files import open_weights

ARRAYS = {"conv.0": np.arange(24.0).reshape(2, 3, 2, 2), "conv.1": np.array([1.0, -2]), "norm.0": np.array([0.5])}


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "weights.bin")


@pytest.mark.parametrize("name", ["VGG_SSD", "", "a" * 200])
def test_layers(path, name):
    write(path, caffemodel(ARRAYS, name=name))
    file = open_weights(path)
    assert file.kind == "caffe" and list(file.arrays) == list(ARRAYS)
    assert all(np.array_equal(file.arrays[key], ARRAYS[key]) for key in ARRAYS)


def test_the_layout_until_2014(path):
    write(path, caffemodel(ARRAYS, old=True))
    arrays = open_weights(path).arrays
    assert arrays["conv.1"].shape == (1, 1, 1, 2) and np.array_equal(arrays["conv.0"], ARRAYS["conv.0"])


def test_64_bits_and_layers_without_arrays(path):
    double = field(7, field(1, b"\2")) + field(8, np.array([1.5, 2]).tobytes())
    write(path, field(1, "net") + field(100, field(1, "relu") + field(2, "ReLU"))
          + field(100, field(1, "a") + field(7, double)))
    assert open_weights(path).arrays["a.0"].tolist() == [1.5, 2]


def test_damage(path):
    check_damage(path, caffemodel(ARRAYS))
    wrong = field(7, field(1, b"\3\3")) + field(5, bytes(8))
    for layer, message in ((field(7, wrong), "'a' has 2 numbers for the shape .3, 3."),
                           (field(7, field(7, field(1, b"\3"))), "layer 'a' has no numbers for the shape .3."),
                           (field(7, field(7, field(1, b"\xff" * 9 + b"\1"))), "layer 'a' has no numbers")):
        write(path, field(1, "net") + field(100, field(1, "a") + layer))
        with pytest.raises(DataError, match=message):
            open_weights(path)
    write(path, field(1, "net") + field(100, field(1, "relu")))
    with pytest.raises(DataError, match="there are no tensors in it"):
        open_weights(path)


def test_a_checkpoint_of_mindspore_is_another_file(tmp_path):
    path = str(tmp_path / "a.ckpt")
    checkpoint.save(path, [ms.Parameter(ms.Tensor(np.ones(3, np.float32)), name="a")], {})
    assert open_weights(path).kind == "mindspore"


def test_places_and_layouts_by_hand():
    first = np.arange(3.0).reshape(1, 3, 1, 1)  # of blue, green, red
    ours = from_caffe({"conv1_1.0": first, "conv1_1.1": np.ones((1, 1, 1, 1)), "conv4_3_norm.0": np.ones((1, 1, 1, 5)),
                       "fc7_mbox_conf.1": np.ones(3), "fc7_mbox_conf.0": np.ones((3, 1, 1, 1)), "conv10_2.0": first,
                       "mbox_loc.0": first})
    assert ours["backbone.features.0.weight"].ravel().tolist() == [2, 1, 0]
    assert ours["backbone.l2_norm.weight"].shape == (5,)
    assert ours["backbone.features.0.bias"].shape == (1,) and "head.cls.1.bias" in ours and "mbox_loc.0" in ours
    assert ours["neck.extras.4.2.weight"].ravel().tolist() == [0, 1, 2]


def test_batch_norm_and_scale_by_hand():
    """Caffe keeps sums and their weight; a bias without norms is what the norm adds."""
    ours = from_caffe({"conv0.0": np.ones((1, 3, 1, 1)), "conv0/bn.0": np.array([4.0]), "conv0/bn.1": np.array([6.0]),
                       "conv0/bn.2": np.array([2.0]), "conv0/scale.0": np.array([7.0]),
                       "conv0/scale.1": np.array([8.0]), "conv1/dw.0": np.ones((1, 1, 3, 3)),
                       "conv1/dw.1": np.array([9.0])})
    norms = {name.removeprefix("backbone.features."): value.tolist() for name, value in ours.items() if value.ndim == 1}
    assert norms == {"0.1.moving_mean": [2], "0.1.moving_variance": [3], "0.1.gamma": [7], "0.1.beta": [8],
                     "1.1.moving_mean": [0], "1.1.moving_variance": [np.float32(1 - 1e-5)], "1.1.gamma": [1],
                     "1.1.beta": [9]}


def test_the_second_square_goes_behind_the_ratios():
    ours = from_caffe({"conv0.0": np.ones((1, 3, 1, 1)), "conv13_mbox_conf.0": np.arange(12.0).reshape(12, 1, 1, 1),
                       "conv11_mbox_conf.0": np.arange(6.0).reshape(6, 1, 1, 1)})
    assert ours["head.cls.1.weight"].ravel().tolist() == [0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3]
    assert ours["head.cls.0.weight"].ravel().tolist() == [0, 1, 2, 3, 4, 5]
