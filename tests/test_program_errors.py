"""What goes wrong, in one line."""
import ctypes.util
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from programs import MPIRUN, ROOT, environment, run, succeed

has_driver = ctypes.util.find_library("cuda") is not None

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
    ("train.py", "DATA --amp_level=O2 --amp_type=bfloat16", 4, "amp_type=bfloat16 cannot be used on CPU"),
    ("train.py", "DATA --coco_root=missing", 3, "coco_root 'missing' is not a folder"),
    ("train.py", "DATA --val_data_type=val2018", 3, "instances_val2018.json"),
    ("train.py", "DATA --output_path=a_file/run --mindrecord_dir=a_file/too", 4, "folder 'a_file/run' cannot be made"),
    ("train.py", "DATA --resume=True", 2, "/ckpt/*.ckpt'"),
    ("train.py", "DATA --pre_trained=missing.ckpt", 2, "missing.ckpt' is not a file"),
    ("train.py", "DATA --pre_trained=foreign.ckpt", 2, "is it of another --model or --width?"),
    ("train.py", "DATA --config_path=zoo.yaml", 2, "is it a recipe of the model zoo?"),
    ("train.py", "DATA --metric_engine=pycocotools --resume=True --output_path=unsaved", 2, "leave --resume out"),
    ("train.py", "DATA --freeze_layer=bakbone", 2, "known are backbone"),
    ("eval.py", "DATA", 2, "--checkpoint_file_path is empty"),
    ("eval.py", "--checkpoint_file_path=moved.ckpt", 3, "--coco_root is empty"),
    ("eval.py", "DATA --checkpoint_file_path=cut.ckpt", 3, "cut.ckpt' is damaged"),
    ("eval.py", "DATA --checkpoint_file_path=BEST --model=ssd_resnet50_fpn", 2, "holds model ssd300_mobilenet_v2"),
    ("eval.py", "DATA --checkpoint_file_path=BEST --classes=coco", 2, "holds classes circle,triangle,square,star"),
    ("eval.py", "DATA --checkpoint_file_path=BEST --output_path=a_file/run", 4, "cannot be made"),
    ("eval.py", "DATA --checkpoint_file_path=zoo.yaml", 3, "unknown format"),
    ("eval.py", "DATA --checkpoint_file_path=foreign.ckpt", 2, "does not say its classes"),
    ("eval.py", "DATA --checkpoint_file_path=old.mindir", 2, "was exported by MindSpore 1.10.0"),
    ("eval.py", "DATA --checkpoint_file_path=missing.mindir", 2, "missing.mindir' is not a file"),
    ("eval.py", "DATA --checkpoint_file_path=cut.mindir", 3, "cut.mindir' or its .json is damaged"),
    ("export.py", "", 2, "--checkpoint_file_path is empty"),
    ("export.py", "--checkpoint_file_path=BEST --file_format=AIR", 2, "allowed are"),
    ("predict.py", "--checkpoint_file_path=BEST", 2, "--source is empty"),
    ("predict.py", "--checkpoint_file_path=BEST --source=missing", 3, "source 'missing' does not exist"),
    ("prepare_data.py", "--dataset=voc", 3, "--voc_root is empty"),
    ("eval.py", "DATA --checkpoint_file_path=BEST --store_score=True", 2, "--store_score=True needs --report=True"),
    ("eval.py", "DATA --checkpoint_file_path=BEST --eval_batch_size=129", 2, "_size=129: must lie between 1 and 128"),
    ("export.py", "--checkpoint_file_path=BEST --export_batch_size=1000", 2, "must lie between 0 and 128"),
    # more memory than any machine has
    ("train.py", "DATA --image_size=90000000", 4, "try --batch_size=2, half of the batch of 4"),
]


@pytest.fixture(scope="session")
def answers(place, trained, exported):
    """What the programs answer to each row of BAD, started here, two at a time: a list of futures."""
    import mindspore as ms
    (place.folder / "a_file").write_text("")
    shutil.copy(trained.best, place.folder / "moved.ckpt")  # no longer in its run, whose data it would take
    (place.folder / "cut.ckpt").write_bytes(trained.best.read_bytes()[:100000])
    (place.folder / "cut.mindir").write_bytes(exported.path.read_bytes()[:100000])
    shutil.copy(exported.path.with_suffix(".json"), place.folder / "cut.json")
    ms.save_checkpoint([{"name": "other.weight", "data": ms.Tensor([1.0])}], str(place.folder / "foreign.ckpt"))
    (place.folder / "zoo.yaml").write_text("enable_modelarts: False\n")
    (place.folder / "unsaved" / "ckpt").mkdir(parents=True)
    for name in ("config.yaml", "log.jsonl"):
        (place.folder / "unsaved" / name).write_text("")
    facts = json.loads(exported.path.with_suffix(".json").read_text())
    (place.folder / "old.json").write_text(json.dumps({**facts, "mindspore": "1.10.0"}))
    shutil.copy(exported.path, place.folder / "old.mindir")
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
                          timeout=200, check=False)
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


def test_a_recipe_is_no_checkpoint(place):
    done = run(place, "run_export.sh", "config/x.yaml", "MINDIR")
    assert done.returncode == 2 and "the first argument is a checkpoint" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("program", ["train.py", "eval.py", "export.py", "predict.py", "prepare_data.py",
                                     "import_weights.py"])
def test_outside_the_environment_one_line_tells_where_the_packages_are(place, program):
    # -S: no installed packages
    done = subprocess.run([sys.executable, "-S", os.path.join(ROOT, program), "--help"], cwd=place.folder,
                          env=environment(), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 4 and done.stderr.startswith("error: the package '") and done.stderr.count("\n") == 1
    assert ". .venv/bin/activate" in done.stderr


def test_the_doctor_finds_this_machine_fit(place):
    text = succeed(place, "scripts/doctor.py")
    assert re.search(r"ok +mindspore +2\.10\.0", text) and re.search(r"convolution on CPU .* up to AVX2", text)
    assert re.search(r"(ok|--) +mpirun", text) and "NVIDIA driver" in text and "!!" not in text


def test_the_doctor_names_what_is_missing(place):
    # -S: no installed packages
    done = subprocess.run([sys.executable, "-S", os.path.join(ROOT, "scripts", "doctor.py")], cwd=place.folder,
                          env=environment(), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 4 and done.stderr == ""
    assert re.search(r"!! +mindspore +missing", done.stdout) and "setup_env.sh" in done.stdout
