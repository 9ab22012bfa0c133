"""train.py in a folder in which another one runs."""
import os
import re
import subprocess
import sys

import pytest
from programs import ROOT, environment, read_rows, run, started, succeed


def begin(place, *options):
    """train.py, started."""
    return started(sys.executable, os.path.join(ROOT, "train.py"), *place.data, *options, cwd=place.folder,
                   env=environment(), stderr=subprocess.PIPE)


def test_a_second_start_is_refused_until_the_first_ends_even_by_kill(place, tmp_path):
    """Before the first checkpoint: the first one's log stays, nothing is converted, and the message names it."""
    folder = tmp_path / "runs[1]"
    options = ("--epoch_size=400", "--save_checkpoint_epochs=400", "--run_eval=False",
               f"--output_path={folder}", f"--mindrecord_dir={tmp_path}/m[1]")
    with begin(place, *options) as first:
        for line in first.stdout:
            if line.startswith("step 2/"):
                break
        done = run(place, "train.py", *place.data, *options[:-1], f"--mindrecord_dir={tmp_path}/other")
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert f"in use by a run that has not ended (process {first.pid} on " in done.stderr
        assert not (tmp_path / "other").exists() and read_rows(folder)[1]["step"] == 2
        first.kill()
        first.communicate()
    before = len(read_rows(folder))
    assert before > 1 and os.listdir(folder / "ckpt") == []
    succeed(place, "train.py", *place.data, *options, "--max_steps=2", "--epoch_size=1")
    assert [row["step"] for row in read_rows(folder) if "loss" in row] == [2]
    assert (folder / "ckpt" / "last.ckpt").exists() and not (folder / ".lock").exists()
    done = run(place, "train.py", *place.data, *options)
    assert done.returncode == 2 and "already holds a run" in done.stderr


@pytest.mark.long
def test_of_two_that_start_at_once_one_trains(place, tmp_path):
    options = ("--max_steps=6", "--epoch_size=1", "--run_eval=False", f"--output_path={tmp_path / 'run'}")
    with begin(place, *options) as one, begin(place, *options) as other:
        errors = [process.communicate(timeout=300)[1] for process in (one, other)]
    codes = [one.returncode, other.returncode]
    assert sorted(codes) == [0, 2], errors
    assert re.search("in use by a run|already holds a run", errors[codes.index(2)])
    assert [row["step"] for row in read_rows(tmp_path / "run") if "loss" in row] == [2, 4, 6]


def test_a_start_that_fails_leaves_no_folder(place, tmp_path):
    done = run(place, "train.py", *place.data, "--coco_root=missing", f"--output_path={tmp_path / 'a' / 'run'}")
    assert done.returncode == 3 and not (tmp_path / "a").exists()
