"""Checkpoints: round trip, damage, other models, what is loaded and what is not."""
import os

import numpy as np
import pytest

from src.errors import DataError, EnvironmentFault, OptionError
from src.models.ssd import build_model
from src.weights import checkpoint
from src.weights.files import open_weights


@pytest.fixture(scope="module")
def network():
    return build_model("ssd300_mobilenet_v2", 4, image_size=96, width=0.35).network


@pytest.fixture
def saved(network, tmp_path):
    path = str(tmp_path / "a.ckpt")
    checkpoint.save(path, network.get_parameters(), {"classes": ["ä", "b", "c"], "best": 0.5})
    return path


def test_round_trip_is_exact_and_leaves_no_other_file(network, saved):
    file = open_weights(saved)
    values = file.arrays
    assert file.kind == "mindspore" and file.meta == {"classes": ["ä", "b", "c"], "best": 0.5}
    assert set(values) == {one.name for one in network.get_parameters()}
    assert all(np.array_equal(values[one.name], one.asnumpy()) for one in network.get_parameters())
    assert os.listdir(os.path.dirname(saved)) == ["a.ckpt"]


def test_missing_and_damaged_files(saved, tmp_path):
    with pytest.raises(OptionError, match="is not a file"):
        open_weights(str(tmp_path / "none.ckpt"))
    whole = open(saved, "rb").read()
    for content in (b"", whole[:1000], whole[:len(whole) // 2], whole[:-3], b"no checkpoint at all" * 50):
        with open(saved, "wb") as file:
            file.write(content)
        with pytest.raises(DataError, match="damaged"):
            open_weights(saved)


def test_a_folder_that_is_not_there(network, tmp_path):
    with pytest.raises(EnvironmentFault, match="could not be written"):
        checkpoint.save(str(tmp_path / "no" / "a.ckpt"), network.get_parameters(), {})


def test_only_the_newest_numbered_are_kept(network, tmp_path):
    parameters = list(network.get_parameters())[:1]
    for epoch in range(1, 5):
        checkpoint.save_run(str(tmp_path), f"epoch_{epoch:04d}", parameters, meta={}, keep=2)
    checkpoint.save_run(str(tmp_path), "last", parameters, meta={})
    assert sorted(os.listdir(tmp_path)) == ["epoch_0003.ckpt", "epoch_0004.ckpt", "last.ckpt"]


def test_only_numbered_checkpoints_of_ours_are_removed_and_10000_is_newer_than_9999(network, tmp_path):
    others = ["epoch_0001_good.ckpt", "epoch_notes.txt", "epoch_0002.ckpt.bak", "my_epoch_0001.ckpt", "epoch_1.ckpt"]
    for name in others:
        (tmp_path / name).write_text("mine")
    (tmp_path / "epoch_0003").mkdir()
    parameters = list(network.get_parameters())[:1]
    for epoch in (9998, 9999, 10000):
        checkpoint.save_run(str(tmp_path), f"epoch_{epoch:04d}", parameters, meta={}, keep=2)
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "epoch_0003", "epoch_9999.ckpt", "epoch_10000.ckpt"])


@pytest.mark.parametrize("name", ["a", "a.ckpt", "a[1].ckpt", "b.txt", "*.ckpt"])
@pytest.mark.parametrize("fails", [False, True])
def test_what_other_processes_write_stays(network, tmp_path, name, fails, monkeypatch):
    """A name without .ckpt once removed every file that was being written in the folder."""
    others = [".writing", ".writing.a", ".writing.a.tmp", ".writing.b.ckpt", "a.tmp", "a1.ckpt", ".writing.a.ckpt"]
    for other in others:
        (tmp_path / other).write_text("not yours")
    if fails:
        monkeypatch.setattr(checkpoint.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(EnvironmentFault, match="No space left"):
            checkpoint.save(str(tmp_path / name), list(network.get_parameters())[:1], {})
    else:
        checkpoint.save(str(tmp_path / name), list(network.get_parameters())[:1], {})
        assert (tmp_path / name).stat().st_size > 100
    assert sorted(os.listdir(tmp_path)) == sorted(others if fails else [*others, name])
    assert all((tmp_path / other).read_text() == "not yours" for other in others)
