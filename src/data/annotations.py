"""What the readers of all formats share.

A reader is `read_<format>(two places, *, classes, report) -> Annotations`: boxes in pixels as annotated, nothing
clipped, no image opened; each oddity is a finding in the report. `<format>_split(split, place) -> SplitFiles` says what
it reads, and `find_<format>(tree) -> Found | None` where a folder holds it, for --data. A new format is a file with
the first two, a function in finders.py, and a line in formats.DATA_FORMATS.
"""
from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import NamedTuple

from src.data.findings import Unusable
from src.data.records import Annotations
from src.data.values import shown
from src.errors import DataError
from src.files import open_regular

# what --dataset may be meant where an option is given
DATASET_OF = {"coco_root": "coco", "voc_root": "voc", "image_dir": "other", "anno_path": "other"}


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
    part: str = ""                    # which of the images it takes where files holds more than one split


def require_root(place: Place, option: str, content: str, *, error: type[DataError] = DataError) -> None:
    """Raises `error` unless the option with the folder of a data set is given, DataError unless that is a folder."""
    if not getattr(place, option):
        hints = [f"; --{name} is given, is it --dataset={dataset}?" for name, dataset in DATASET_OF.items()
                 if getattr(place, name) and dataset != DATASET_OF[option]]
        raise error(f"--{option} is empty; give the folder with {content}{''.join(hints[:1])}; --data=FOLDER finds out "
                    "by itself what a data set is")
    require_folder(getattr(place, option), f"--{option}")


def require_folder(path: str, name: str) -> None:
    """Raises DataError unless path is a folder."""
    if not os.path.isdir(path):
        raise DataError(f"{name} '{path}' is not a folder")


def read_text(path: str) -> str:
    """The content of a text file. Raises DataError."""
    try:
        with open_regular(path) as file:
            return io.TextIOWrapper(file, encoding="utf-8-sig").read()
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
    if turned != path and not os.path.exists(path) and os.path.exists(turned):
        return turned
    return path
