"""Runs that are killed, stopped or find a broken checkpoint go on as if nothing had happened."""
import json
import os
import re
import shutil
import signal
import sys

import numpy as np
import pytest
from programs import ROOT, interrupt, read_rows, read_weights, run, succeed

from src.errors import OptionError
from src.weights import checkpoint
from src.weights.files import open_newest

# 24 images, 3 steps an epoch of two batches of 4 each; rows of the log that reach over the end of an epoch
OPTIONS = ("--epoch_size=5", "--accumulate=2", "--ema_decay=0.9", "--dynamic_loss_scale=True", "--loss_scale=1024",
           "--log_interval=2", "--save_checkpoint_steps=2", "--loss_normalizer=batch")
TIMES = ("data_time", "step_time", "images_per_second", "eta", "peak_memory")


def numbers(folder):
    """The rows of a log without the facts of starts and what depends on the clock."""
    rows = [row for row in read_rows(folder) if "step" in row]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def assert_same(folder, whole):
    assert numbers(folder) == numbers(whole)
    expected, values = (read_weights(one / "ckpt" / "last.ckpt") for one in (whole, folder))
    assert expected.keys() == values.keys() and any(name.startswith("ema.") for name in values)
    assert not [name for name in expected if not np.array_equal(expected[name], values[name])]


def stop(place, folder, words, number):
    """Starts the run, sends a signal when a line begins with the words, returns exit code and stderr."""
    return interrupt(place, words, "train.py", *place.data, f"--output_path={folder}", *OPTIONS, number=number)


@pytest.fixture(scope="module")
def whole(place):
    folder = place.folder / "uninterrupted"
    succeed(place, "train.py", *place.data, f"--output_path={folder}", *OPTIONS)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("number, words, code", [(signal.SIGINT, "step 8/", 130), (signal.SIGTERM, "step 4/", 130),
                                                 (signal.SIGKILL, "step 6/", -9), (signal.SIGKILL, "epoch 3", -9)])
def test_a_run_that_was_stopped_goes_on_as_if_nothing_had_been(place, whole, number, words, code):
    folder = place.folder / f"stopped_{number}_{words[0]}"
    ended, errors = stop(place, folder, words, number)
    assert ended == code
    if code == 130:
        assert re.match(r"error: interrupted after step \d+; [^\n]*\n$", errors)
    text = succeed(place, "train.py", "--resume=True", f"--output_path={folder}")
    assert "resumed after step" in text and "changed since" not in text
    assert_same(folder, whole)
    again = succeed(place, "train.py", "--resume=True", f"--output_path={folder}")
    assert "resumed after step 15" in again and "first step took" not in again
    assert_same(folder, whole)


@pytest.mark.long
def test_a_checkpoint_that_was_cut_short_is_not_taken(place, whole):
    folder = place.folder / "cut"
    stop(place, folder, "epoch 4", signal.SIGKILL)
    last = folder / "ckpt" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    text = succeed(place, "train.py", "--resume=True", f"--output_path={folder}")
    assert "last.ckpt' is damaged" in text and re.search(r"resumed after step \d+, .* from (best|epoch_.*).ckpt", text)
    assert_same(folder, whole)


@pytest.mark.long
def test_a_disk_that_is_full_leaves_the_last_good_checkpoint(place, whole):
    """The limit of a file's size stands in for the end of a disk: checkpoints exceed it, nothing else does."""
    folder = place.folder / "full"
    stop(place, folder, "step 4/", signal.SIGINT)
    before = (folder / "ckpt" / "last.ckpt").read_bytes()
    command = f"ulimit -f 2000; exec {sys.executable} {ROOT}/train.py --resume=True --output_path={folder}"
    done = run(place, "bash", "-c", command)
    assert done.returncode == 4 and re.fullmatch(r"error: checkpoint '[^']*' could not be written: .*\n", done.stderr)
    assert (folder / "ckpt" / "last.ckpt").read_bytes() == before
    assert not [name for name in os.listdir(folder / "ckpt") if name.startswith(".")]
    succeed(place, "train.py", "--resume=True", f"--output_path={folder}")
    assert_same(folder, whole)


