"""Several processes, and the launch scripts."""
import os
import sys
import uuid

import pytest
from programs import MPIRUN, ROOT, left_behind, read_rows, run, succeed

# --- several processes

@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["mpirun", "msrun"])
def test_two_processes_make_one_run(place, tmp_path, launcher):
    mark, folder, logs = uuid.uuid4().hex, tmp_path / "run", tmp_path / "logs"
    start = {"mpirun": [*MPIRUN, sys.executable],
             "msrun": ["msrun", "--worker_num=2", "--local_worker_num=2", "--join=True", f"--log_dir={logs}"]}
    done = run(place, *start[launcher], os.path.join(ROOT, "train.py"), *place.data, "--run_distribute=True",
               "--device_num=2", "--batch_size=2", "--epoch_size=1", f"--output_path={folder}", SSD_TEST_MARK=mark)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    facts, *rows = read_rows(folder)
    assert facts["processes"] == 2 and facts["batch"] == 4
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6]
    assert [row["step"] for row in rows if "AP" in row] == [6]
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert sorted(os.listdir(folder / "ckpt")) == ["best.ckpt", "epoch_0001.ckpt", "last.ckpt"]
    assert left_behind(mark) == []


@pytest.mark.slow
def test_a_process_that_dies_takes_the_others_along(place, tmp_path):
    mark = uuid.uuid4().hex
    done = run(place, *MPIRUN, sys.executable, os.path.join(ROOT, "train.py"), *place.data, "--run_distribute=True",
               "--coco_root=missing", f"--output_path={tmp_path / 'run'}", SSD_TEST_MARK=mark)
    assert done.returncode == 3 and done.stderr.count("coco_root 'missing' is not a folder") == 1
    assert "Traceback" not in done.stderr
    assert left_behind(mark) == []


# --- launch scripts

@pytest.mark.slow
def test_scripts_train_evaluate_and_export(place, trained):
    folder = place.folder / "scripted"
    text = succeed(place, "run_standalone_train_gpu.sh", 0, 1, 0.01, "coco", place.recipe, trained.last,
                   "--device_target=CPU", f"--coco_root={place.coco}", f"--output_path={folder}")
    assert f"weights from {trained.last}" in text
    assert [row["step"] for row in read_rows(folder) if "loss" in row] == [2, 4, 6]
    best = folder / "ckpt" / "best.ckpt"
    text = succeed(place, "run_eval_gpu.sh", "coco", best, 0, place.recipe, f"--coco_root={place.coco}")
    assert (folder / "eval" / "metrics.json").exists() and "AP50" in text
    text = succeed(place, "run_export.sh", best, "MINDIR", folder / "ssd")
    assert "compared with the network" in text and (folder / "ssd.mindir").exists()


@pytest.mark.slow
def test_the_distributed_script_trains(place, trained, tmp_path):
    mark, folder = uuid.uuid4().hex, tmp_path / "run"
    done = run(place, "run_distribute_train_gpu.sh", 2, 2, 0.01, "coco", place.recipe, trained.last, 1,
               "--device_target=CPU", f"--coco_root={place.coco}", f"--output_path={folder}", "--batch_size=2",
               SSD_TEST_MARK=mark)
    assert done.returncode == 0, done.stdout + done.stderr
    # the first epoch counts as done by the checkpoint
    assert [row["step"] for row in read_rows(folder) if "loss" in row] == [8, 10, 12] and left_behind(mark) == []
