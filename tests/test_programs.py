"""The programs as a user types them: every test starts them in a shell of their own, on a tiny drawn data set.

One short training is shared by all tests (fixture `trained`); whatever takes more starts is marked slow.
"""
import ctypes.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import cv2
import numpy as np
import psutil
import pytest
import yaml
from conftest import ROOT

CLASSES = ["circle", "triangle", "square", "star"]
COCO_NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
# 24 images in batches of 4: 6 steps an epoch
RECIPE = {"model": "ssd300_mobilenet_v2", "image_size": 64, "width": 0.25, "weight_init": "he", "device_target": "CPU",
          "epoch_size": 2, "batch_size": 4, "lr": 0.05, "lr_init": 0.005, "warmup_epochs": 0.5, "min_score": 0.01,
          "run_eval": True, "eval_batch_size": 4, "log_interval": 2}
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "2"]
has_driver = ctypes.util.find_library("cuda") is not None


def environment(**more):
    """The variables of a fresh shell: this Python first, nothing of MindSpore's or of a launcher."""
    kept = {key: value for key, value in os.environ.items() if not re.match("MS_|OMPI_|PMIX_|GLOG_|ONEDNN_", key)}
    return {**kept, "PATH": f"{os.path.dirname(sys.executable)}:{kept['PATH']}", "PYTHON": sys.executable, **more}


def run(place, *command, **more):
    """Runs a command in place.folder. A first word ending in .py is a program of the repository, in .sh a script."""
    first, *rest = map(str, command)
    if first.endswith(".py"):
        rest, first = [os.path.join(ROOT, first), *rest], sys.executable
    elif first.endswith(".sh"):
        rest, first = [os.path.join(ROOT, "scripts", first), *rest], "bash"
    return subprocess.run([first, *rest], cwd=place.folder, env=environment(**more), capture_output=True, text=True,
                          timeout=400, check=False)


def succeed(place, *command, **more):
    """The standard output of a command that must end well and without a traceback."""
    done = run(place, *command, **more)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done.stdout


def read_json(*parts):
    with open(os.path.join(*map(str, parts)), encoding="utf-8") as file:
        return json.load(file)


