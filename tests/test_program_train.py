"""train.py: what a run leaves, and how it is interrupted and goes on."""
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml
from programs import (
    RECIPE,
    ROOT,
    environment,
    interrupt,
    is_picture,
    read_rows,
    read_weights,
    run,
    started,
    succeed,
)

# --- training

def test_training_leaves_what_the_contract_says(trained):
    folder = trained.folder
    assert sorted(os.listdir(folder / "ckpt")) == ["best.ckpt", "epoch_0001.ckpt", "epoch_0002.ckpt", "last.ckpt"]
    assert is_picture(folder / "train_batch.png") and is_picture(folder / "training.png")
    assert yaml.safe_load((folder / "config.yaml").read_text()).items() >= RECIPE.items()
    events = [path.read_bytes() for path in folder.glob("events.out.tfevents.*")]
    assert len(events) == 1 and b"train/loss" in events[0] and b"eval/AP" in events[0]
    assert re.search(r"done: .*, peak memory [0-9.]+ GiB", trained.text)
    assert trained.text.count("compiling the evaluation") == 1


def test_the_log_begins_with_facts_and_counts_every_step(trained):
    facts, *rows = read_rows(trained.folder)
    assert facts["train_images"] == 24 and facts["processes"] == 1 and facts["batch"] == 4 and facts["classes"] == 4
    assert {"mindspore", "numpy", "device", "model", "parameters", "commit", "time"} <= facts.keys()
    steps = [row for row in rows if "loss" in row]
    assert [(row["step"], row["epoch"]) for row in steps] == [(2, 1), (4, 1), (6, 1), (8, 2), (10, 2), (12, 2)]
    for row in steps:
        assert {"loss_cls", "loss_box", "lr", "data_time", "step_time", "images_per_second", "eta"} <= row.keys()
        assert np.isfinite(row["loss"]) and row["loss"] == pytest.approx(row["loss_cls"] + row["loss_box"], abs=1e-4)
    assert steps[-1]["eta"] == 0 and steps[0]["lr"] > steps[-1]["lr"]
    assert [row["step"] for row in rows if "AP" in row] == [6, 12]


def test_a_second_start_takes_its_graphs_from_the_first_and_computes_the_same(place, trained):
    def graphs():
        return {path: path.stat().st_mtime for path in (place.folder / "compile_cache").rglob("*") if path.is_file()}

    before = graphs()
    succeed(place, "train.py", *place.data, "--output_path=second")
    assert graphs() == before and any(path.suffix == ".mindir" for path in before)
    first, second = ([{key: row[key] for key in row if not key.endswith(("time", "second", "eta", "memory"))}
                      for row in read_rows(folder)[1:]] for folder in (trained.folder, place.folder / "second"))
    assert first == second


def test_a_used_folder_is_refused(place, trained):
    before = trained.last.read_bytes()
    done = run(place, "train.py", *place.data, f"--output_path={trained.folder}")
    assert done.returncode == 2 and "--resume=True" in done.stderr and done.stderr.count("\n") == 1
    assert trained.last.read_bytes() == before


def test_a_run_that_saved_nothing_may_be_begun_anew(place, trained, tmp_path):
    """What Ctrl-C before the first step leaves."""
    folder = tmp_path / "run"
    (folder / "ckpt").mkdir(parents=True)
    (folder / "config.yaml").write_text("lr: 3\n")
    (folder / "log.jsonl").write_text('{"classes": 4}\n{"step": 2, "loss": 9.0}\n')
    text = succeed(place, "train.py", *place.data, f"--output_path={folder}", "--max_steps=2", "--run_eval=False")
    assert f"'{folder}' holds a run that ended before its first checkpoint: it starts again" in text
    facts, row = read_rows(folder)
    assert facts["train_images"] == 24 and row["step"] == 2 and row["loss"] != 9
    assert (folder / "ckpt" / "last.ckpt").exists()


def test_two_signals_while_the_first_step_compiles(place, tmp_path):
    """The first one is answered within the call of MindSpore, the second one ends it."""
    command = [sys.executable, os.path.join(ROOT, "train.py"), *place.data, f"--output_path={tmp_path / 'run'}",
               "--compile_cache="]
    with started(*command, cwd=place.folder, env=environment(), stderr=subprocess.PIPE) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith(("compiling the first step", "stopping after this step")):
                process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=200)
    assert (process.returncode, errors) == (130, "error: interrupted at once, after step 0; nothing was saved yet\n")
    assert said[-1].startswith("stopping") and os.listdir(tmp_path / "run" / "ckpt") == []


def test_a_metric_engine_that_is_missing_is_told_before_training(place, tmp_path):
    (tmp_path / "hotcoco.py").write_text("raise ImportError('not here')\n")
    done = run(place, "train.py", *place.data, f"--output_path={tmp_path / 'run'}", "--metric_engine=hotcoco",
               PYTHONPATH=str(tmp_path))
    assert done.returncode == 4 and "use --metric_engine=pycocotools" in done.stderr
    assert not (tmp_path / "run").exists()


