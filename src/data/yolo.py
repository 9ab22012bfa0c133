"""YOLO label files, one an image -> records.

A line of a label file is `class cx cy w h` in fractions of the image, or `class x1 y1 x2 y2 x3 y3 ..` around a shape;
classes are numbers from 0 on (https://docs.ultralytics.com/datasets/detect/ and /segment/).
"""
from __future__ import annotations

import math
import os
from functools import partial
from typing import NamedTuple

from src.classes import checked_classes
from src.data.annotations import Place, SplitFiles, SplitMissing, require_folder
from src.data.findings import Report, Unusable
from src.data.images import IMAGE_ENDINGS
from src.data.labels import MAX_NUMBERED_CLASSES, label_records
from src.data.per_image import UNREADABLE, files_below
from src.data.records import Annotations, Box, Record
from src.data.values import shown, to_number
from src.data.voc_names import names_with
from src.data.yolo_files import find_names, is_label_file, is_yaml, label_path, read_names, yaml_images
from src.errors import DataError, OptionError

MOST = 2  # a larger number cannot be a slip at the border of the image: these are pixels


class YoloImage(NamedTuple):
    """An image and its label file, which need not exist: then it has no boxes."""
    path: str
    label: str


def yolo_split(split: str, place: Place) -> SplitFiles:
    """A split in YOLO's form: of a data.yaml, or a folder of images with one of labels."""
    prefix = "" if split == "train" else "val_"
    names_file = ""
    if is_yaml(place.anno_path):
        names_file, paths = place.anno_path, yaml_images(place.anno_path, split)
        image_dir = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
        images = [YoloImage(path, label_path(path)) for path in paths]
    else:
        image_dir = place.image_dir or place.anno_path
        if not image_dir:
            error = SplitMissing if split == "val" else DataError
            raise error(f"--{prefix}image_dir and --{prefix}anno_path are empty; give the folder of the {split} "
                        "images, whose labels lie in labels/ or beside them, or a data.yaml")
        require_folder(image_dir, f"--{prefix}image_dir")
        images = [YoloImage(path, label_path(path, image_dir, place.anno_path))
                  for path in files_below(image_dir, IMAGE_ENDINGS)]
        if not images:
            raise DataError(f"--{prefix}image_dir '{image_dir}' holds no image")
    if not any(os.path.isfile(image.label) for image in images):
        raise DataError(f"no image of '{image_dir}' has a label file; '{images[0].label}' is expected for "
                        f"'{images[0].path}', name the folder of the labels by --{prefix}anno_path")
    names_file = names_file or find_names([os.path.dirname(images[0].label), image_dir])
    read = partial(read_yolo, images, names_file)
    files = [names_file or image_dir, *(image.label for image in images)]  # an absent label counts by its name
    return SplitFiles(split, files, image_dir, read=read)


def read_yolo(images: list[YoloImage], names_file: str, *, classes: list[str], report: Report) -> Annotations:
    """Reads the labels of images; those without a label file are negatives. Raises DataError.

    names_file: with the names of the class numbers; "" = those of classes, or else the numbers are the names. classes:
    names to keep, or [] = all. Image ids are 1, 2, .. in the order of the images.
    """
    try:
        written = read_names(names_file) if names_file else classes
        names = checked_classes([report.class_name(name, names_file) for name in written])
    except OptionError as error:
        raise DataError(f"{names_file}: {error}") from error
    records, strays = [], stray_labels(images)
    for number, (path, label) in enumerate([*images, *strays], 1):
        exists = os.path.isfile(label)
        record = Record(number, os.path.abspath(path), label if exists else path, in_fractions=True)
        with report.catching(UNREADABLE, label):
            if exists:
                read_labels(record, label, names=names, report=report)
            records.append(record)
    if not names:
        largest = max((int(box.name) for record in records for box in record.boxes), default=-1)
        names = [str(number) for number in range(largest + 1)]
    report.class_names.update(names if names_file else ())
    return label_records(records, classes or names, file=names_file or os.path.dirname(images[0].label), report=report)


def stray_labels(images: list[YoloImage]) -> list[YoloImage]:
    """Label files, in the folders of the others, that no image belongs to; the conversion names their images."""
    folders = {os.path.dirname(label): os.path.dirname(path) for path, label in images}
    strays = []
    for folder, image_dir in folders.items():
        stems = {os.path.splitext(name)[0] for name in names_with(image_dir, IMAGE_ENDINGS)}
        for name in names_with(folder, ".txt"):
            stem, path = os.path.splitext(name)[0], os.path.join(folder, name)
            if stem not in stems and is_label_file(path):
                strays.append(YoloImage(os.path.join(image_dir, f"{stem}.jpg"), path))
    return strays


def read_labels(record: Record, path: str, *, names: list[str], report: Report) -> None:
    """Adds the boxes of a label file to a Record; what cannot be used becomes a finding."""
    with open(path, encoding="utf-8-sig") as file:
        lines = file.read().split("\n")
    seen = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        with report.catching("box dropped", path, box=f"#{number}"):
            label, pixels = read_line(line)
            if names and label >= len(names):
                report.add("unknown class", path, f"class {label} is beyond the {len(names)} names, which count from 0",
                           box=f"#{number}")
                continue
            if (label, pixels) in seen:
                report.add("duplicated box", path, "an earlier line has the same box", box=f"#{number}")
                continue
            seen.add((label, pixels))
            name = names[label] if names else str(label)
            record.boxes.append(Box(number, report.class_name(name, path), pixels))


def read_line(line: str) -> tuple[int, tuple[float, ...]]:
    """A line -> its class number, and x, y, w, h of its box in fractions of the image. Raises Unusable."""
    first, *rest = map(to_number, line.split())
    label = int(first) if math.isfinite(first) else -1
    if label != first or not 0 <= label < MAX_NUMBERED_CLASSES:
        raise Unusable(f"{shown(line.split()[0])} is not a class number; they are whole and count from 0")
    if len(rest) != 4 and (len(rest) < 6 or len(rest) % 2):
        raise Unusable(f"{len(rest)} numbers follow the class; they are cx cy w h, or x y of three or more points")
    if any(MOST < abs(value) < math.inf for value in rest):
        raise Unusable(f"{shown(line.strip())} is not in fractions of the image, 0..1; YOLO's numbers are")
    if len(rest) == 4:
        x, y, width, height = rest
        return label, (x - width / 2, y - height / 2, width, height)
    xs, ys = rest[::2], rest[1::2]
    return label, (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