def read_rows(folder):
    with open(folder / "log.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_weights(path):
    """{name: array} of a checkpoint."""
    import mindspore as ms
    return {name: one.asnumpy() for name, one in ms.load_checkpoint(str(path)).items() if hasattr(one, "asnumpy")}


def is_picture(path):
    image = cv2.imread(str(path))
    return image is not None and image.std() > 1


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A working folder with a drawn data set and a recipe; data: the options that name both."""
    folder = tmp_path_factory.mktemp("programs")
    place = SimpleNamespace(folder=folder, coco=folder / "coco", recipe=folder / "tiny.yaml")
    place.data = (f"--config_path={place.recipe}", f"--coco_root={place.coco}")
    place.recipe.write_text(yaml.safe_dump(RECIPE))
    succeed(place, "scripts/make_demo_data.py", place.coco, "--images", 24, "--val", 7)
    return place


@pytest.fixture(scope="session")
def trained(place):
    """The folder of a run of two epochs, evaluated after each; its output as text."""
    folder = place.folder / "run"
    text = succeed(place, "train.py", *place.data, f"--output_path={folder}")
    checkpoints = folder / "ckpt"
    return SimpleNamespace(folder=folder, text=text, best=checkpoints / "best.ckpt", last=checkpoints / "last.ckpt")


@pytest.fixture(scope="session")
def evaluated(place, trained):
    """eval/ of the best checkpoint in batches of 4."""
    succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={trained.best}")
    return trained.folder / "eval"


@pytest.fixture(scope="session")
def exported(place, trained):
    """The best checkpoint as MindIR for batches of 3, which is no divisor of 7."""
    path = place.folder / "export" / "ssd.mindir"
    text = succeed(place, "export.py", f"--checkpoint_file_path={trained.best}", "--file_format=MINDIR",
                   f"--file_name={path.with_suffix('')}", "--export_batch_size=3")
    return SimpleNamespace(path=path, text=text)


# --- training

def test_training_leaves_what_the_contract_says(trained):
    folder = trained.folder
    assert sorted(os.listdir(folder / "ckpt")) == ["best.ckpt", "epoch_0001.ckpt", "epoch_0002.ckpt", "last.ckpt"]
    assert is_picture(folder / "train_batch.png") and is_picture(folder / "training.png")
    assert yaml.safe_load((folder / "config.yaml").read_text()).items() >= RECIPE.items()
    events = [path.read_bytes() for path in folder.glob("events.out.tfevents.*")]
    assert len(events) == 1 and b"train/loss" in events[0] and b"eval/AP" in events[0]
    assert "done: " in trained.text


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


def test_a_used_folder_is_refused(place, trained):
    before = trained.last.read_bytes()
    done = run(place, "train.py", *place.data, f"--output_path={trained.folder}")
    assert done.returncode == 2 and "--resume=True" in done.stderr and done.stderr.count("\n") == 1
    assert trained.last.read_bytes() == before


def test_new_classes_and_a_frozen_backbone(place, trained):
    folder = place.folder / "tuned"
    text = succeed(place, "train.py", *place.data, f"--output_path={folder}", f"--pre_trained={trained.best}",
                   "--filter_weight=True", "--freeze_layer=backbone", "--classes=[star,circle]", "--max_steps=2",
                   "--run_eval=False", "--mindrecord_dir=two_classes")
    counts = dict(re.findall(r"^  (\w[^\n]*?) {2,}(\d+)$", text, re.MULTILINE))
    assert int(counts["loaded"]) > 200 and int(counts["skipped, filter_weight"]) == 12
    assert counts["skipped, another shape"] == counts["not in the file, new weights"] == "0"
    before, after = read_weights(trained.best), read_weights(folder / "ckpt" / "last.ckpt")
    backbone = [name for name in before if name.startswith("backbone.")]
    assert len(backbone) > 100 and all(np.array_equal(before[name], after[name]) for name in backbone)
    assert any(not np.array_equal(before[name], after[name]) for name in before if name.startswith("neck."))
    assert read_rows(folder)[0]["frozen_tensors"] == len(backbone)
    # 3 = background and two classes, 5 = background and four, for the same number of shapes
    heads = [name for name in after if before[name].shape != after[name].shape]
    assert heads and all(before[name].shape[0] * 3 == after[name].shape[0] * 5 for name in heads)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run(place):
    folder = place.folder / "diverged"
    rate = ("--lr=1e38", "--lr_init=1e38", "--grad_clip=0")
    done = run(place, "train.py", *place.data, f"--output_path={folder}", *rate)
    assert done.returncode == 5 and done.stderr.startswith("error: loss is ") and done.stderr.count("\n") == 1
    assert len(re.findall(r"0000\d\d\.jpg", done.stderr)) == 4 and "lr 1e+38" in done.stderr
    assert (folder / "ckpt" / "diverged.ckpt").exists() and not (folder / "ckpt" / "last.ckpt").exists()


# --- evaluation and export

def test_evaluation_repeats_the_one_during_training(trained, evaluated):
    metrics = read_json(evaluated, "metrics.json")
    best = max((row for row in read_rows(trained.folder) if "AP" in row), key=lambda row: row["AP"])
    for name in ("AP", "AP50", "AP75"):
        assert metrics[name] == pytest.approx(best[name], abs=1e-6)


def test_evaluation_writes_metrics_detections_and_pictures(place, evaluated):
    metrics = read_json(evaluated, "metrics.json")
    assert set(COCO_NAMES) <= metrics.keys() and sorted(metrics["per_class"]) == sorted(CLASSES)
    assert metrics["AR100"] > 0
    truth = read_json(place.coco, "annotations", "instances_val2017.json")
    detections = read_json(evaluated, "detections.json")
    assert {one["image_id"] for one in detections} <= {one["id"] for one in truth["images"]}
    assert {one["category_id"] for one in detections} <= {1, 2, 3, 4}
    for name in ("pr_curves.png", "per_class.png", "predictions.png"):
        assert is_picture(evaluated / name)


def test_export_compares_and_describes_itself(exported):
    meta = read_json(exported.path.with_suffix(".json"))
    assert "loaded again and compared" in exported.text and meta["largest_difference"] <= 1e-4
    assert meta["classes"] == CLASSES and meta["image_size"] == 64 and meta["batch_size"] == 3
    assert list(meta["outputs"]) == ["boxes", "scores", "labels", "count"]
    assert not [name for name in os.listdir(exported.path.parent) if name.startswith(".")]


def compare_detections(one, two):
    """Asserts that two detections.json hold the same boxes of the same images."""
    ids = [[(row["image_id"], row["category_id"]) for row in rows] for rows in (one, two)]
    assert ids[0] and ids[0] == ids[1]
    assert np.allclose([row["score"] for row in one], [row["score"] for row in two], atol=1e-5)
    assert np.allclose([row["bbox"] for row in one], [row["bbox"] for row in two], atol=1e-2)


def test_the_exported_file_scores_the_same_in_other_batches(place, evaluated, exported):
    # three batches of 3 for seven images: a dropped or doubled image would show in the numbers
    succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={exported.path}")
    metrics, expected = (read_json(folder, "metrics.json") for folder in (exported.path.parent / "eval", evaluated))
    for name in COCO_NAMES:
        assert metrics[name] == pytest.approx(expected[name], abs=1e-6)
    compare_detections(read_json(exported.path.parent, "eval", "detections.json"),
                       read_json(evaluated, "detections.json"))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_batch_size_does_not_matter(place, trained, evaluated, size):
    out = place.folder / f"batch{size}"
    succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={trained.best}", f"--eval_batch_size={size}",
            f"--output_path={out}")
    compare_detections(read_json(out, "eval", "detections.json"), read_json(evaluated, "detections.json"))
    assert read_json(out, "eval", "metrics.json") == read_json(evaluated, "metrics.json")


@pytest.mark.slow
def test_first_images_only(place, trained):
    out = place.folder / "first"
    text = succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={trained.best}", "--eval_images=2",
                   f"--output_path={out}")
    assert "on 2 images" in text and {one["image_id"] for one in read_json(out, "eval", "detections.json")} <= {1, 2}


@pytest.mark.slow
def test_a_raw_export_gives_logits_and_is_not_evaluated(place, trained):
    path = place.folder / "raw" / "ssd"
    succeed(place, "export.py", f"--checkpoint_file_path={trained.best}", f"--file_name={path}", "--raw=True")
    outputs = read_json(f"{path}.json")["outputs"]
    assert outputs["logits"]["shape"] == [1, 96, 5] and outputs["deltas"]["shape"] == [1, 96, 4]
    done = run(place, "eval.py", *place.data, f"--checkpoint_file_path={path}.mindir")
    assert done.returncode == 2 and "--raw=True" in done.stderr and done.stderr.count("\n") == 1


# --- prediction

def predict(place, exported, source, out, *more):
    """Runs predict.py and returns its output and predictions.json by file name."""
    text = succeed(place, "predict.py", f"--checkpoint_file_path={exported.path}", f"--source={source}",
                   f"--output_path={out}", *more)
    return text, {os.path.basename(row["file"]): row["objects"] for row in read_json(out, "predictions.json")}


def test_prediction_on_one_picture(place, exported, tmp_path):
    source = place.coco / "val2017" / "000001.jpg"
    text, found = predict(place, exported, source, tmp_path / "out", "--draw_score=0.01")
    assert sorted(os.listdir(tmp_path / "out")) == ["000001.png", "predictions.json"]
    height, width = cv2.imread(str(source)).shape[:2]
    assert len(found["000001.jpg"]) > 0 and f"{len(found['000001.jpg'])} object(s)" in text
    for one in found["000001.jpg"]:
        x1, y1, x2, y2 = one["box"]
        assert one["class"] in CLASSES and 0.01 <= one["score"] <= 1
        assert 0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height
    assert cv2.imread(str(tmp_path / "out" / "000001.png")).shape[:2] == (height, width)


def test_prediction_on_a_folder_goes_on_after_a_broken_picture(place, exported, tmp_path):
    source = tmp_path / "pictures"
    source.mkdir()
    data = [(place.coco / "val2017" / f"00000{number}.jpg").read_bytes() for number in (1, 2, 3)]
    for name, content in (("a.jpg", data[0]), ("a.jpeg", data[1]), ("broken one.jpg", data[2][:2000]),
                          ("größe 1.JPG", data[2]), ("notes.txt", b"no picture")):
        (source / name).write_bytes(content)
    text, found = predict(place, exported, source, tmp_path / "out")
    assert sorted(found) == ["a.jpeg", "a.jpg", "größe 1.JPG"] and "left out: " in text and "broken one.jpg" in text
    # two pictures of the same stem keep both drawings
    assert sorted(os.listdir(tmp_path / "out")) == ["a.jpeg.png", "a.jpg.png", "größe 1.png", "predictions.json"]


def test_prediction_spares_its_source(place, exported):
    done = run(place, "predict.py", f"--checkpoint_file_path={exported.path}", f"--source={place.coco}/val2017",
               f"--output_path={place.coco}/val2017/.")
    assert done.returncode == 2 and "folder of the source" in done.stderr
    assert len(os.listdir(place.coco / "val2017")) == 7


def write_video(path, frames):
    """A film of grey frames."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (320, 240))
    for number in range(frames):
        writer.write(np.full((240, 320, 3), number % 200, np.uint8))
    writer.release()


@pytest.mark.slow
def test_prediction_on_a_video(place, exported, tmp_path):
    write_video(tmp_path / "film.mp4", 5)
    succeed(place, "predict.py", f"--checkpoint_file_path={exported.path}", f"--source={tmp_path / 'film.mp4'}",
            f"--output_path={tmp_path / 'out'}")
    assert [row["frame"] for row in read_json(tmp_path, "out", "predictions.json")] == [0, 1, 2, 3, 4]
    assert cv2.VideoCapture(str(tmp_path / "out" / "film.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 5


# --- what goes wrong, in one line

BAD = [
    # program, options, exit code, words of the message
    ("train.py", "--epocs=3", 2, "did you mean 'epoch_size'"),
    ("train.py", "--lr=abc", 2, "expected a number"),
    ("train.py", "lr=3", 2, "--key=value"),
    ("train.py", "--config_path=missing.yaml", 2, "missing.yaml"),
    ("train.py", "--run_distribute=True", 4, "mpirun -n N"),
    ("train.py", "DATA --model=ssd300_mobilenetv2", 2, "known models are"),
    ("train.py", "DATA --amp_level=O1", 4, "cannot be used on CPU"),
    ("train.py", "DATA --coco_root=missing", 3, "coco_root 'missing' is not a folder"),
    ("train.py", "DATA --val_data_type=val2018", 3, "instances_val2018.json"),
    ("train.py", "DATA --batch_size=25", 3, "use a smaller --batch_size"),
    ("train.py", "DATA --output_path=a_file/run --mindrecord_dir=a_file/too", 4, "folder 'a_file/run' cannot be made"),
    ("train.py", "DATA --resume=True", 2, "last.ckpt' does not exist"),
    ("train.py", "DATA --pre_trained=missing.ckpt", 2, "missing.ckpt' is not a file"),
    ("train.py", "DATA --pre_trained=foreign.ckpt", 2, "is it of another network?"),
    ("train.py", "DATA --freeze_layer=bakbone", 2, "known are backbone"),
    ("eval.py", "DATA", 2, "--checkpoint_file_path is empty"),
    ("eval.py", "--checkpoint_file_path=BEST", 3, "--coco_root is empty"),
    ("eval.py", "DATA --checkpoint_file_path=cut.ckpt", 3, "cut.ckpt' is damaged"),
    ("eval.py", "DATA --checkpoint_file_path=BEST --model=ssd_resnet50_fpn", 2, "holds model ssd300_mobilenet_v2"),
    ("eval.py", "DATA --checkpoint_file_path=BEST --classes=coco", 2, "holds classes circle,triangle,square,star"),
    ("eval.py", "DATA --checkpoint_file_path=BEST --output_path=a_file/run", 4, "cannot be made"),
    ("eval.py", "DATA --checkpoint_file_path=missing.mindir", 2, "missing.mindir' is not a file"),
    ("export.py", "", 2, "--checkpoint_file_path is empty"),
    ("export.py", "--checkpoint_file_path=BEST --file_format=AIR", 2, "allowed are"),
    ("predict.py", "--checkpoint_file_path=BEST", 2, "--source is empty"),
    ("predict.py", "--checkpoint_file_path=BEST --source=missing", 3, "source 'missing' does not exist"),
    ("prepare_data.py", "--dataset=voc", 3, "--voc_root is empty"),
]


@pytest.fixture(scope="session")
def answers(place, trained):
    """What the programs answer to each row of BAD, started here, two at a time: a list of futures."""
    import mindspore as ms
    (place.folder / "a_file").write_text("")
    (place.folder / "cut.ckpt").write_bytes(trained.best.read_bytes()[:100000])
    ms.save_checkpoint([{"name": "other.weight", "data": ms.Tensor([1.0])}], str(place.folder / "foreign.ckpt"))
    bad = []
    with ThreadPoolExecutor(2) as pool:
        for number, (program, options, *_) in enumerate(BAD):
            typed = options.replace("DATA", " ".join(place.data)).replace("BEST", str(trained.best)).split()
            if program == "train.py" and "output_path" not in options:
                typed.append(f"--output_path={place.folder / f'bad{number}'}")
            bad.append(pool.submit(run, place, program, *typed))
        yield bad


@pytest.mark.parametrize("number", range(len(BAD)), ids=[" ".join(row[:2]) for row in BAD])
def test_bad_input_ends_in_one_line(answers, number):
    (_, _, code, words), done = BAD[number], answers[number].result()
    assert done.returncode == code and words in done.stderr, done.stdout + done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_help_into_a_pipe_that_closes(place):
    done = run(place, "bash", "-c", f"{sys.executable} {ROOT}/train.py --help | head -1")
    assert done.stdout.startswith("usage: ") and done.stderr == ""


@pytest.mark.skipif(has_driver, reason="this machine has an NVIDIA driver")
@pytest.mark.parametrize("launcher", ["", "mpirun --allow-run-as-root --oversubscribe -n 8 "])
def test_the_command_users_type_is_understood(place, launcher):
    # as it stands in the design, in a shell, from the repository; it ends where it looks for the driver
    command = ("python train.py --run_distribute=True --lr=0.05 --dataset=coco --device_num=8 --loss_scale=1 "
               '--device_target="GPU" --epoch_size=60 --config_path=./config/ssd_resnet50_fpn_config_gpu.yaml '
               "--output_path './output'")
    done = subprocess.run(launcher + command, shell=True, cwd=ROOT, env=environment(), capture_output=True, text=True,
                          timeout=60, check=False)
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert done.returncode == 4 and len(errors) == 1 and "Traceback" not in done.stderr
    assert "device_target=GPU" in errors[0] and "--device_target=CPU" in errors[0]


def test_another_number_of_processes_than_device_num(place):
    done = run(place, *MPIRUN, sys.executable, os.path.join(ROOT, "train.py"), *place.data, "--run_distribute=True",
               "--device_num=8")
    assert done.returncode == 4 and done.stderr.count("device_num=8, but the launcher started 2 processes") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script, words", [
    ("run_standalone_train_gpu.sh", "0 1 0.01 coco"), ("run_distribute_train_gpu.sh", "2 1"),
    ("run_eval_gpu.sh", "coco"), ("run_export.sh", "")])
def test_scripts_tell_their_usage(place, script, words):
    done = run(place, script, *words.split())
    assert done.returncode == 2 and done.stdout == "" and f"bash scripts/{script} " in done.stderr


def test_the_doctor_finds_this_machine_fit(place):
    text = succeed(place, "scripts/doctor.py")
    assert re.search(r"ok +mindspore +2\.10\.0", text) and re.search(r"convolution on CPU .* up to AVX2", text)
    assert re.search(r"(ok|--) +mpirun", text) and "NVIDIA driver" in text and "!!" not in text


def test_the_doctor_names_what_is_missing(place):
    # -S: no installed packages
    done = subprocess.run([sys.executable, "-S", os.path.join(ROOT, "scripts", "doctor.py")], cwd=place.folder,
                          env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4 and done.stderr == ""
    assert re.search(r"!! +mindspore +missing", done.stdout) and "setup_env.sh" in done.stdout


# --- interrupted and resumed

def interrupt(place, words, program, *options):
    """Starts a program, sends SIGINT when a line begins with the words, returns its exit code and stderr."""
    with subprocess.Popen([sys.executable, os.path.join(ROOT, program), *options], cwd=place.folder, text=True,
                          env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for line in process.stdout:
            if line.startswith(words):
                process.send_signal(signal.SIGINT)
                break
        _, errors = process.communicate(timeout=200)
    return process.returncode, errors


@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(place):
    options = ["--epoch_size=5", "--dynamic_loss_scale=True", "--loss_scale=1024"]
    whole, halted = place.folder / "whole", place.folder / "halted"
    succeed(place, "train.py", *place.data, f"--output_path={whole}", *options)
    code, errors = interrupt(place, "step 8/", "train.py", *place.data, f"--output_path={halted}", *options)
    assert code == 130 and re.match(r"error: interrupted after step \d+; [^\n]*\n$", errors)
    done = int(re.search(r"after step (\d+)", errors)[1])
    assert 8 <= done < 30 and (halted / "ckpt" / "last.ckpt").exists()
    text = succeed(place, "train.py", *place.data, f"--output_path={halted}", "--resume=True", *options)
    assert f"resumed after step {done}" in text
    expected, values = read_weights(whole / "ckpt" / "last.ckpt"), read_weights(halted / "ckpt" / "last.ckpt")
    assert expected.keys() == values.keys()
    assert not [name for name in expected if not np.array_equal(expected[name], values[name])]
    # the same steps in one log, the same scores, and nothing more to do
    wanted = {row["step"]: row["AP"] for row in read_rows(whole) if "AP" in row}
    assert {row["step"]: row["AP"] for row in read_rows(halted) if "AP" in row} == wanted
    again = succeed(place, "train.py", *place.data, f"--output_path={halted}", "--resume=True", *options)
    assert "resumed after step 30" in again and "first step took" not in again


@pytest.mark.slow
def test_resume_refuses_another_network(place, trained):
    done = run(place, "train.py", *place.data, f"--output_path={trained.folder}", "--resume=True", "--image_size=96")
    assert done.returncode == 2 and "image_size" in done.stderr and done.stderr.count("\n") == 1


def test_the_log_of_a_resumed_run_is_read_as_one(tmp_path):
    from src.run import read_log
    rows = [{"classes": 4}, {"step": 2, "loss": 3.0}, {"step": 4, "loss": 9.0}, {"step": 4, "AP": 0.1}, {"classes": 4},
            {"step": 4, "loss": 2.0}]
    torn = '{"step": 6, "lo'
    (tmp_path / "log.jsonl").write_text("\n".join([*map(json.dumps, rows[:4]), torn, *map(json.dumps, rows[4:])]))
    assert read_log(tmp_path / "log.jsonl") == [rows[0], rows[1], rows[5], rows[3]]


@pytest.mark.slow
def test_an_interrupted_video_is_kept_so_far(place, exported, tmp_path):
    write_video(tmp_path / "film.mp4", 5000)
    code, errors = interrupt(place, "50 frames", "predict.py", f"--checkpoint_file_path={exported.path}",
                             f"--source={tmp_path / 'film.mp4'}", f"--output_path={tmp_path / 'out'}")
    assert (code, errors) == (0, "")
    frames = len(read_json(tmp_path, "out", "predictions.json"))
    assert 50 <= frames < 5000
    assert cv2.VideoCapture(str(tmp_path / "out" / "film.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == frames


@pytest.mark.slow
def test_an_interrupted_evaluation_says_so(place, trained, tmp_path):
    code, errors = interrupt(place, "ssd300_mobilenet_v2 on 7 images", "eval.py", *place.data,
                             f"--checkpoint_file_path={trained.best}", f"--output_path={tmp_path}")
    assert code == 130 and errors.startswith("error: interrupted") and errors.count("\n") == 1


# --- VOC and TXT

XML = ("<annotation><filename>{name}</filename><size><width>{width}</width><height>{height}</height></size>{boxes}"
       "</annotation>")
OBJECT = ("<object><name>{}</name><difficult>0</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
          "<ymax>{}</ymax></bndbox></object>")


@pytest.fixture(scope="session")
def others(place):
    """The drawn pictures as a VOC tree and as TXT: the options of each by dataset name."""
    root = place.folder / "others"
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for split in ("train", "val"):
        truth, names, lines = read_json(place.coco, "annotations", f"instances_{split}2017.json"), [], []
        for image in truth["images"]:
            name = f"{split}_{image['id']}"
            boxes = [(CLASSES[one["category_id"] - 1], *corners(one["bbox"])) for one in truth["annotations"]
                     if one["image_id"] == image["id"]]
            shutil.copy(place.coco / f"{split}2017" / image["file_name"], root / "JPEGImages" / f"{name}.jpg")
            xml = XML.format(name=f"{name}.jpg", boxes="".join(OBJECT.format(*box) for box in boxes),
                             width=image["width"], height=image["height"])
            (root / "Annotations" / f"{name}.xml").write_text(xml)
            names.append(name)
            lines.append(" ".join([f"{name}.jpg", *(",".join(map(str, (*box[1:], box[0]))) for box in boxes)]))
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
        (root / f"{split}.txt").write_text("\n".join(lines))
    recipe = f"--config_path={place.recipe}"
    texts = (f"--anno_path={root / 'train.txt'}", f"--val_anno_path={root / 'val.txt'}")
    return {"voc": (recipe, "--dataset=voc", f"--voc_root={root}"),
            "other": (recipe, "--dataset=other", f"--image_dir={root / 'JPEGImages'}", *texts)}


def corners(box):
    """x, y, w, h -> whole x1, y1, x2, y2."""
    return [round(value) for value in (box[0], box[1], box[0] + box[2], box[1] + box[3])]


@pytest.mark.parametrize("dataset", ["voc", "other"])
def test_other_formats_are_prepared(place, others, dataset):
    text = succeed(place, "prepare_data.py", *others[dataset])
    assert re.search("^train: 24 images", text, re.MULTILINE) and re.search("^val: 7 images", text, re.MULTILINE)
    truth = read_json(place.coco, "annotations", "instances_train2017.json")
    wanted = Counter(CLASSES[one["category_id"] - 1] for one in truth["annotations"])
    found = re.findall(r"^ +(\d+)  (\w+)$", text.split("\nval: ")[0], re.MULTILINE)
    assert {name: int(count) for count, name in found} == wanted
    # a second call finds everything ready
    assert "converting" not in succeed(place, "prepare_data.py", *others[dataset])


@pytest.mark.slow
@pytest.mark.parametrize("dataset, names", [("voc", ["mAP_11point", "mAP_area"]), ("other", COCO_NAMES)])
def test_other_formats_train_and_evaluate(place, others, dataset, names):
    folder = place.folder / f"run_{dataset}"
    succeed(place, "train.py", *others[dataset], f"--output_path={folder}", "--epoch_size=1")
    succeed(place, "eval.py", *others[dataset], f"--checkpoint_file_path={folder / 'ckpt' / 'best.ckpt'}")
    metrics = read_json(folder, "eval", "metrics.json")
    assert set(names) <= metrics.keys() and sorted(metrics["per_class"]) == sorted(CLASSES)
    row = next(row for row in read_rows(folder) if names[0] in row or "AP" in row)
    shared = [name for name in names if name in row]
    assert shared and all(metrics[name] == pytest.approx(row[name], abs=1e-6) for name in shared)


# --- several processes

def left_behind(mark, patience=20):
    """Processes whose environment holds the mark and that do not end within some seconds."""
    for _ in range(patience * 2):
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SSD_TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline())[:200])
            except psutil.Error:
                continue
        if not found:
            return []
        time.sleep(0.5)
    return found


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