def test_new_classes_and_a_frozen_backbone(place, trained):
    folder = place.folder / "tuned"
    text = succeed(place, "train.py", *place.data, f"--output_path={folder}", f"--pre_trained={trained.best}",
                   "--filter_weight=True", "--freeze_layer=backbone", "--classes=[star,circle]", "--max_steps=2",
                   "--run_eval=False", "--mindrecord_dir=two_classes")
    counts = dict(re.findall(r"^  (\w[^\n]*?) {2,}(\d+)$", text, re.MULTILINE))
    assert int(counts["loaded"]) > 200 and int(counts["loaded by class, --filter_weight"]) == 12
    assert "outputs kept (2): star, circle\n  new outputs (0): -" in text
    skipped = "skipped, another shape", "skipped, --filter_weight", "not in the file, new weights"
    assert {counts[kind] for kind in skipped} == {"0"}
    before, after = read_weights(trained.best), read_weights(folder / "ckpt" / "last.ckpt")
    backbone = [name for name in before if name.startswith("backbone.")]
    assert len(backbone) > 100 and all(np.array_equal(before[name], after[name]) for name in backbone)
    assert any(not np.array_equal(before[name], after[name]) for name in before if name.startswith("neck."))
    assert read_rows(folder)[0]["frozen_tensors"] == len(backbone)
    # 3 = background and two classes, 5 = background and four, for the same number of shapes
    heads = [name for name in after if before[name].shape != after[name].shape]
    assert heads and all(before[name].shape[0] * 3 == after[name].shape[0] * 5 for name in heads)


@pytest.mark.long
def test_a_loss_that_is_not_finite_ends_the_run(place):
    folder = place.folder / "diverged"
    rate = ("--lr=1e38", "--lr_init=1e38", "--grad_clip=0")
    done = run(place, "train.py", *place.data, f"--output_path={folder}", *rate)
    assert done.returncode == 5 and done.stderr.startswith("error: loss is ") and done.stderr.count("\n") == 1
    assert len(re.findall(r"0000\d\d\.jpg", done.stderr)) == 4 and "lr 1e+38" in done.stderr
    assert (folder / "ckpt" / "diverged.ckpt").exists() and not (folder / "ckpt" / "last.ckpt").exists()


@pytest.mark.long
def test_the_self_test_passes_where_boxes_can_be_learnt(place):
    folder = place.folder / "by_heart"
    text = succeed(place, "train.py", *place.data, "--overfit=4", f"--output_path={folder}")
    assert re.search(r"overfit: AP50 (0\.9[5-9]\d*|1\.0+) on 4 images after \d+ steps, passed", text)
    assert read_rows(folder)[0]["train_images"] == 4 and is_picture(folder / "eval" / "predictions.png")


@pytest.mark.long
def test_the_self_test_fails_where_they_are_not(place):
    done = run(place, "train.py", *place.data, "--overfit=4", "--epoch_size=2", "--output_path=not_by_heart")
    assert done.returncode == 1 and re.match(r"error: overfit: AP50 0\.\d+ on 4 images after 2 steps", done.stderr)
    assert done.stderr.count("\n") == 1


@pytest.mark.long
def test_evaluations_without_gain_end_the_run(place, trained):
    """A learning rate of nearly nothing: no evaluation is better than the first."""
    folder = place.folder / "early"
    options = ("--epoch_size=9", "--early_stop=2", "--lr=1e-12", "--lr_init=0", f"--output_path={folder}",
               f"--pre_trained={trained.best}")
    text = succeed(place, "train.py", *place.data, *options, "--freeze_layer=backbone,neck", "--batch_norm=frozen")
    assert "2 evaluations without a better score than" in text
    assert [row["epoch"] for row in read_rows(folder) if "AP" in row] == [1, 2, 3]
    assert "first step took" not in succeed(place, "train.py", "--resume=True", f"--output_path={folder}")


# --- interrupted and resumed

@pytest.mark.long
def test_resume_refuses_another_network(place, trained):
    done = run(place, "train.py", *place.data, f"--output_path={trained.folder}", "--resume=True", "--image_size=96")
    assert done.returncode == 2 and "image_size" in done.stderr and done.stderr.count("\n") == 1


def test_the_log_of_a_resumed_run_is_read_as_one(tmp_path):
    from src.training.log import read_log
    rows = [{"classes": 4}, {"step": 2, "loss": 3.0}, {"step": 4, "loss": 9.0}, {"step": 4, "AP": 0.1}, {"classes": 4},
            {"step": 4, "loss": 2.0}]
    torn = '{"step": 6, "lo'
    (tmp_path / "log.jsonl").write_text("\n".join([*map(json.dumps, rows[:4]), torn, *map(json.dumps, rows[4:])]))
    assert read_log(tmp_path / "log.jsonl") == [rows[0], rows[1], rows[5], rows[3], rows[4]]
    assert read_log(tmp_path / "log.jsonl", 2) == [rows[0], rows[1], rows[4]]


@pytest.mark.long
def test_an_interrupted_evaluation_says_so(place, trained, tmp_path):
    code, errors = interrupt(place, "ssd300_mobilenet_v2 on 7 images", "eval.py", *place.data,
                             f"--checkpoint_file_path={trained.best}", f"--output_path={tmp_path}")
    assert code == 130 and errors.startswith("error: interrupted") and errors.count("\n") == 1
