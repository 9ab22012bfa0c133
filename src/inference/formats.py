"""Forms that predict.py writes detections in, each a class with the methods of a Form."""
from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import xml.etree.ElementTree as ET
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import yaml

from src.boxes import to_centers
from src.classes import COCO_CATEGORY_IDS, COCO_CLASSES
from src.drawing import draw_boxes, encode_png, save_png
from src.events import EventFile
from src.files import finish, open_aside, write_atomic
from src.inference.found import Detections
from src.inference.sources import Picture
from src.inference.videos import VideoWriter
from src.text import one_line

WRITERS = 4  # threads that write drawings
COLUMNS = ("file", "frame", "time", "class", "score", "x1", "y1", "x2", "y2")  # of predictions.csv

MAX_SHOWN = 200  # pictures of a video in TensorBoard


class Result(NamedTuple):
    """A picture and what was found in it."""
    picture: Picture
    found: Detections
    objects: list[dict]  # the same for people: class, score, and box x1, y1, x2, y2 in pixels
    image_id: int        # its number in COCO's results
    stem: str            # where results of its file go in their folder, without ending

    @property
    def own_stem(self) -> str:
        """As stem, but of this picture alone: frames of a video are numbered."""
        row = self.picture.row
        return f"{self.stem}_{row['frame']:06}" if "frame" in row else self.stem


class Form:
    """Writes results into a folder. classes: names, label l is classes[l - 1]. notes: what to say of it, in words."""

    def __init__(self, folder: str, classes: Sequence[str]):
        self.folder, self.classes, self.notes = folder, classes, []

    def add(self, result: Result) -> None:
        """Writes a result. Raises EnvironmentFault."""
        raise NotImplementedError

    def close(self, keep: bool) -> None:
        """Completes the files, or removes them where they are not to be kept."""


class Drawings(Form):
    """Pictures with boxes as PNG, videos with boxes as .mp4."""

    def __init__(self, folder: str, classes: Sequence[str]):
        super().__init__(folder, classes)
        self.reader, self.writer = None, None  # of the video whose frames come now
        # drawings of large pictures take longer than the network
        self.pool, self.waiting = ThreadPoolExecutor(WRITERS), deque()

    def add(self, result: Result) -> None:
        _, row, video = result.picture
        if video is None:
            self.waiting.append(self.pool.submit(self.save, result))
            self.finish(WRITERS)
            return
        if video is not self.reader:
            self.end_video()
            path = os.path.join(self.folder, f"{result.stem}.mp4")
            self.reader, self.writer = video, VideoWriter(path, video.rate, video.ratio)
        self.writer.write(self.draw(result), row["time"])

    def draw(self, result: Result) -> np.ndarray:
        """The picture of a result with boxes, [H, W, 3] uint8 RGB."""
        boxes, scores, labels = result.found
        return draw_boxes(result.picture.pixels, boxes, labels, scores=scores, classes=self.classes)

    def save(self, result: Result) -> None:
        """Writes the drawing of a picture."""
        save_png(os.path.join(self.folder, f"{result.stem}.png"), self.draw(result))

    def finish(self, count: int = 0) -> None:
        """Waits until no more than so many drawings are left to write. Raises EnvironmentFault of one that failed."""
        while len(self.waiting) > count:
            self.waiting.popleft().result()

    def end_video(self) -> None:
        """Completes the last video."""
        if self.writer:
            writer, self.writer = self.writer, None
            writer.close()
            self.notes += writer.notes

    def close(self, keep: bool) -> None:
        try:
            with self.pool:
                self.finish()
        finally:
            self.end_video()


class RowFile(Form):
    """One file, written row by row beside its place until it is complete. end: what stands behind the last row."""
    name, end = "", ""

    def __init__(self, folder: str, classes: Sequence[str] = ()):
        super().__init__(folder, classes)
        self.path, self.count = os.path.join(folder, self.name), 0
        # names of files may hold bytes that are no text; close() closes it
        self.file = io.TextIOWrapper(open_aside(self.path), encoding="utf-8", errors="surrogateescape", newline="")

    def close(self, keep: bool) -> None:
        finish(self.file, self.path, self.end, keep=keep)


class JsonList(RowFile):
    """A JSON list with a line for each row."""

    def write(self, row: dict) -> None:
        """Appends a row."""
        self.file.write(f"{',' if self.count else '['}\n{json.dumps(row)}")
        self.count += 1

    def close(self, keep: bool) -> None:
        self.end = "\n]\n" if self.count else "[]\n"
        super().close(keep)


class CocoResults(JsonList):
    """COCO's results: a list of image_id, category_id, bbox x, y, w, h in pixels, score.

    Category ids are COCO's own for its 80 classes, or else 1, 2, .. in the order of the classes.
    """
    name = "detections.json"

    def add(self, result: Result) -> None:
        ids = COCO_CATEGORY_IDS if tuple(self.classes) == COCO_CLASSES else range(1, len(self.classes) + 1)
        boxes = to_pixels(result.picture.pixels.shape, result.found)
        for (x1, y1, x2, y2), score, label in zip(boxes, result.found.scores.tolist(), result.found.labels.tolist()):
            sides = [round(side, 4) for side in (x1, y1, x2 - x1, y2 - y1)]
            self.write({"image_id": result.image_id, "category_id": ids[label - 1], "bbox": sides,
                        "score": round(score, 6)})


