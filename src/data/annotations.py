"""What the readers of all formats share.

A reader is `read_<format>(two places, *, classes, report) -> Annotations`: boxes in pixels as annotated, nothing
clipped, no image opened; each oddity is a finding in the report. records.finish_record() does the rest.
"""
from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from src.data.findings import Report, Unusable
from src.data.records import Annotations, Record
from src.data.values import shown
from src.errors import DataError


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
    name: str                         # of the split
    files: list[str]                  # of annotations: all that the conversion depends on
    image_dir: str
    read: Callable[..., Annotations]  # read(classes=[..], report=Report)
    as_annotated: bool = False        # COCO's protocol evaluates against unclipped boxes


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
    try:
        usable = isinstance(name, str) and name.strip() and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise Unusable(f"its file name {shown(name)} is not one that a file can have")
    path, turned = (os.path.abspath(os.path.join(image_dir, text)) for text in (name, name.replace("\\", "/")))
    return turned if turned != path and not os.path.exists(path) and os.path.exists(turned) else path


def add_record(records: dict, record: Record, *, key: object, report: Report) -> None:
    """Adds an image under its id or path; a second one of the same key becomes a finding."""
    if key in records:
        report.add("duplicated id", record.source, f"image {key} belongs to {records[key].source} already")
    else:
        records[key] = record
