"""Checkpoints: round trip, damage, other models, what is loaded and what is not."""
import os

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