@pytest.mark.long
def test_an_evaluation_that_was_not_reached_is_made_up_for(place, whole):
    """Ctrl-C in the last step of an epoch saves before the evaluation, whose row must not be missing."""
    folder = place.folder / "due"
    stop(place, folder, "epoch 2", signal.SIGKILL)
    path = str(folder / "ckpt" / "last.ckpt")
    values, meta = checkpoint.load(str(folder / "ckpt" / "epoch_0001.ckpt"))
    assert meta["settled"] and meta["steps_done"] == 3
    import mindspore as ms
    checkpoint.save(path, [ms.Parameter(value, name=name) for name, value in values.items()],
                    {**meta, "settled": False, "best": -1.0})
    log = folder / "log.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(True) if "AP" not in json.loads(line)))
    succeed(place, "train.py", "--resume=True", f"--output_path={folder}")
    assert numbers(folder) == numbers(whole)


@pytest.mark.long
def test_another_batch_goes_on_at_the_same_place_and_says_so(place, whole):
    folder = place.folder / "other_batch"
    stop(place, folder, "epoch 2", signal.SIGINT)
    text = succeed(place, "train.py", "--resume=True", f"--output_path={folder}", "--accumulate=1", "--log_interval=1")
    done = int(re.search(r"resumed after step (\d+)", text)[1])
    assert done >= 12 and "changed since: steps_per_epoch 3 -> 6" in text
    assert "changed since: --accumulate 2 -> 1" in text and [row["step"] for row in numbers(folder)][-1] == 30


@pytest.mark.long
def test_data_that_goes_away_ends_the_run_and_comes_back(place, whole):
    """The MindRecord files are removed in the third epoch; the resumed run converts again."""
    folder, data = place.folder / "robbed", place.folder / "robbed_data"
    options = (*place.data, f"--output_path={folder}", f"--mindrecord_dir={data}", *OPTIONS)
    code, errors = interrupt(place, "step 8/", "train.py", *options, act=lambda: shutil.rmtree(data))
    assert code == 3 and "the next run converts the data again" in errors.splitlines()[-1]
    text = succeed(place, "train.py", "--resume=True", f"--output_path={folder}")
    assert "resumed after step 9" in text and "converting" in text
    assert_same(folder, whole)


def test_the_newest_whole_checkpoint_is_found(tmp_path):
    import mindspore as ms
    said = []
    for age, name in enumerate(("epoch_0001", "epoch_0002", "diverged", "last")):
        path = tmp_path / f"{name}.ckpt"
        checkpoint.save(str(path), [ms.Parameter(np.ones(3, np.float32), name="a")], {"steps_done": age, "best": 0.5})
        os.utime(path, (9 - age, 9 - age))  # the clock was set back meanwhile
    assert open_newest(str(tmp_path), said.append).meta["steps_done"] == 3 and said == []
    (tmp_path / "last.ckpt").write_bytes(b"\x00" * 100)
    file = open_newest(str(tmp_path), said.append)
    assert file.meta["steps_done"] == 1 and file.path.endswith("epoch_0002.ckpt")
    assert file.arrays["a"].tolist() == [1, 1, 1]
    assert len(said) == 1 and "last.ckpt' is damaged" in said[0]
    for name in ("epoch_0001", "epoch_0002"):
        data = bytearray((tmp_path / f"{name}.ckpt").read_bytes())
        data[20] ^= 1  # one bit of a weight
        (tmp_path / f"{name}.ckpt").write_bytes(data)
    with pytest.raises(OptionError, match="holds no undamaged checkpoint of a run"):
        open_newest(str(tmp_path), said.append)
