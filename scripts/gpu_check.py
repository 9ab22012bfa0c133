"""The parts of scripts/gpu_check.sh: each runs as a user would start it, in its own process, and becomes a row.

    python scripts/gpu_check.py OUTPUT_FOLDER [--device=GPU] [--quick]

Losses of a float32 run are compared with those of the same run on the CPU, those of a float16 run with those of float32
on the same device. Speed is the median of the steps after the third, data included.
"""
from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.arguments import ArgumentParser
from src.errors import ENVIRONMENT_EXIT, Interrupted, OptionError, run_main
from src.files import expand_home, read_json, write_atomic

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RECIPES = {"ssd300_mobilenet_v2": "ssd300_config_gpu.yaml", "ssd_resnet50_fpn": "ssd_resnet50_fpn_config_gpu.yaml"}
COMPARED_BATCH = {"ssd300_mobilenet_v2": 16, "ssd_resnet50_fpn": 2}  # 640 pixels take the CPU long
# With these options rounding matters little: other kernels of the same CPU (SSE4.1 for AVX2) move the third loss by
# 1e-5 and a gradient by 1 %; with the published initial weights, meant for a pretrained backbone, by 4e-4 and 10 %.
STEADY = ("--weight_init=he", "--lr=0.003", "--lr_init=0.003", "--grad_clip=1", "--loss_scale=1")
QUICK = ("--image_size=64", "--width=0.25")  # of the first model alone
TOLERANCE = {"O0": 1e-3, "O2": 3e-2}   # relative, of a loss; O2 computes the network in float16
GRADIENT_TOLERANCE = 1e-2              # relative, of the norm of the first gradient in O0
COMPARED_STEPS, TIMED_STEPS = 3, 12
EXACT = {"NVIDIA_TF32_OVERRIDE": "0"}   # cards from Ampere on would round the factors of a convolution to 10 bits
FIRST_LIMIT, LIMIT = 1200, 300         # seconds; a new card may compile MindSpore's kernels at first


