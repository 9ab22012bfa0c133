"""Disturbs the programs at many moments, and checks what is left: each file whole, nothing lost, nothing counted twice.

    python tests/faults/series.py --fault=kill --program=train --trials=50 --json=killed.json

starts a program again and again on a tiny data set of drawn shapes. kill: kill -9 of its process group at random shares
of its processor time. full: its output lies on a small disk of its own (tmpfs), full at random shares of what it
writes. After each trial every file must be whole; then the same command, or --resume=True where a checkpoint is there,
must end well, and leave what an undisturbed run leaves: equal weights, log rows, numbers, pictures and outputs, and no
other files, in the output folder, in the folder of temporary files and in /dev/shm. A trial is not made again once FILE
has it.
"""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import yaml

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, os.pardir))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "fuzz"))
from harness import facts_of_a_run
from left import differences, problems
from programs import RECIPE, ROOT, environment, write_video

from src.arguments import ArgumentParser
from src.files import write_atomic

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")  # as the programs set it, before MindSpore is imported
LIMIT = 3600  # seconds of a program, on a busy machine
# in a mount namespace of its own: $1 becomes /dev/shm
OWN_MEMORY = ["unshare", "-Urm", "sh", "-c", 'mount --bind "$1" /dev/shm && shift && exec "$@"', "sh"]
# in that namespace: a disk of $1 kilobytes at $2, which is gone afterwards, so its content is kept in $3
SMALL_DISK = ["sh", "-c", """
    out=$2; kept=$3; cp -a "$out/." "$kept"
    mount -t tmpfs -o "size=$1k" tmpfs "$out" && cp -a "$kept/." "$out" && shift 3 && "$@"
    code=$?; rm -rf "$kept"; cp -a "$out" "$kept"; exit $code""", "sh"]


class Place(NamedTuple):
    """Where all trials of a series work."""
    root: Path

    @property
    def data(self) -> list[str]:
        """The options that name the recipe and the data."""
        return [f"--config_path={self.root / 'tiny.yaml'}", f"--coco_root={self.root / 'coco'}",
                f"--compile_cache={self.root / 'cache'}"]

    @property
    def checkpoint(self) -> Path:
        """The best checkpoint of an undisturbed training."""
        return self.root / "train" / "whole" / "out" / "run" / "ckpt" / "best.ckpt"


# --- the programs: how they begin, and how they go on

def convert(place: Place, out: Path) -> list[str]:
    return ["prepare_data.py", *place.data, f"--mindrecord_dir={out / 'data'}"]


def train(place: Place, out: Path, *more: str) -> list[str]:
    if list(out.glob("run/ckpt/*.ckpt")):
        return ["train.py", "--resume=True", f"--output_path={out / 'run'}"]
    return ["train.py", *place.data, f"--output_path={out / 'run'}",
            f"--mindrecord_dir={place.root / 'data'}", "--save_checkpoint_steps=2", "--ema_decay=0.9", *more]


def train_with_processes(place: Place, out: Path) -> list[str]:
    return train(place, out, "--num_workers=2", "--worker_kind=processes")


def evaluate(place: Place, out: Path) -> list[str]:
    path = out / "best.ckpt"
    if not path.exists():
        shutil.copy(place.checkpoint, path)
    return ["eval.py", *place.data, f"--checkpoint_file_path={path}", f"--output_path={out}", "--report=True",
            "--store_score=True", f"--mindrecord_dir={out / 'data'}"]


def export(place: Place, out: Path) -> list[str]:
    return ["export.py", f"--checkpoint_file_path={place.checkpoint}", "--file_format=MINDIR",
            f"--file_name={out / 'ssd'}", "--export_batch_size=3"]


def predict(place: Place, out: Path) -> list[str]:
    return ["predict.py", f"--checkpoint_file_path={place.checkpoint}", f"--source={place.root / 'source'}",
            f"--output_path={out}", f"--compile_cache={place.root / 'cache'}", "--draw_score=0.01",
            "--save=[drawings,coco,csv,yolo,voc,crops]"]


PROGRAMS = {"convert": convert, "train": train, "evaluate": evaluate, "export": export, "predict": predict,
            "train_with_processes": train_with_processes}
USUAL = list(PROGRAMS)[:5]


def begin(root: Path) -> Place:
    """Draws what all programs read, once."""
    place, source = Place(root), root / "source"
    if not (root / "tiny.yaml").exists():
        subprocess.run([sys.executable, f"{ROOT}/scripts/make_demo_data.py", root / "coco", "--images=24", "--val=7"],
                       check=True, stdout=subprocess.DEVNULL)
        shutil.copytree(root / "coco" / "val2017", source)
        write_video(source / "v.mp4", 12)
        write_atomic(str(root / "tiny.yaml"), yaml.safe_dump(RECIPE).encode())
    return place


# --- trials

