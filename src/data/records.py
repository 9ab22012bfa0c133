"""The record of an image, which all readers give, and its boxes as the image has them."""
from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from src.data.findings import Report

CLIP_TOLERANCE = 0.05  # pixels; COCO's two decimals alone put a box up to 0.01 outside
MIN_SIDE = 1 - 1e-6    # pixels; the difference of two floats may miss 1 by a rounding error


class Box(NamedTuple):
    """One box: as annotated from a reader, inside the image after finish_record()."""
    number: int                # its place or id in the annotations, which findings name
    name: str                  # of its class, as annotated
    pixels: tuple[float, ...]  # x, y, w, h; fractions of the image in a Record that says so
    area: float | None = None  # COCO's own, which its size ranges use; None: w * h
    crowd: bool = False
    difficult: bool = False
    label: int = 0             # 1..C-1; 0 until label_records() sets it


@dataclass
class Record:
    """One image with its boxes."""
    image_id: int              # of 64 bits
    path: str
    source: str                # the image or its annotation, which findings name
    height: int = 0            # pixels of the frame in which the boxes lie; 0 where the annotation does not say
    width: int = 0
    boxes: list[Box] = field(default_factory=list)
    written_id: object = None  # its id in the annotation file where image_id is another
    in_fractions: bool = False  # its boxes are in fractions of the image, as YOLO writes them; no more once finished

    @property
    def truth_id(self) -> object:
        """The id that the image has in its annotation file, for results that are compared with that file."""
        return self.image_id if self.written_id is None else self.written_id


class Annotations(NamedTuple):
    """What every reader returns."""
    records: list[Record]
    classes: list[str]  # names of the labels 1..C-1
    category_ids: list  # of each class, as the annotation file writes it; else 1..C-1


def add_record(records: dict, record: Record, *, key: object, report: Report) -> None:
    """Adds an image under its id or path; a second one of the same key becomes a finding."""
    if key in records:
        report.add("duplicated id", record.source, f"image {key} belongs to {records[key].source} already")
    else:
        records[key] = record


def finish_record(record: Record, size: tuple[int, int], report: Report) -> Record:
    """The record with boxes clipped to its image and unusable ones left out. size: height, width of the image."""
    height, width = size
    if record.height and record.width and (height, width) != (record.height, record.width):
        report.add("image size wrong", record.source,
                   f"{record.width} x {record.height} is written, the image has {width} x {height} pixels")
    finished = []
    for box in in_pixels(record, size):
        report.forms.count(box.pixels, (height, width))
        x, y, w, h = box.pixels
        corners = (x, y, x + w, y + h)
        clipped = [min(max(value, 0), limit) for value, limit in zip(corners, (width, height, width, height))]
        left, top, right, bottom = clipped
        inside = (left, top, right - left, bottom - top)
        place = f"#{box.number} [{x:g}, {y:g}, {x + w:g}, {y + h:g}]"
        if reason := why_dropped(box.pixels, inside):
            report.add("box dropped", record.source, reason, box=place)
            continue
        if any(abs(value - inner) > CLIP_TOLERANCE for value, inner in zip(corners, clipped)):
            reason = f"it leaves the image of {width} x {height} pixels"
            report.add("box clipped", record.source, reason, box=place)
        finished.append(box._replace(pixels=inside))
    return replace(record, height=height, width=width, boxes=finished, in_fractions=False)


def in_pixels(record: Record, size: tuple[int, int]) -> list[Box]:
    """The boxes of a Record in pixels, as annotated. size: height, width of its image."""
    if not record.in_fractions:
        return record.boxes
    scale = (size[1], size[0]) * 2
    return [box._replace(pixels=tuple(value * side for value, side in zip(box.pixels, scale))) for box in record.boxes]


def why_dropped(annotated: tuple[float, ...], inside: tuple[float, ...]) -> str:
    """Why a box is dropped, "" if it is not; both x, y, w, h in pixels, as annotated and clipped."""
    if not all(map(math.isfinite, annotated)):
        return "a coordinate is not finite"
    if min(annotated[2:]) < 0:
        return "reversed: x2 < x1 or y2 < y1"
    if min(inside[2:]) >= MIN_SIDE:
        return ""
    outside = min(annotated[2:]) >= MIN_SIDE and min(inside[2:]) <= 0
    return "outside the image" if outside else "under 1 pixel"


def fractions(record: Record) -> np.ndarray:
    """The boxes of a Record as x1, y1, x2, y2 in 0..1, [N, 4] float32."""
    x, y, w, h = np.array([box.pixels for box in record.boxes], np.float64).reshape(-1, 4).T  # [N] each
    size = (record.width, record.height, record.width, record.height)
    return np.float32(np.stack([x, y, x + w, y + h], axis=1) / size)  # [N, 4]
