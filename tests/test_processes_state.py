"""Several processes hold one network: the statistics that are scored and saved, and the weights they begin with."""
import os
import shutil
import sys
import uuid

import numpy as np
import pytest
from programs import MPIRUN, ROOT, left_behind, read_json, read_rows, read_weights, run, succeed

# at each evaluation every rank tells a digest of the network and the sum of its statistics
TELLING = """
import os, sys
sys.path.insert(0, {root!r})
import src.progress, train
from src.errors import run_main

track = src.progress.track

def tell(items, total, title, *, quiet=False):
    if title == "evaluating batches":
        from src.machine.distributed import digest_of
        network = sys._getframe(2).f_locals["self"].step.network
        values = {{one.name: one.asnumpy() for one in network.get_parameters()}}
        with open(os.path.join({folder!r}, "rank_" + os.environ["MS_NODE_ID"]), "a", encoding="utf-8") as file:
            total_mean = sum(float(value.sum()) for name, value in values.items() if name.endswith(".moving_mean"))
            print(digest_of(list(network.get_parameters())), total_mean, file=file)
    return track(items, total, title, quiet=quiet)

src.progress.track = tell
run_main(train.main)
"""


def together(place, *options, program=None):
    """A run of two processes -> its process; none is left afterwards."""
    mark = uuid.uuid4().hex
    done = run(place, *MPIRUN, sys.executable, program or os.path.join(ROOT, "train.py"), *place.data,
               "--run_distribute=True", "--batch_size=2", *options, SSD_TEST_MARK=mark)
    assert "Traceback" not in done.stderr and left_behind(mark) == [], done.stdout + done.stderr
    return done


@pytest.mark.long
@pytest.mark.parametrize("average", ["0", "0.9"])
def test_what_is_scored_by_all_is_what_is_saved(place, tmp_path, average):
    """BatchNorm takes the statistics of each process's own images; without their mean each would score another net."""
    program, folder, told = tmp_path / "telling.py", tmp_path / "run", tmp_path / "told"
    told.mkdir()
    program.write_text(TELLING.format(root=ROOT, folder=str(told)))
    done = together(place, "--epoch_size=2", "--min_score=0.001", f"--ema_decay={average}", f"--output_path={folder}",
                    "--save_checkpoint_steps=4", program=program)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = ((told / f"rank_{rank}").read_text().splitlines() for rank in (0, 1))
    assert first == second and len(set(first)) == 2  # at both evaluations, and not the same one twice
    values = read_weights(folder / "ckpt" / "epoch_0002.ckpt")
    prefix = "ema." if average != "0" else ""
    means = sum(float(value.sum()) for name, value in values.items()
                if name.endswith(".moving_mean") and name.startswith("ema.") == bool(prefix))
    assert means == pytest.approx(float(first[-1].split()[1]), rel=1e-6) and abs(means) > 1e-3
    # the score that chose best.ckpt is the score of best.ckpt
    succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={folder / 'ckpt' / 'best.ckpt'}",
            "--min_score=0.001", f"--output_path={tmp_path / 'one'}")
    metrics = read_json(tmp_path, "one", "eval", "metrics.json")
    best = max((row for row in read_rows(folder) if "AP" in row), key=lambda row: row["AP"])
    assert [metrics[name] for name in ("AP", "AP50", "AP75")] == [best[name] for name in ("AP", "AP50", "AP75")]
    assert best["AP"] > 0


@pytest.mark.long
def test_processes_that_begin_with_other_weights_are_refused(place, trained, tmp_path):
    mark = uuid.uuid4().hex
    first, second = (trained.folder / "ckpt" / f"epoch_000{number}.ckpt" for number in (1, 2))
    one = [sys.executable, os.path.join(ROOT, "train.py"), *place.data, "--run_distribute=True", "--batch_size=2"]
    done = run(place, *MPIRUN[:-1], 1, *one, f"--pre_trained={first}", f"--output_path={tmp_path / 'run'}", ":",
               "-n", 1, *one, f"--pre_trained={second}", f"--output_path={tmp_path / 'run'}", SSD_TEST_MARK=mark)
    assert done.returncode == 2 and done.stderr.count("error: ") == 1 and not (tmp_path / "run").exists(), done.stderr
    assert "error: the digest of all weights is " in done.stderr and left_behind(mark) == []
    assert "give all hosts the same file by --pre_trained" in done.stderr


@pytest.mark.long
def test_processes_that_resume_other_states_are_refused(place, trained, tmp_path):
    mark = uuid.uuid4().hex
    for name, number in (("first", 1), ("second", 2)):
        (tmp_path / name / "ckpt").mkdir(parents=True)
        for mark_of_a_run in ("config.yaml", "log.jsonl"):
            shutil.copy(trained.folder / mark_of_a_run, tmp_path / name)
        shutil.copy(trained.folder / "ckpt" / f"epoch_000{number}.ckpt", tmp_path / name / "ckpt" / "last.ckpt")
    one = [sys.executable, os.path.join(ROOT, "train.py"), *place.data, "--run_distribute=True", "--resume=True",
           "--epoch_size=3"]
    done = run(place, *MPIRUN[:-1], 1, *one, f"--output_path={tmp_path / 'first'}", ":",
               "-n", 1, *one, f"--output_path={tmp_path / 'second'}", SSD_TEST_MARK=mark)
    assert done.returncode == 2 and done.stderr.count("error: ") == 1, done.stdout + done.stderr
    assert "give all hosts the same ckpt/ folder in --output_path" in done.stderr and left_behind(mark) == []


@pytest.mark.long
def test_a_resumed_run_of_two_processes_ends_as_the_one_that_was_not_stopped(place, tmp_path):
    """Weights, moments and losses to the last bit; statistics to rounding, as a save takes their mean."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = ("--epoch_size=2", "--run_eval=False", "--log_interval=1")
    assert together(place, *options, f"--output_path={whole}").returncode == 0
    assert together(place, *options, f"--output_path={cut}", "--max_steps=4").returncode == 0
    assert together(place, *options, f"--output_path={cut}", "--resume=True").returncode == 0
    rows = [[(row["step"], row["loss"], row["lr"]) for row in read_rows(one) if "loss" in row] for one in (whole, cut)]
    assert rows[0] == rows[1] and len(rows[0]) == 12
    expected, values = (read_weights(one / "ckpt" / "last.ckpt") for one in (whole, cut))
    for name, value in expected.items():
        if ".moving_" in name:
            assert np.allclose(value, values[name], rtol=1e-5, atol=1e-7), name
        else:
            assert np.array_equal(value, values[name]), name