class Failed(Exception):
    """A part that did not do what it should, in one line. code: exit code of the program that failed, 1 without one."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


class Check:
    """Where the parts run, and the rows they leave in gpu_check.log.

    folder: absolute path for all files, made here. device: GPU or CPU. quick: one small network, to try this script.
    Raises OptionError where the folder exists.
    """

    def __init__(self, folder: str, device: str, quick: bool) -> None:
        self.folder, self.device, self.quick = folder, device, quick
        self.log = os.path.join(folder, "gpu_check.log")
        try:
            os.makedirs(folder)
        except FileExistsError as error:
            raise OptionError(f"{folder} exists; name a new one") from error
        self.head, self.rows, self.tails, self.full = headline(device, quick), [], [], {}
        self.batch = 4 if quick else 16
        self.models = list(RECIPES)[:1 if quick else None]
        data = os.path.join(folder, "data")
        self.data = ["--dataset=coco", f"--coco_root={data}", f"--mindrecord_dir={os.path.join(folder, 'mindrecord')}"]

    def part(self, name: str, work: Callable[..., str], *arguments: object) -> int:
        """Runs one part, leaves its row -> 0, or the code of what it raised; work returns the text of the row."""
        begun = time.time()
        try:
            code, text = 0, work(*arguments)
        except Failed as error:
            code, text = error.code, str(error)
        except Exception as error:  # a fault of this script must not cost the other rows
            code, text = 1, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            self.tails.append(traceback.format_exc())
        result = "FAILED" if code else "ok"
        self.rows.append(f"{name:<46} {result:<7} {time.time() - begun:>6.0f} s  {text}")
        print(self.rows[-1], flush=True)
        self.write()
        return code

    def write(self, doctor: str = "") -> None:
        """Writes the log with all that is known: an interrupted check leaves the rows it has."""
        write_atomic(self.log, "\n".join([self.head, *self.rows, "", *self.tails, "", doctor]).encode())

    def start(self, *command: str, seconds: float = LIMIT, **variables: str) -> str:
        """Standard output of a program of the repository. Raises Failed with the last line it wrote."""
        program, *options = command
        try:
            done = subprocess.run([sys.executable, os.path.join(ROOT, program), *options], cwd=self.folder,
                                  encoding="utf-8", errors="replace", capture_output=True, timeout=seconds,
                                  check=False, env={**os.environ, **variables})
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{program} was stopped after {seconds} s") from error
        if done.returncode:
            said = [line.strip() for line in done.stderr.splitlines() if line.strip("- \n")] or ["no message"]
            self.tails.append(f"{' '.join(command)}\n" + "\n".join(said[-30:]))
            line = next((line for line in said if line.startswith("error: ")), said[-1])
            raise Failed(f"{program} exit {done.returncode}: {line[:300]}", done.returncode)
        return done.stdout

    # --- the parts

    def convolution(self) -> str:
        """Convolutions with their gradients on both devices."""
        results = []
        for device in (self.device, "CPU"):
            path = os.path.join(self.folder, f"convolution_{len(results)}.npz")
            self.start("scripts/convolutions.py", path, f"--device={device}", seconds=FIRST_LIMIT, **EXACT)
            results.append(dict(np.load(path, allow_pickle=False)))
        mine, reference = results
        differences = [np.abs(mine[name] - value).max() / np.abs(value).max() for name, value in reference.items()]
        worst = int(np.argmax(differences))  # unlike max() it finds NaN
        return within(differences[worst], TOLERANCE["O0"], f"of {len(mine)} results ({list(reference)[worst]})")

    def data_set(self) -> str:
        """Draws pictures and converts them once."""
        images, val = (24, 8) if self.quick else (192, 32)
        self.start("scripts/make_demo_data.py", "data", "--images", str(images), "--val", str(val))
        self.start("prepare_data.py", *self.data)
        return f"{images} and {val} drawn pictures"

    def train(self, model: str, device: str, level: str, *, batch: int, steps: int, prefix: str = "",
              **variables: str) -> list[dict]:
        """Rows of the log of a training run; its folder is <prefix><model>_<level>_<batch>."""
        folder = os.path.join(self.folder, f"{prefix}{model}_{level}_{batch}")
        recipe = os.path.join(ROOT, "config", RECIPES[model])
        self.start("train.py", f"--config_path={recipe}", *self.data, f"--device_target={device}",
                   f"--amp_level={level}", f"--batch_size={batch}", f"--max_steps={steps}", "--log_interval=1",
                   "--compile_cache=", "--save_checkpoint_epochs=1000", f"--output_path={folder}",
                   *STEADY, *(QUICK if self.quick else ()), **variables)
        with open(os.path.join(folder, "log.jsonl"), encoding="utf-8") as file:
            rows = [row for row in map(json.loads, file) if "loss" in row]
        if any(row["skipped"] for row in rows):
            raise Failed("steps were skipped, their gradients were not finite")
        return rows

    def compare(self, model: str, batch: int, reference: Future) -> str:
        """The first steps on the device against those on the CPU; reference: the rows there."""
        rows = self.train(model, self.device, "O0", batch=batch, steps=COMPARED_STEPS, prefix="compared_", **EXACT)
        text = compare_losses(rows, reference.result(), level="O0", name="the CPU's")
        mine, theirs = rows[0]["grad_norm"], reference.result()[0]["grad_norm"]
        return f"{text}; {within(abs(mine - theirs) / theirs, GRADIENT_TOLERANCE, 'of the first gradient norm')}"

    def speed(self, model: str, level: str) -> str:
        """Speed and memory at the full batch, and for O2 the losses against those of O0."""
        steps = COMPARED_STEPS + 2 if self.quick else TIMED_STEPS
        with DeviceMemory(self.device) as memory:
            rows = self.train(model, self.device, level, batch=self.batch, steps=steps)
        seconds = np.median([row["data_time"] + row["step_time"] for row in rows[COMPARED_STEPS:]])
        text = (f"{self.batch / seconds:.1f} images/s ({seconds * 1000:.0f} ms a step), first step "
                f"{rows[0]['step_time']:.0f} s, {memory.text()}")
        self.full.setdefault(model, rows if level == "O0" else None)
        if level == "O0":
            return text
        if not self.full[model]:
            raise Failed(f"{text}; no losses of O0 to compare with")
        return f"{text}; {compare_losses(rows, self.full[model], level=level, name='those of O0')}"

    def evaluate(self, checkpoint: str) -> str:
        """Detections of one checkpoint on both devices."""
        scores = []
        for device in (self.device, "CPU"):
            folder = os.path.join(self.folder, f"eval_{len(scores)}")
            self.start("eval.py", *self.data, f"--device_target={device}", f"--checkpoint_file_path={checkpoint}",
                       f"--output_path={folder}", "--min_score=0.001", **EXACT)
            detections = read_json(os.path.join(folder, "eval", "detections.json"))
            scores.append(np.sort([detection["score"] for detection in detections])[::-1])
        mine, reference = scores
        count = min(map(len, scores))
        if not count or abs(len(mine) - len(reference)) > 0.01 * len(reference):
            raise Failed(f"{len(mine)} detections, the CPU has {len(reference)}")
        return within(float(np.abs(mine[:count] - reference[:count]).max()), TOLERANCE["O0"], f"of {count} scores")

    def export(self, checkpoint: str) -> str:
        """MindIR, which export.py loads again and compares with the network."""
        said = self.start("export.py", f"--device_target={self.device}", f"--checkpoint_file_path={checkpoint}",
                          "--file_format=MINDIR", f"--file_name={os.path.join(self.folder, 'ssd')}")
        return said.splitlines()[-1]


class DeviceMemory:
    """Watches the memory of the card while a program runs."""

    def __init__(self, device: str) -> None:
        self.device, self.peak, self.done = device, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self) -> None:
        """Reads the memory in use until the program has ended."""
        while self.device == "GPU" and not self.done.wait(0.3):
            card = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
            said = query("memory.used", "-i", card, "--format=csv,noheader,nounits")
            self.peak = max([self.peak, *(int(word) for word in said.split() if word.isdigit())])

    def __enter__(self) -> DeviceMemory:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def text(self) -> str:
        """The largest use of memory, in GiB."""
        return f"{self.peak / 1024:.1f} GiB of the card" if self.peak else "memory of the card not known"


def headline(device: str, quick: bool) -> str:
    """The first line of table and log: when, on which device."""
    cards = query("name,driver_version,memory.total", "--format=csv,noheader").strip() or "no nvidia-smi"
    suffix = ", quick" if quick else ""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')}  device {device}{suffix}  {cards}"


def query(fields: str, *options: str) -> str:
    """What nvidia-smi answers, "" without it."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(["nvidia-smi", f"--query-gpu={fields}", *options], capture_output=True, text=True,
                              timeout=20, check=False).stdout
    return ""


