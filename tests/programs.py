"""The programs started as a user types them, in a shell of their own: how, and how to look at what they leave."""
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time

import cv2
import numpy as np
import psutil

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CLASSES = ["circle", "triangle", "square", "star"]
COCO_NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
# 24 images in batches of 4: 6 steps an epoch
RECIPE = {"model": "ssd300_mobilenet_v2", "image_size": 64, "width": 0.25, "weight_init": "he", "device_target": "CPU",
          "epoch_size": 2, "batch_size": 4, "lr": 0.05, "lr_init": 0.005, "warmup_epochs": 0.5, "min_score": 0.01,
          "run_eval": True, "eval_batch_size": 4, "log_interval": 2}
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "2"]


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
                          timeout=800, check=False)


def run_differing(place, folder, *difference, mark, others=1):
    """train.py of two or more processes, of which rank 0 lacks the options `difference` that the `others` have."""
    command = [sys.executable, os.path.join(ROOT, "train.py"), *place.data, "--run_distribute=True",
               f"--output_path={folder}"]
    return run(place, *MPIRUN[:-1], 1, *command, ":", "-n", others, *command, *difference, SSD_TEST_MARK=mark)


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


@contextlib.contextmanager
def started(*command, **options):
    """A process that works meanwhile; killed at the end, so that a test that fails does not wait for it."""
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupt(place, words, program, *options, number=signal.SIGINT, act=None):
    """Starts a program, sends a signal or calls act() when a line begins with the words -> exit code, stderr."""
    with started(sys.executable, os.path.join(ROOT, program), *options, cwd=place.folder, env=environment(),
                 stderr=subprocess.PIPE) as process:
        for line in process.stdout:
            if line.startswith(words):
                act() if act else process.send_signal(number)
                break
        _, errors = process.communicate(timeout=200)
    return process.returncode, errors


def free_port():
    """A port that nobody has, and that no program gets that asks for any."""
    while True:
        port = 20000 + secrets.randbelow(10000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def until(condition, seconds=60, work=lambda: None):
    """Waits until a condition holds, which on a busy machine may take long; calls work() meanwhile."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        work()
        time.sleep(0.005)


def write_video(path, frames):
    """A film of grey frames."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (320, 240))
    for number in range(frames):
        writer.write(np.full((240, 320, 3), number % 200, np.uint8))
    writer.release()


def marked(mark):
    """The processes whose environment holds the mark."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("SSD_TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue


def left_behind(mark, patience=20):
    """Processes whose environment holds the mark and that do not end within some seconds."""
    for _ in range(patience * 2):
        found = [describe(process) for process in marked(mark)]
        if not found:
            return []
        time.sleep(0.5)
    return found


def describe(process):
    """The command of a process, for a message."""
    try:
        return " ".join(process.cmdline())[:200]
    except psutil.Error:
        return str(process.pid)
