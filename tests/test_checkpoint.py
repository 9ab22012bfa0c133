"""Checkpoints: round trip, damage, other models, what is loaded and what is not."""
import os
import re

import mindspore as ms
import numpy as np
import pytest

from src import checkpoint
from src.errors import DataError, EnvironmentFault, OptionError
from src.models.ssd import build_model


@pytest.fixture(scope="module")
def network():
    return build_model("ssd300_mobilenet_v2", 4, 96, 0.35).network


@pytest.fixture
def saved(network, tmp_path):
    path = str(tmp_path / "a.ckpt")
    checkpoint.save(path, network.get_parameters(), {"classes": ["ä", "b", "c"], "best": 0.5})
    return path


def test_round_trip_is_exact_and_leaves_no_other_file(network, saved):
    values, meta = checkpoint.load(saved)
    assert meta == {"classes": ["ä", "b", "c"], "best": 0.5}
    assert set(values) == {one.name for one in network.get_parameters()}
    assert all(np.array_equal(values[one.name], one.asnumpy()) for one in network.get_parameters())
    assert os.listdir(os.path.dirname(saved)) == ["a.ckpt"]


def test_missing_and_damaged_files(saved, tmp_path):
    with pytest.raises(OptionError, match="is not a file"):
        checkpoint.load(str(tmp_path / "none.ckpt"))
    whole = open(saved, "rb").read()
    for content in (b"", whole[:1000], whole[:len(whole) // 2], whole[:-3], b"no checkpoint at all" * 50):
        with open(saved, "wb") as file:
            file.write(content)
        with pytest.raises(DataError, match="damaged"):
            checkpoint.load(saved)


def test_a_folder_that_is_not_there(network, tmp_path):
    with pytest.raises(EnvironmentFault, match="could not be written"):
        checkpoint.save(str(tmp_path / "no" / "a.ckpt"), network.get_parameters(), {})


def test_only_the_newest_numbered_are_kept(network, tmp_path):
    parameters = list(network.get_parameters())[:1]
    for epoch in range(1, 5):
        checkpoint.save_run(str(tmp_path), f"epoch_{epoch:04d}", parameters, {}, keep=2)
    checkpoint.save_run(str(tmp_path), "last", parameters, {})
    assert sorted(os.listdir(tmp_path)) == ["epoch_0003.ckpt", "epoch_0004.ckpt", "last.ckpt"]


def test_another_class_count_loads_all_but_the_class_layers(saved):
    other = build_model("ssd300_mobilenet_v2", 7, 96, 0.35).network
    before = other.head.cls[0][3].weight.asnumpy().copy()
    report = checkpoint.load_pretrained(other, saved, "ssd300_mobilenet_v2")
    assert re.search(r"head\.cls\.0\.3\.weight: \(12, (\d+), 1, 1\) in the file, \(21, \1, 1, 1\) here", report)
    assert np.array_equal(other.head.cls[0][3].weight.asnumpy(), before)
    values, _ = checkpoint.load(saved)
    assert np.array_equal(other.backbone.features[0][0].weight.asnumpy(), values["backbone.features.0.0.weight"])


def test_filter_weight_leaves_out_the_class_layers(saved):
    network = build_model("ssd300_mobilenet_v2", 4, 96, 0.35).network
    report = checkpoint.load_pretrained(network, saved, "ssd300_mobilenet_v2", True)
    assert "skipped, filter_weight             12" in report and "head.cls.0.3.weight" in report


def test_nothing_loaded_is_an_error(tmp_path, saved):
    path = str(tmp_path / "foreign.ckpt")
    ms.save_checkpoint([{"name": "fc.weight", "data": ms.Tensor(np.ones(3, np.float32))}], path)
    with pytest.raises(OptionError, match=r"none of its 1 parameters fits.*fc\.weight"):
        checkpoint.load_pretrained(build_model("ssd300_mobilenet_v2", 4, 96, 0.35).network, path, "ssd300_mobilenet_v2")
    with pytest.raises(OptionError, match="is not of this ssd_resnet50_fpn"):
        checkpoint.load_whole(build_model("ssd_resnet50_fpn", 4, 128).network, saved, "ssd_resnet50_fpn")


def test_model_zoo_backbone_names():
    from src.weights import from_model_zoo
    theirs = dict.fromkeys(["conv1.weight", "layer1.0.down_sample_layer.0.weight", "end_point.weight"], np.ones(2))
    assert list(from_model_zoo("ssd_resnet50_fpn", theirs)) == [
        "backbone.conv1.weight", "backbone.layer1.0.downsample.0.weight", "end_point.weight"]


def test_box_layers_of_the_model_zoo_become_x_first():
    from src.weights import from_model_zoo
    bias = np.arange(8.0)  # two shapes, dy dx dh dw each
    turned = from_model_zoo("ssd_resnet50_fpn", {"network.multi_box.loc_layers.0.bias": bias})["head.box_out.bias"]
    assert turned.tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
