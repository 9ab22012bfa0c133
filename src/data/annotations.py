"""What the readers of all formats share: where a split lies, files, names of images, numbers and flags.

A reader is `read_<format>(two places, *, classes, report) -> Annotations`: boxes in pixels as annotated, nothing
clipped, no image opened; each oddity is a finding in the report. records.finish_record() does the rest.
"""
from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import NamedTuple

from src.data.findings import Report, Unusable
from src.data.records import Annotations, Record
from src.errors import DataError

MAX_PIXELS = 1e9  # no image is so wide; areas and sums of larger coordinates leave the range of floats
FLAG_WORDS = {"true": True, "yes": True, "false": False, "no": False, "": False}


class SplitMissing(DataError):
    """The data set has no such split, and none was asked for by name."""


class Place(NamedTuple):
    """The options that say where one split lies; "" = not given."""
    coco_root: str = ""
    instances_set: str = ""
    voc_root: str = ""
    image_dir: str = ""
    anno_path: str = ""
    split_name: str = ""  # image folder of COCO, list of VOC; "" = the usual one


class SplitFiles(NamedTuple):
    """Where a split comes from."""
    name: str                          # of the split
    files: list[str]                   # of annotations: all that the conversion depends on
    image_dir: str
    read: Callable[..., Annotations]   # read(classes=[..], report=Report)
    as_annotated: bool = False         # COCO's protocol evaluates against unclipped boxes


def require_folder(path: str, name: str) -> None:
    """Raises DataError unless path is a folder."""
    if not os.path.isdir(path):
        raise DataError(f"{name} '{path}' is not a folder")


def read_text(path: str) -> str:
    """The content of a text file. Raises DataError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"annotation file '{path}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"annotation file '{path}' is not text in UTF-8; save it as UTF-8") from error


def image_path(image_dir: str, name: object) -> str:
    """Where an image of a name in an annotation lies; sub\\a.jpg, as Windows writes it, is looked for as sub/a.jpg too.

    Raises Unusable for a name that no file can have.
    """
    if name in (None, "", [], {}):
        raise Unusable("it has no file name")
    if not isinstance(name, str) or not name.strip():
        raise Unusable(f"its file name {shown(name)} is not text")
    try:
        impossible = b"\0" in os.fsencode(name)
    except UnicodeEncodeError:
        impossible = True
    if impossible:
        raise Unusable(f"no file can have the name {ascii(name)[:80]}")
    path, turned = (os.path.abspath(os.path.join(image_dir, text)) for text in (name, name.replace("\\", "/")))
    if turned != path and not os.path.exists(path) and os.path.exists(turned):
        return turned
    return path


def add_record(records: dict, record: Record, *, key: object, report: Report) -> None:
    """Adds an image under its id or path; a second one of the same key becomes a finding."""
    if key in records:
        report.add("duplicated id", record.source, f"image {key} belongs to {records[key].source} already")
    else:
        records[key] = record


def to_pixels(numbers: object, reason: str, *, corners: bool) -> tuple[float, ...]:
    """Four numbers of a data file, x1, y1, x2, y2 with `corners`, else x, y, w, h -> x, y, w, h in pixels.

    Raises Unusable, with `reason` where they are not four numbers.
    """
    try:
        x, y, width, height = map(to_number, numbers if isinstance(numbers, (list, tuple)) else ())
    except (TypeError, ValueError, OverflowError) as error:
        raise Unusable(reason) from error
    if corners:
        width, height = width - x, height - y
    if any(MAX_PIXELS < abs(value) < math.inf for value in (x, y, width, height)):
        raise Unusable(f"{shown(numbers)} lies beyond any image")
    return x, y, width, height


def to_number(value: object) -> float:
    """A float from a number or its text. Raises TypeError, ValueError, OverflowError."""
    if isinstance(value, bool) or isinstance(value, str) and "_" in value:  # which Python reads as 1, and 1_0 as 10
        raise ValueError(value)
    return float(value)


def to_flag(value: object) -> bool:
    """Whether a flag is set: of True, 1, "1", "1.0", "true" and their opposites. Raises TypeError, ValueError."""
    if isinstance(value, str) and value.strip().lower() in FLAG_WORDS:
        return FLAG_WORDS[value.strip().lower()]
    return value if isinstance(value, bool) else to_number(value) != 0


def to_size(value: object) -> int:
    """Pixels from what an annotation says, 0 (ask the image) from anything that is not a number."""
    try:
        return max(int(float(value)), 0)
    except (TypeError, ValueError, OverflowError):
        return 0


def shown(value: object, length: int = 80) -> str:
    """A value of a data file as a message shows it: not longer than it helps."""
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]} .."
