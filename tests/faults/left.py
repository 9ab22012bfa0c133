"""What a program left: whether each file is whole, and how it differs from what an undisturbed run leaves."""
import csv
import json
import re
import signal
import sqlite3
import xml.etree.ElementTree as ET
from pathlib import Path

import av
import cv2
import numpy as np
import yaml

from src.events import EVENTS
from src.files import ASIDE

BEING_WRITTEN = (ASIDE, ".tmp/", ".lock")  # in the path of what is not complete yet, and is known not to be
PARTS = ("out", "tmp", "shm")  # of the folder of a trial
OF_THE_MOMENT = ("time", "commit", "data_time", "step_time", "images_per_second", "eta", "peak_memory", "spent",
                 "resume")


def problems(trial, code: int) -> list[str]:
    """What is wrong with a program that was disturbed: its exit, what it said, files that are halves."""
    text = trial.text.read_text(errors="replace")
    found = [f"not whole: {path}: {type(error).__name__}: {error}" for path, error in halves(trial.out)]
    errors = re.findall(r"^error: .*$", text, re.MULTILINE)
    if code not in (0, 4, -signal.SIGKILL):
        found.append(f"exit {code}")
    if code == 4 and len(errors) != 1 or "Traceback" in text or "core dumped" in text:
        found.append(f"said {text[-1500:]}")
    return found


def halves(folder: Path) -> list[tuple[str, Exception]]:
    """The files of a folder that cannot be read, and why."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not any(mark in name for mark in BEING_WRITTEN):
            try:
                content(path, str(folder))
            except Exception as error:  # of any reader
                found.append((name, error))
    return found


def differences(folder: Path, whole: Path) -> list[str]:
    """How the parts of two folders of trials differ, in words."""
    found = []
    for part in PARTS:
        names, wanted = ({common_name(path, one / part): path for path in (one / part).rglob("*") if path.is_file()}
                         for one in (folder, whole))
        found += [f"left behind: {part}/{name}" for name in names.keys() - wanted.keys()]
        found += [f"missing: {part}/{name}" for name in wanted.keys() - names.keys()]
        if part == "out":
            found += [f"{name} differs: {where}" for name in sorted(names.keys() & wanted.keys()) if
                      (where := difference(content(names[name], str(folder)), content(wanted[name], str(whole))))]
    return found


def common_name(path: Path, folder: Path) -> str:
    """The name of a file without what each start makes different."""
    return re.sub(rf"{re.escape(EVENTS)}.*", EVENTS, str(path.relative_to(folder)))


def difference(first: object, second: object, where: str = "") -> str:
    """Where two contents differ first, "" where they are equal."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return next(filter(None, (difference(first[key], second[key], f"{where}/{key}") for key in first)), "")
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return next(filter(None, (difference(one, other, f"{where}/{number}")
                                  for number, (one, other) in enumerate(zip(first, second)))), "")
    same = np.array_equal(first, second) if isinstance(first, np.ndarray) else first == second
    return "" if same else f"{where or 'content'}: {str(first)[:100]!r}, not {str(second)[:100]!r}"


# --- the content of each kind of file, without what depends on the moment and the place

def content(path: Path, folder: str) -> object:
    """What a file holds. folder: of the trial. Raises what its reader raises."""
    if path.name.startswith(EVENTS):
        return scalars(path)
    if ".mindrecord" in path.name:
        return rows_of(path)
    return READERS.get(path.suffix, read_text)(path, folder)


def read_text(path: Path, folder: str) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape").replace(folder, "FOLDER")


def read_values(path: Path, folder: str) -> object:
    return of_any_moment(json.loads(read_text(path, folder)))


def read_log(path: Path, folder: str) -> list:
    """The rows of steps; the facts of each start stand between them. The last line of a killed run may be cut."""
    *lines, _ = read_text(path, folder).split("\n")
    rows = [row for row in map(json.loads, lines) if "step" in row]
    places = [(row["step"], "loss" in row) for row in rows]
    assert len(set(places)) == len(places), f"a step stands there twice: {places}"
    return of_any_moment(rows)


def of_any_moment(value: object) -> object:
    """A JSON value without the keys that depend on the moment."""
    if isinstance(value, dict):
        return {key: of_any_moment(item) for key, item in value.items() if key not in OF_THE_MOMENT}
    return [of_any_moment(item) for item in value] if isinstance(value, list) else value


def read_yaml(path: Path, folder: str) -> object:
    return of_any_moment(yaml.safe_load(read_text(path, folder)))


def read_picture(path: Path, folder: str) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None, "no picture"
    return pixels


def read_video(path: Path, folder: str) -> list:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def read_checkpoint(path: Path, folder: str) -> dict:
    from src.weights.checkpoint import load
    values, meta = load(str(path))
    assert meta, "it does not describe itself"
    return {"values": values, "meta": of_any_moment(json.loads(json.dumps(meta).replace(folder, "FOLDER")))}


def read_exported(path: Path, folder: str) -> list:
    """What an exported file computes of random pixels."""
    from src.inference.predictor import load_exported
    predict = load_exported(str(path))
    size = predict.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (predict.batch_size, size, size, 3), np.uint8)
    return [np.asarray(output) for output in predict.detect_batch(pixels)]


def scalars(path: Path) -> int:
    """TensorBoard's file: that it can be read; its numbers are those of the log."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    for event in EventFileLoader(str(path)).Load():
        assert event.wall_time > 0
    return 0


def rows_of(path: Path) -> list:
    """The rows of MindRecord; of its index the tables."""
    if path.suffix == ".db":
        with sqlite3.connect(path) as connection:
            return sorted(name for name, in connection.execute("select name from sqlite_master where type = 'table'"))
    import mindspore.dataset as ds
    rows = ds.MindDataset([str(path)], shuffle=False).create_dict_iterator(num_epochs=1, output_numpy=True)
    return [dict(row) for row in rows]


READERS = {
    ".json": read_values, ".jsonl": read_log, ".yaml": read_yaml, ".png": read_picture, ".jpg": read_picture,
    ".html": lambda path, folder: re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", read_text(path, folder)),
    ".mp4": read_video, ".ckpt": read_checkpoint, ".mindir": read_exported,
    ".csv": lambda path, folder: list(csv.reader(read_text(path, folder).splitlines())),
    ".xml": lambda path, folder: ET.tostring(ET.parse(path).getroot(), "unicode")}
