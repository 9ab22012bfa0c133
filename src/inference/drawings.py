"""The drawn pictures that predict.py writes: a PNG for each image, or one .mp4 that is checked when it is complete."""
from __future__ import annotations

import math
import os
import unicodedata
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from src.drawing import draw_boxes, save_png
from src.errors import EnvironmentFault
from src.inference.sources import ImageFiles, VideoReader

DEFAULT_RATE, MAX_RATE = 25.0, 1000.0  # frames a second: where a source says none; above, the source is not believed


class ImageWriter:
    """Writes drawings of the image files `paths` into folder. It has the methods and `notes` of a VideoWriter."""

    def __init__(self, paths: list[str], folder: str):
        self.folder, self.names, self.notes = folder, drawing_names(paths), []

    def write(self, drawing: np.ndarray, row: dict) -> dict:
        """Writes the drawing [H, W, 3] uint8 RGB of row["file"]; returns the row with the name of the drawing."""
        name = self.names[row["file"]]
        save_png(os.path.join(self.folder, name), drawing)
        return {**row, "drawing": name}

    def close(self) -> None:
        """There is nothing to end."""


class VideoWriter:
    """A .mp4 of drawings [H, W, 3] uint8 RGB; all get the size of the first.

    notes: how it differs from the source, in words. close() raises EnvironmentFault unless all frames are in the file.
    """

    def __init__(self, path: str, rate: float):
        self.path, self.writer, self.size, self.count, self.notes = path, None, None, 0, []
        self.rate = rate if math.isfinite(rate) and 0 < rate <= MAX_RATE else DEFAULT_RATE
        if self.rate != rate and rate > 0:
            self.notes.append(f"the source says {rate:g} frames a second, the drawn video has {self.rate:g}")

    def write(self, drawing: np.ndarray, row: dict) -> dict:
        """Appends a drawing; returns its row as it is."""
        height, width = drawing.shape[:2]
        # the encoder cuts off an odd last column or row, so it is doubled
        frame = cv2.copyMakeBorder(drawing, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self.writer is None:
            self.open(frame)
            if frame.shape != drawing.shape:
                self.notes.append(f"frames of {width} x {height} pixels are {self.size[0]} x {self.size[1]} in the "
                                  "drawn video, whose sides must be even")
        if frame.shape[1::-1] != self.size:
            frame = cv2.resize(frame, self.size)
        self.writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self.count += 1
        return row

    def open(self, frame: np.ndarray) -> None:
        """Makes the file for frames like this one."""
        self.size = frame.shape[1::-1]  # width, height
        self.writer = cv2.VideoWriter(self.path, cv2.VideoWriter_fourcc(*"mp4v"), self.rate, self.size)
        if not self.writer.isOpened():
            raise EnvironmentFault(f"'{self.path}' cannot be written: this OpenCV has no MPEG-4 encoder for "
                                   f"{self.size[0]} x {self.size[1]} pixels, or the folder cannot be written; give "
                                   "the frames as pictures")

    def close(self) -> None:
        """Ends the file and checks it."""
        if self.writer is None:
            return
        self.writer.release()
        if self.count and not self.is_complete():
            raise EnvironmentFault(f"'{self.path}' does not hold all {self.count} frames that were drawn; is the "
                                   "disk full? Give the frames as pictures")

    def is_complete(self) -> bool:
        """Whether the file opens and has all frames in their size."""
        video = cv2.VideoCapture(self.path)
        video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        frame, count = video.read()[1], round(video.get(cv2.CAP_PROP_FRAME_COUNT))
        video.release()
        return frame is not None and frame.shape[1::-1] == self.size and count == self.count


def open_drawings(source: ImageFiles | VideoReader, folder: str) -> ImageWriter | VideoWriter:
    """What writes the drawings of a source."""
    if isinstance(source, ImageFiles):
        return ImageWriter(source.paths, folder)
    return VideoWriter(video_path(source.source, folder), source.rate)


def draw_objects(image: np.ndarray, detections: tuple, *, classes: list[str],
                 draw_score: float | np.ndarray) -> tuple[np.ndarray, list[dict]]:
    """The drawing of an image [H, W, 3], and its objects with class, score and box x1, y1, x2, y2 in pixels.

    detections: as Predictor.detect gives them; those below draw_score, of all or of each class [C], are left out.
    """
    boxes, scores, labels = detections
    shown = scores >= np.broadcast_to(draw_score, len(classes))[labels - 1]
    boxes, scores, labels = boxes[shown], scores[shown], labels[shown]
    height, width = image.shape[:2]
    objects = []
    for box, score, label in zip(boxes, scores, labels):
        pixels = [round(float(value), 1) for value in box * (width, height, width, height)]
        objects.append({"class": classes[label - 1], "score": round(float(score), 4), "box": pixels})
    return draw_boxes(image, boxes, labels, scores=scores, classes=classes), objects


def video_path(source: str, folder: str) -> str:
    """Where the drawn video of a video file or a camera goes."""
    name = f"camera{source}" if source.isdigit() else Path(source).stem
    return os.path.join(folder, f"{name}.mp4")


def drawing_names(paths: list[str]) -> dict[str, str]:
    """{path: name of its drawing}: "a.jpg" -> "a.png", or "a.jpg.png" where another picture is an "a" too.

    No two are the same, not even on file systems that take "A" for "a", or one Unicode form of an umlaut for the other.
    """
    counts, taken, names = Counter(fold_name(Path(path).stem) for path in paths), set(), {}
    shared = {path: counts[fold_name(Path(path).stem)] > 1 for path in paths}
    for path in sorted(paths, key=shared.get):  # the plain names first
        wanted = Path(path).name if shared[path] else Path(path).stem
        name, number = f"{wanted}.png", 1
        while fold_name(name) in taken:
            number += 1
            name = f"{wanted}_{number}.png"
        taken.add(fold_name(name))
        names[path] = name
    return names


def fold_name(name: str) -> str:
    """A name as file systems compare it that mind neither case nor the Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()