def compare_losses(rows: list[dict], others: list[dict], *, level: str, name: str) -> str:
    """Text of a comparison of the losses in rows of two logs; name: whose the others are. Raises Failed."""
    mine, theirs = (np.array([row["loss"] for row in log[:COMPARED_STEPS]]) for log in (rows, others))
    worst = np.max(np.abs(mine - theirs) / np.abs(theirs))
    losses = ", ".join(f"{loss:.5f}" for loss in mine)
    return within(worst, TOLERANCE[level], f"of losses {losses} from {name}")


def within(difference: float, limit: float, of: str) -> str:
    """Text of a difference that is small enough. Raises Failed for a larger one and for NaN."""
    text = f"largest relative difference {difference:.1e} {of}"
    if not difference <= limit:
        raise Failed(f"{text}, at most {limit:.0e} is right")
    return text


def run(check: Check) -> int:
    """All parts in turn -> exit code; only a device that does not start ends them."""
    if check.part(f"convolutions, {check.device} against CPU", check.convolution) == ENVIRONMENT_EXIT:
        return ENVIRONMENT_EXIT
    check.part("data", check.data_set)
    compare_all(check)
    for model in check.models:
        for level in ("O0", "O2"):
            check.part(f"{model} {level}, batch {check.batch}", check.speed, model, level)
    model = check.models[0]
    checkpoint = os.path.join(check.folder, f"{model}_O0_{check.batch}", "ckpt", "last.ckpt")
    check.part(f"evaluation of {model}, against CPU", check.evaluate, checkpoint)
    check.part(f"MindIR of {model}", check.export, checkpoint)
    return int(any(" FAILED " in row for row in check.rows))


def compare_all(check: Check) -> None:
    """The parts that compare losses. The CPU's runs go on beside those of the device, before speed is measured."""
    pool = ThreadPoolExecutor(1)
    batches = {model: check.batch // 2 if check.quick else COMPARED_BATCH[model] for model in check.models}
    references = {model: pool.submit(check.train, model, "CPU", "O0", batch=batch, steps=COMPARED_STEPS,
                                     prefix="reference_") for model, batch in batches.items()}
    try:
        for model, batch in batches.items():
            check.part(f"{model} O0, batch {batch}, against CPU", check.compare, model, batch, references[model])
    finally:
        pool.shutdown(cancel_futures=True)  # an interruption does not wait for runs that have not begun


def main() -> int:
    """Reads the command line, runs the parts, writes the log -> exit code. Raises OptionError, Interrupted."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("folder", type=expand_home, help="a new folder for all files")
    parser.add_argument("--device", choices=("GPU", "CPU"), default="GPU")
    parser.add_argument("--quick", action="store_true", help="one small network, to try this script")
    options = parser.parse_args()
    check = Check(os.path.abspath(options.folder), options.device, options.quick)
    print(check.head, flush=True)
    try:
        code = run(check)
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; the parts that ended are in {check.log}") from error
    doctor = subprocess.run([sys.executable, os.path.join(ROOT, "scripts/doctor.py")], capture_output=True, text=True,
                            check=False).stdout
    check.write(doctor)
    print(f"written: {check.log}")
    return code


if __name__ == "__main__":
    run_main(main)