class Trial:
    """A folder with the output of a program, temporary files and shared memory of its own."""

    def __init__(self, folder: Path):
        self.out, self.temporary, self.memory = (folder / name for name in ("out", "tmp", "shm"))
        self.folder, self.text, self.cpu_seconds = folder, folder / "text", 0.0
        for one in (self.out, self.temporary, self.memory):
            one.mkdir(parents=True, exist_ok=True)

    def files(self) -> dict[str, int]:
        """The bytes of each file in it, by its path."""
        return {str(path.relative_to(self.folder)): path.lstat().st_size
                for part in (self.out, self.temporary, self.memory) for path in part.rglob("*") if not path.is_dir()}

    def run(self, command: list[str], *, prefix: tuple = (), until: float = float("inf")) -> int:
        """Starts a program; kill -9 after so many seconds of processor time -> exit code."""
        line = [*OWN_MEMORY, self.memory, *prefix, sys.executable, os.path.join(ROOT, command[0]), *command[1:]]
        end = time.monotonic() + LIMIT
        with open(self.text, "wb") as text, subprocess.Popen(
                line, cwd=self.folder, env=environment(TMPDIR=str(self.temporary)), stdout=text,
                stderr=subprocess.STDOUT, start_new_session=True) as process:
            while process.poll() is None:
                self.cpu_seconds = cpu_seconds(process.pid) or self.cpu_seconds
                if self.cpu_seconds >= until or time.monotonic() > end:
                    os.killpg(process.pid, signal.SIGKILL)
                time.sleep(0.005)
        return process.returncode

    def last_line(self) -> str:
        """What the program printed last."""
        lines = self.text.read_text(errors="replace").splitlines()
        return lines[-1][:200] if lines else ""


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have used, 0 when it has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def undisturbed(place: Place, name: str) -> tuple[Trial, float]:
    """A Trial that nothing disturbed, made once, and its processor time with compiled graphs."""
    done = place.root / name / "whole.json"
    whole = Trial(place.root / name / "whole")
    if not done.exists():
        for folder in (whole.folder, place.root / name / "again"):  # the first one compiles
            shutil.rmtree(folder, ignore_errors=True)
            trial = Trial(folder)
            code = trial.run(PROGRAMS[name](place, trial.out))
            assert code == 0, trial.text.read_text()
        apart = differences(trial.folder, whole.folder)
        assert not apart, f"two undisturbed runs of {name} differ: {apart}"
        write_atomic(str(done), json.dumps(trial.cpu_seconds).encode())
    return whole, json.loads(done.read_text())


def attempt(place: Place, name: str, number: int, *, fault: str, share: float) -> dict:
    """One trial -> its row. share: of the processor time, or of the bytes on the disk."""
    whole, seconds = undisturbed(place, name)
    folder = place.root / name / f"{fault}_{number}"
    shutil.rmtree(folder, ignore_errors=True)
    trial = Trial(folder)
    command, row = PROGRAMS[name](place, trial.out), {"program": name, "number": number, "share": round(share, 4)}
    before = trial.files()
    if fault == "kill":
        row["exit"] = trial.run(command, until=share * seconds)
    else:
        needed = sum(path.stat().st_blocks for path in whole.out.rglob("*")) / 2  # MindRecord files have holes
        row["kilobytes"], kept = max(round(share * needed), 4), folder / "kept"
        kept.mkdir()
        row["exit"] = trial.run(command, prefix=(*SMALL_DISK, str(row["kilobytes"]), trial.out, kept))
        shutil.rmtree(trial.out)
        kept.rename(trial.out)
    row.update(cpu=round(trial.cpu_seconds, 2), said=trial.last_line(), problems=problems(trial, row["exit"]))
    row["left"] = sorted(set(trial.files()) - set(before))
    row["untouched"] = trial.files() == before
    if not row["untouched"]:
        row["again"] = trial.run(PROGRAMS[name](place, trial.out))
        if row["again"]:
            row["problems"].append(f"started again it ends with {row['again']}: {trial.last_line()}")
        else:
            row["problems"] += differences(folder, whole.folder)
    if not row["problems"]:
        shutil.rmtree(folder)
    return row


def main() -> int:
    """Reads the command line, makes the trials that FILE lacks -> exit code."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--program", choices=PROGRAMS, action="append",
                        help=f"again for more; default: {', '.join(USUAL)}")
    parser.add_argument("--fault", choices=("kill", "full"), default="kill")
    parser.add_argument("--trials", type=int, default=50, help="of each program (default 50)")
    parser.add_argument("--json", required=True, help="file of the rows")
    parser.add_argument("--work", default=os.path.join(tempfile.gettempdir(), "ssd_faults"), help="working folder")
    arguments = parser.parse_args()
    rows, facts = [], {}
    if os.path.exists(arguments.json):
        with open(arguments.json, encoding="utf-8") as file:
            facts = json.load(file)
        rows = facts.pop("rows")
    place, known = begin(Path(arguments.work).resolve()), {(row["program"], row["number"]) for row in rows}
    undisturbed(place, "train")  # it leaves the checkpoint of the others
    shares = random.Random(1).sample(range(arguments.trials), arguments.trials)  # any first part covers the whole
    for number, part in enumerate(shares):
        for name in arguments.program or USUAL:
            if (name, number) in known:
                continue
            share = (part + random.Random(f"{name} {number}").random()) / arguments.trials
            rows.append(attempt(place, name, number, fault=arguments.fault, share=share))
            print(json.dumps(rows[-1]), flush=True)
            facts = {"fault": arguments.fault, **facts_of_a_run(sys.argv)}
            write_atomic(arguments.json, json.dumps({**facts, "rows": rows}, indent=1).encode())
    print(table(rows))
    return int(any(row["problems"] for row in rows))


def table(rows: list[dict]) -> str:
    """The rows of each program as a line of a page."""
    lines = ["| program | trials | nothing written yet | had ended | went on, equal in the end | faults |",
             "|---|---|---|---|---|---|"]
    for name in PROGRAMS:
        own = [row for row in rows if row["program"] == name]
        if own:
            faults, untouched = sum(bool(row["problems"]) for row in own), sum(row["untouched"] for row in own)
            ended = sum(row["exit"] == 0 for row in own)
            equal = sum(not row["problems"] and not row["untouched"] for row in own)
            lines.append(f"| {name} | {len(own)} | {untouched} | {ended} | {equal} | {faults} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