class CsvTable(RowFile):
    """A table of COLUMNS with a line for each object."""
    name = "predictions.csv"

    def __init__(self, folder: str, classes: Sequence[str]):
        super().__init__(folder, classes)
        self.writer = csv.writer(self.file)
        self.writer.writerow(COLUMNS)

    def add(self, result: Result) -> None:
        row = result.picture.row
        place = row["file"], row.get("frame", ""), row.get("time", "")
        self.writer.writerows((*place, item["class"], item["score"], *item["box"]) for item in result.objects)


class YoloLabels(Form):
    """YOLO's labels/ and data.yaml, to which the pictures come as images/.

    For each object a line with class from 0, and cx, cy, w, h as fractions of the picture.
    """

    def add(self, result: Result) -> None:
        rows = zip(to_centers(result.found.boxes).tolist(), result.found.labels.tolist())
        text = "".join(f"{label - 1} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}\n" for (cx, cy, w, h), label in rows)
        write_atomic(os.path.join(self.folder, "yolo", "labels", f"{result.own_stem}.txt"), text.encode())

    def close(self, keep: bool) -> None:
        if keep:
            facts = {"train": "images", "names": dict(enumerate(self.classes))}
            text = yaml.safe_dump(facts, allow_unicode=True, sort_keys=False)
            write_atomic(os.path.join(self.folder, "yolo", "data.yaml"), text.encode())


class VocFiles(Form):
    """Annotations of VOC, corners in whole pixels from 0."""

    def add(self, result: Result) -> None:
        pixels, row, _ = result.picture
        top = ET.Element("annotation")
        ET.SubElement(top, "filename").text = one_line(os.path.basename(row["file"]))
        add_numbers(ET.SubElement(top, "size"), width=pixels.shape[1], height=pixels.shape[0], depth=3)
        for item in result.objects:
            entry = ET.SubElement(top, "object")
            ET.SubElement(entry, "name").text = one_line(item["class"])
            add_numbers(entry, difficult=0)
            x1, y1, x2, y2 = (round(side) for side in item["box"])
            add_numbers(ET.SubElement(entry, "bndbox"), xmin=x1, ymin=y1, xmax=x2, ymax=y2)
        ET.indent(top)
        write_atomic(os.path.join(self.folder, "voc", f"{result.own_stem}.xml"), ET.tostring(top, "utf-8") + b"\n")


class Crops(Form):
    """Each object cut out: crops/<class>/<picture>_<number of the object from 1>.png."""

    def add(self, result: Result) -> None:
        pixels = result.picture.pixels
        for number, item in enumerate(result.objects, 1):
            x1, y1 = (min(math.floor(side), limit - 1) for side, limit in zip(item["box"], pixels.shape[1::-1]))
            x2, y2 = (max(math.ceil(side), low + 1) for side, low in zip(item["box"][2:], (x1, y1)))  # at least 1 pixel
            name = re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", item["class"]).strip(". ")  # for every file system
            save_png(os.path.join(self.folder, "crops", name or "_", f"{result.own_stem}_{number}.png"),
                     pixels[y1:y2, x1:x2])


class TensorBoardPictures(Form):
    """The drawings for TensorBoard, of videos one a second; of each file at most MAX_SHOWN."""

    def __init__(self, folder: str, classes: Sequence[str]):
        super().__init__(folder, classes)
        self.events, self.taken, self.counts = EventFile(folder), set(), Counter()

    def add(self, result: Result) -> None:
        (pixels, row, _), (boxes, scores, labels) = result.picture, result.found
        second = result.stem, int(row.get("time", 0))
        if second in self.taken or self.counts[result.stem] >= MAX_SHOWN:
            return
        self.taken.add(second)
        self.counts[result.stem] += 1
        drawing = draw_boxes(pixels, boxes, labels, scores=scores, classes=self.classes)
        self.events.picture(row.get("frame", 0), f"predictions/{result.stem}", encode_png(drawing))

    def close(self, keep: bool) -> None:
        self.events.close()


# what --save and --tensorboard ask for, and what a message calls it
FORMS = {"drawings": (Drawings, "drawings"), "coco": (CocoResults, CocoResults.name), "csv": (CsvTable, CsvTable.name),
         "yolo": (YoloLabels, "yolo/"), "voc": (VocFiles, "voc/"), "crops": (Crops, "crops/"),
         "tensorboard": (TensorBoardPictures, "events for TensorBoard")}


def to_pixels(shape: tuple, found: Detections) -> list[list[float]]:
    """Boxes x1, y1, x2, y2 in pixels of a picture of this shape."""
    return (found.boxes.astype(float) * (shape[1], shape[0], shape[1], shape[0])).tolist()


def describe_objects(shape: tuple, found: Detections, classes: Sequence[str]) -> list[dict]:
    """What was found in a picture of this shape, for people: class, score, and box x1, y1, x2, y2 in pixels."""
    return [{"class": classes[label - 1], "score": round(score, 4), "box": [round(side, 1) for side in box]}
            for box, score, label in zip(to_pixels(shape, found), found.scores.tolist(), found.labels.tolist())]


def add_numbers(parent: ET.Element, **numbers: int) -> None:
    """Adds an element <name>number</name> for each."""
    for name, number in numbers.items():
        ET.SubElement(parent, name).text = str(number)
