"""TXT annotations of the data set `other` -> records."""
from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import partial

from src.data.annotations import Place, SplitFiles, SplitMissing, image_path, read_text, require_folder, require_root
from src.data.findings import Report, Unusable
from src.data.labels import label_records
from src.data.records import Annotations, Box, Record
from src.data.txt_fields import class_of, is_box, is_image, is_number, looks_like, split_line
from src.data.values import shown, to_pixels
from src.errors import DataError
from src.text import one_line

BAD = "bad line"
FORM = "each line is 'image.jpg x1,y1,x2,y2,class ...' in pixels, as in 'a.jpg 10,20,110,220,cat 5,5,50,60,dog'"
TABS = "a path with spaces needs tabs between the fields"


def txt_split(split: str, place: Place) -> SplitFiles:
    """A split in TXT form: a file for each split, one image folder."""
    require_root(place, "image_dir", "the images that the TXT names")
    option = {"train": "anno_path", "val": "val_anno_path"}[split]
    if not place.anno_path:
        way_out = "" if split == "train" else " (train.py does without by --run_eval=False)"
        raise SplitMissing(f"--{option} is empty; give the TXT file with the boxes of the {split} images{way_out}")
    if not os.path.isfile(place.anno_path):
        raise DataError(f"--{option} '{place.anno_path}' is missing")
    read = partial(read_txt, place.anno_path, place.image_dir)
    return SplitFiles(split, [place.anno_path], place.image_dir, read=read)


def read_txt(file: str, image_dir: str, *, classes: list[str], report: Report) -> Annotations:
    """Reads `path x1,y1,x2,y2,class ...` in pixels, x first, one image per line.

    Tabs separate the fields of a line that has one, spaces otherwise. Several lines of one image count as one.
    classes: names, or [] = those found, sorted, or "1".."largest" when all are numbers. Number i means the i-th class:
    0, background in the model zoo, is an unknown class. Image ids are 1, 2, .. in the order of the lines. Raises
    DataError when nothing can be used.
    """
    require_folder(image_dir, "--image_dir")
    lines = {number: line for number, line in enumerate(read_text(file).split("\n"), 1) if line.strip()}
    if not lines:
        raise DataError(f"annotation file '{file}' is empty; {FORM}")
    report.forms.corners = True
    records = {}
    for number, line in lines.items():
        with report.catching(BAD, f"{file}:{number}"):
            for record in read_line(line, f"{file}:{number}", image_dir, classes=classes, report=report):
                merge(records, record, report)
    if not any(record.boxes for record in records.values()):
        check_without_boxes(file, lines, classes=classes, report=report)
    return label_records(records.values(), classes, file=file, report=report, numbered=True)


def check_without_boxes(file: str, lines: dict[int, str], *, classes: list[str], report: Report) -> None:
    """Raises DataError for a file without a box, unless it has no findings and its classes are given."""
    number, line = next(iter(lines.items()))
    if report.findings:
        finding = report.findings[0]
        number = int(finding.file.rpartition(":")[2])
        raise DataError(f"annotation file '{file}' has no usable box; line {number}, {shown(lines[number].strip())}: "
                        f"{one_line(finding.reason)}; {FORM}")
    if not classes:
        raise DataError(f"{file}: no class is in it, as no line has a box; line {number} is {shown(line.strip())}; "
                        f"{FORM}; where no image shall have a box, name the classes with --classes=[a,b]")


def merge(records: dict[str, Record], record: Record, report: Report) -> None:
    """Adds a Record under its path, or its boxes to the one there is, numbered on; twins become findings."""
    first = records.setdefault(record.path, record)
    if first is record:
        record.image_id = len(records)
        return
    known = {(box.name, box.pixels) for box in first.boxes}
    last = max((box.number for box in first.boxes), default=0)
    for box in record.boxes:
        if (box.name, box.pixels) in known:
            report.add("duplicated box", record.source, f"it is in {first.source} already", box=f"#{box.number}")
        else:
            first.boxes.append(box._replace(number=last + box.number))


