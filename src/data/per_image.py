"""Formats with a file of annotations an image, as VOC's XML and LabelMe's JSON: their files -> records."""
from __future__ import annotations

import os
from collections.abc import Callable

from src.data.findings import Report
from src.data.labels import label_records
from src.data.records import Annotations, Record, add_record
from src.data.voc_names import ImageFolder, by_stem, names_with
from src.errors import DataError
from src.files import walk

UNREADABLE = "annotation unreadable"


def files_below(folder: str, endings: tuple[str, ...] | str) -> list[str]:
    """The paths of the files with such an ending in a folder and below it, sorted."""
    found = [os.path.join(path, name) for path, _, names in walk(folder) for name in names
             if name.lower().endswith(endings)]
    return sorted(found)


def read_files(files: list[str], folder: str, image_dir: str, *, origin: str, tag: str,
               read_file: Callable[..., Record | None], classes: list[str], report: Report) -> Annotations:
    """One record a file, with labels. classes: names, or [] = those found, sorted.

    files: of annotations, below `folder`, whose inner folders may be those of image_dir too: cam1/7.xml means
    cam1/7.jpg where there is such a folder. origin: what lists the files, for messages; tag: as of ImageFolder.
    read_file: (path, ImageFolder, image_id=, report=) -> Record, or None with a finding. Image ids are 1, 2, .. in the
    order of the files. Raises DataError when nothing can be used.
    """
    records, folders = {}, {}  # records by path of the image, image folders by path below folder
    for path in files:
        with report.catching(UNREADABLE, path):
            inner = os.path.relpath(os.path.dirname(path), folder)
            if inner not in folders:
                own = os.path.join(image_dir, inner)
                apart = not inner.startswith(os.pardir) and os.path.isdir(own)
                owners = by_stem(names_with(os.path.join(folder, inner), os.path.splitext(path)[1].lower()))
                folders[inner] = ImageFolder(own if apart else image_dir, owners, tag)
            record = read_file(path, folders[inner], image_id=len(records) + 1, report=report)
            if record:
                add_record(records, record, key=record.path, report=report)
    if not records:
        reason = report.findings[0] if report.findings else "it lists no image"
        raise DataError(f"'{origin}' has no usable annotation: {reason}")
    return label_records(records.values(), classes, file=origin, report=report)
