"""What predict.py leaves: predictions.json, and drawings as pictures and videos."""
from __future__ import annotations

import contextlib
import json
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from src.drawing import draw_boxes, save_png
from src.files import aside_of
from src.inference.pipeline import Detections
from src.inference.sources import Picture, Source
from src.inference.videos import VideoWriter, plain_url


class Result(NamedTuple):
    """A picture and what was found in it."""
    picture: Picture
    found: Detections
    objects: list[dict]  # the same for people: class, score, and box x1, y1, x2, y2 in pixels
    stem: str            # of its file: where its results go in their folder, without ending


class Outputs:
    """Writes results into a folder. write() is called for each picture, close() at the end.

    classes: names, label l is classes[l - 1]. thresholds: what each row of predictions.json says of them.
    rows, objects: how many were written; notes: what to say of the files, in words.
    """

    def __init__(self, source: Source, folder: str, *, classes: list[str], thresholds: dict):
        self.classes, self.thresholds, self.stems = classes, thresholds, output_stems(source)
        self.drawings = Drawings(folder, classes)
        self.json = JsonRows(os.path.join(folder, "predictions.json"))
        self.objects, self.notes = 0, self.drawings.notes

    @property
    def rows(self) -> int:
        """Pictures that were written."""
        return self.json.count

    def write(self, picture: Picture, found: Detections) -> None:
        """Writes what was found in a picture. Raises EnvironmentFault."""
        objects = describe_objects(picture.pixels.shape, found, self.classes)
        result = Result(picture, found, objects, self.stems[picture.row["file"]])
        self.json.add({**picture.row, **self.drawings.add(result), "objects": objects, "thresholds": self.thresholds})
        self.objects += len(objects)

    def close(self) -> None:
        """Completes the files."""
        with contextlib.closing(self.json):
            self.drawings.close()


class JsonRows:
    """A JSON list that is written row by row beside path; it is there when it is closed, unless it has no rows."""

    def __init__(self, path: str):
        self.path, self.count = path, 0
        self.file = open(aside_of(path), "w", encoding="utf-8")  # closed by close()

    def add(self, row: dict) -> None:
        """Writes a row, a line."""
        self.file.write(f"{',' if self.count else '['}\n{json.dumps(row)}")
        self.count += 1

    def close(self) -> None:
        """Ends the list."""
        with self.file:
            self.file.write("\n]\n")
        if self.count:
            os.replace(self.file.name, self.path)
        else:
            os.remove(self.file.name)


class Drawings:
    """Draws pictures as PNG, and each video as one .mp4, below a folder. notes: on the videos, in words."""

    def __init__(self, folder: str, classes: list[str]):
        self.folder, self.classes, self.notes = folder, classes, []
        self.reader, self.writer = None, None  # of the video whose frames come now

    def add(self, result: Result) -> dict:
        """Draws a result; returns what its row says of the drawing: the name of a picture, nothing for a frame."""
        (pixels, row, video), (boxes, scores, labels) = result.picture, result.found
        drawing = draw_boxes(pixels, boxes, labels, scores=scores, classes=self.classes)
        if video is None:
            name = f"{result.stem}.png"
            save_png(os.path.join(self.folder, name), drawing)
            return {"drawing": name}
        if video is not self.reader:
            self.close()
            path = os.path.join(self.folder, f"{result.stem}.mp4")
            self.reader, self.writer = video, VideoWriter(path, video.rate, video.ratio)
        self.writer.write(drawing, row["time"])
        return {}

    def close(self) -> None:
        """Ends the last video."""
        if self.writer:
            writer, self.writer = self.writer, None
            writer.close()
            self.notes += writer.notes


def describe_objects(shape: tuple, found: Detections, classes: list[str]) -> list[dict]:
    """What was found in a picture of this shape, with class, score and box x1, y1, x2, y2 in pixels."""
    pixels = found.boxes * (shape[1], shape[0], shape[1], shape[0])
    return [{"class": classes[label - 1], "score": round(score, 4), "box": [round(side, 1) for side in box]}
            for box, score, label in zip(pixels.tolist(), found.scores.tolist(), found.labels.tolist())]


def output_stems(source: Source) -> dict[str, str]:
    """{file of a row: where its results go in their folder, without ending}, no two the same: in/sub/a.jpg -> sub/a."""
    if not source.root:
        name = plain_url(source.paths[0])
        address = re.sub(r"\W+", "_", name.partition("://")[2]).strip("_")
        return {name: f"camera{name}" if name.isdigit() else address or "stream"}
    folders = {}
    for path in source.paths:
        folders.setdefault(os.path.dirname(os.path.abspath(path)), []).append(path)
    return {path: os.path.normpath(os.path.join(os.path.relpath(folder, source.root), stem))
            for folder, paths in folders.items() for path, stem in unique_stems(paths).items()}


def unique_stems(paths: list[str]) -> dict[str, str]:
    """{path: name} of files in a folder: a.jpg -> a, or a.jpg where another file is an "a" too.

    No two are the same, not even on file systems that take "A" for "a", or one Unicode form of an umlaut for the other.
    """
    counts, taken, names = Counter(fold_name(Path(path).stem) for path in paths), set(), {}
    shared = {path: counts[fold_name(Path(path).stem)] > 1 for path in paths}
    for path in sorted(paths, key=shared.get):  # the plain names first
        wanted = name = Path(path).name if shared[path] else Path(path).stem
        number = 1
        while fold_name(name) in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(fold_name(name))
        names[path] = name
    return names


def fold_name(name: str) -> str:
    """A name as file systems compare it that mind neither case nor the Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()
