"""LabelMe JSON files, one an image -> records (https://github.com/wkentaro/labelme, its *.json)."""
from __future__ import annotations

import json
import math
import os
from functools import partial

from src.data.annotations import Place, SplitFiles, SplitMissing, require_folder
from src.data.findings import Report, Unusable
from src.data.per_image import files_below, read_files
from src.data.records import Annotations, Box, Record
from src.data.values import shown, to_flag, to_number, to_pixels, to_size
from src.data.voc_names import ImageFolder
from src.errors import DataError
from src.files import open_regular

WITHOUT_AREA = ("point", "points", "line", "linestrip")  # shapes that enclose nothing


def labelme_split(split: str, place: Place) -> SplitFiles:
    """A split in LabelMe's form: a folder of JSON files, and one of images where they lie apart."""
    prefix = "" if split == "train" else "val_"
    folder = place.anno_path or (place.image_dir if split == "train" else "")
    if not folder:
        error = SplitMissing if split == "val" else DataError
        raise error(f"--{prefix}anno_path is empty; give the folder with LabelMe's JSON files of the {split} images")
    require_folder(folder, f"--{prefix}anno_path")
    files, image_dir = files_below(folder, ".json"), place.image_dir or folder
    require_folder(image_dir, f"--{prefix}image_dir")
    if not files:
        raise DataError(f"--{prefix}anno_path '{folder}' holds no JSON file; LabelMe writes one an image")
    return SplitFiles(split, [folder, *files], image_dir, read=partial(read_labelme, files, folder, image_dir))


def read_labelme(files: list[str], folder: str, image_dir: str, *, classes: list[str], report: Report) -> Annotations:
    """Reads LabelMe's files below a folder. classes: names, or [] = the labels found, sorted. Raises DataError."""
    report.forms.corners = True
    return read_files(files, folder, image_dir, origin=folder, tag="imagePath", read_file=read_record, classes=classes,
                      report=report)


def read_record(path: str, images: ImageFolder, *, image_id: int, report: Report) -> Record | None:
    """One JSON file -> Record, or None with a finding. The image is found as in VOC: the name of the file counts."""
    with open_regular(path) as file:
        data = json.loads(file.read().decode("utf-8-sig"))
    if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
        raise Unusable("it has no list 'shapes' as LabelMe writes it; image left out")
    written = os.path.basename(str(data.get("imagePath") or "").replace("\\", "/"))
    image, odd = images.find(os.path.splitext(os.path.basename(path))[0], written)
    if odd:
        report.add("image name unclear" if image else "duplicated id", path, odd)
    if not image:
        return None
    height, width = to_size(data.get("imageHeight")), to_size(data.get("imageWidth"))
    record = Record(image_id, os.path.abspath(os.path.join(images.folder, image)), path, height=height, width=width)
    for number, shape in enumerate(data["shapes"], 1):
        with report.catching("box dropped", path, box=f"#{number}"):
            record.boxes.append(read_shape(shape, number, path, report=report))
    return record


def read_shape(shape: object, number: int, path: str, *, report: Report) -> Box:
    """A shape -> the Box around it. Raises Unusable for one that encloses nothing."""
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
        raise Unusable(f"the shape {shown(shape)} has no label")
    kind = shape.get("shape_type") or "polygon"  # of files before LabelMe 3
    if kind in WITHOUT_AREA:
        raise Unusable(f"a {kind} has no area; draw a rectangle or a polygon")
    difficult = False
    with report.catching("difficult unusable", path, box=f"#{number}"):
        difficult = to_flag(shape.get("difficult"))
    return Box(number, report.class_name(shape["label"], path), extent(kind, shape.get("points")), difficult=difficult)


def extent(kind: str, points: object) -> tuple[float, ...]:
    """The points [x, y] of a shape -> x, y, w, h of the box around it. Raises Unusable."""
    needed = {"rectangle": 2, "circle": 2, "mask": 2}.get(kind, 3)
    usable = isinstance(points, list) and all(isinstance(point, (list, tuple)) and len(point) == 2 for point in points)
    if not usable or len(points) < needed:
        raise Unusable(f"the points {shown(points)} are not {needed} or more x, y of a {kind}")
    xs, ys = ([to_number(point[axis]) for point in points] for axis in (0, 1))
    if kind == "circle":  # its centre and a point on it
        radius = math.hypot(xs[1] - xs[0], ys[1] - ys[0])
        xs, ys = ([middle - radius, middle + radius] for middle in (xs[0], ys[0]))
    if not all(map(math.isfinite, [*xs, *ys])):
        return math.nan, math.nan, math.nan, math.nan
    return to_pixels([min(xs), min(ys), max(xs), max(ys)], "", corners=True)