def read_line(line: str, source: str, image_dir: str, *, classes: list[str], report: Report) -> list[Record]:
    """A line -> its Records, nearly always one. Raises Unusable where none can be made of it."""
    def exists(path: str) -> bool:
        return os.path.exists(image_path(image_dir, path))

    images = split_images(*split_line(line), exists)
    if reason := why_unusable(line, images, exists):
        raise Unusable(f"{reason}; line left out")
    if len(images) > 1:
        names = ", ".join(f"'{path}'" for path, _ in images)
        report.add(BAD, source, f"it holds the images {names}, of which each counts as a line of its own")
    records = [Record(0, image_path(image_dir, path), source) for path, _ in images]
    for record, (path, fields) in zip(records, images):
        if " " in path and "\t" not in line and not exists(path):
            report.add(BAD, source, f"image '{path}' does not exist; {TABS}")
        for number, field in enumerate(fields, 1):
            add_field(record, number, field, classes=classes, report=report)
    return records


def split_images(head: list[str], fields: list[str], exists: Callable) -> list[tuple[str, list[str]]]:
    """The parts of a path and the fields behind it -> [(path, fields)], several where lines have run together.

    exists: whether there is an image of a name, for paths with spaces.
    """
    images = [split_head(head, exists)]
    for boxes, run in itertools.groupby(fields, is_box):
        run = list(run)
        if not boxes and any(map(is_image, run)):
            images.append(split_head([f"{part} " for part in run], exists))
        else:
            images[-1][1].extend(run)
    return images


def split_head(head: list[str], exists: Callable) -> tuple[str, list[str]]:
    """The parts before the boxes, with their spaces -> (path, the parts that do not belong to it).

    The path ends with the first ending of an image, unless all of it is the name of a file.
    """
    path = "".join(head).strip()
    if len(head) < 2 or exists(path):
        return path, []
    size = next((size for size, part in enumerate(head, 1) if is_image(part.strip())), 1)
    return "".join(head[:size]).strip(), [part.strip() for part in head[size:]]


def why_unusable(line: str, images: list[tuple[str, list[str]]], exists: Callable) -> str:
    """Why nothing of a line can be used, "" if something can."""
    fields = [field for _, found in images for field in found]
    glued = [path for path, _ in images[1:] if is_number(path.split(",")[0])]
    for part in filter(is_image, [*fields, *glued]):
        return f"'{part}' ends like an image where a box should be, as if two lines had run together"
    if not images[0][0]:
        return "no image stands in front of the boxes"
    odd = [path for path, _ in images if not is_image(path) and not exists(path)]
    without_boxes = fields and not any(map(is_box, fields))
    if (odd or without_boxes) and (form := looks_like(line)):
        return f"it looks like {form}"
    return f"'{odd[0]}' is neither a file nor has it the ending of an image; {TABS}" if odd else ""


def add_field(record: Record, number: int, field: str, *, classes: list[str], report: Report) -> None:
    """Adds the box of a field to a Record, or a finding."""
    *corners, name = (part.strip() for part in field.split(","))
    label = class_of(name, classes)
    if is_box(field) and label is None:
        reason = f"{name} is not a class; numbers count from 1"
        report.add("unknown class", record.source, reason, box=f"#{number}")
        return
    hint = "" if "," in field else f"; {TABS}"
    if len(corners) == 4 and all(map(is_number, [*corners[1:], name])) and not is_number(corners[0]):
        hint = "; the class comes last"
    elif len(corners) == 3 and all(map(is_number, [*corners, name])):
        hint = "; it has no class"
    with report.catching(BAD, record.source, box=f"#{number}"):
        pixels = to_pixels(corners if name else (), f"'{field}' is not x1,y1,x2,y2,class{hint}", corners=True)
        record.boxes.append(Box(number, report.class_name(label, record.source), pixels))
