"""COCO annotation files -> records."""
from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from functools import partial
from typing import NamedTuple

from src.data.annotations import Place, SplitFiles, SplitMissing, add_record, image_path, read_text, require_folder
from src.data.coco_masks import mask_box
from src.data.findings import Report, Unusable
from src.data.labels import derived_classes, label_records
from src.data.records import Annotations, Box, Record
from src.data.values import shown, to_flag, to_number, to_pixels, to_size
from src.errors import DataError

POLYGONS = "segmentation"
COCO_KEYS = {"images": ("id", "file_name"), "annotations": (), "categories": ("id", "name")}
NUMBER = re.compile("0|-?[1-9][0-9]{0,17}")  # "007" is a text: it may be another image than 7


class Category(NamedTuple):
    """An entry of 'categories'."""
    id: object  # as the file writes it: a number or its text
    name: str


def coco_split(split: str, place: Place) -> SplitFiles:
    """Where a split of COCO lies: an annotation file and an image folder, each as named or else as usual."""
    usual, prefix = place.split_name or f"{split}2017", "" if split == "train" else "val_"
    path = place.anno_path
    if not path:
        file = place.instances_set or "annotations/instances_{}.json"
        path = os.path.join(place.coco_root, file.replace("{}", usual))
    if not os.path.isfile(path):
        error = DataError if place.split_name or place.anno_path else SplitMissing
        options = "" if place.anno_path else f"--coco_root, --instances_set and --{split}_data_type, or name it by "
        raise error(f"annotation file '{path}' is missing; check {options}--{prefix}anno_path")
    image_dir = place.image_dir or os.path.join(place.coco_root, usual)
    if not os.path.isdir(image_dir):
        options = "" if place.image_dir else f"--coco_root and --{split}_data_type, or name it by "
        raise DataError(f"image folder '{image_dir}' is not a folder; check {options}--{prefix}image_dir")
    name = split if place.anno_path and not place.split_name else usual
    return SplitFiles(name, [path], image_dir, partial(read_coco, path, image_dir), as_annotated=True)


def read_coco(file: str, image_dir: str, *, classes: list[str], report: Report) -> Annotations:
    """Reads a COCO instances file. classes: names, or [] = its categories by id.

    Raises DataError on a file or folder that cannot be used.
    """
    data = load_coco(file)
    require_folder(image_dir, "image folder")
    categories = read_categories(data["categories"], file, report)
    drop_namesakes(categories, data["annotations"], report)
    found = [category.name for category in categories.values()]
    report.class_names.update(found)
    names = list(classes) or derived_classes(found, file)
    records = read_images(data["images"], file, image_dir=image_dir, report=report)
    for number, item in enumerate(data["annotations"], 1):
        read_annotation(item, number, records=records, categories=categories, report=report)
    label_records(records.values(), names, file=file, report=report)
    ids = {category.name: category.id for category in categories.values()}
    free = max(categories, default=0) + 1
    return Annotations(list(records.values()), names, [ids.get(name, free + index) for index, name in enumerate(names)])


def load_coco(path: str) -> dict:
    """The JSON of a COCO file; polygons, which take much memory, stay only where a box is missing. Raises DataError."""
    try:
        data = json.loads(read_text(path), object_pairs_hook=without_polygons)
    except ValueError as error:
        what = f"is not JSON or is cut short ({error})" if os.path.getsize(path) else "is empty"
        raise DataError(f"annotation file '{path}' {what}; fetch or export it again") from error
    except RecursionError as error:
        raise DataError(f"annotation file '{path}' is nested too deep; it must be a COCO instances file") from error
    for key, needed in COCO_KEYS.items():
        items = data.get(key) if isinstance(data, dict) else None
        if not isinstance(items, list):
            raise DataError(f"annotation file '{path}' has no list '{key}'; it must be a COCO instances file")
        if not all(isinstance(item, dict) and all(name in item for name in needed) for item in items):
            what = f"an object with {' and '.join(needed)}" if needed else "an object"
            raise DataError(f"annotation file '{path}': an entry of '{key}' must be {what}")
    for item in data["categories"]:
        if isinstance(item["id"], bool) or not isinstance(id_key(item["id"]), int):
            raise DataError(f"annotation file '{path}': category ids must be whole numbers")
    return data


def without_polygons(pairs: list[tuple]) -> dict:
    """The dict of a JSON object, without its polygons where it has a box."""
    item = dict(pairs)
    if item.get("bbox"):
        item.pop(POLYGONS, None)
    return item


def id_key(value: object) -> int | float | str | None:
    """What ids are compared by: 7, 7.0 and "7" are the same, other texts are themselves. None: it cannot be an id."""
    if isinstance(value, str):
        return int(value) if NUMBER.fullmatch(value) else value
    if isinstance(value, int):
        return int(value)
    if not isinstance(value, float) or not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else value


def read_categories(items: list[dict], file: str, report: Report) -> dict[int, Category]:
    """The entries of 'categories' by id. Raises DataError for one id with two names."""
    categories = {}
    for item in sorted(items, key=lambda item: id_key(item["id"])):
        key = id_key(item["id"])
        with report.catching("category unusable", f"category {key}"):
            name = category_name(item["name"], key, report)
            known = categories.setdefault(key, Category(item["id"], name))
            if known.name != name:
                raise DataError(f"annotation file '{file}': category id {key} has two names, '{known.name}' and "
                                f"'{name}'; give each class an id of its own")
    return categories


def category_name(name: object, key: int, report: Report) -> str:
    """The name of a category as text on one line. Raises Unusable for what cannot be a name."""
    if isinstance(name, (int, float)) and not isinstance(name, bool):
        report.add("class name changed", f"category {key}", f"its name {shown(name)} is read as text")
        return str(name)
    if not isinstance(name, str) or not name.strip():
        raise Unusable(f"its name {shown(name)} is not text with a letter in it; its boxes are left out")
    return report.class_name(name, f"category {key}")


def drop_namesakes(categories: dict[int, Category], annotations: list[dict], report: Report) -> None:
    """Takes a category without boxes out of `categories` where another one has its name.

    Roboflow writes such a parent of all classes. Where none of them has boxes the last one stays.
    """
    counts = Counter(category.name for category in categories.values())
    if max(counts.values(), default=1) == 1:
        return
    used = {id_key(item.get("category_id")) for item in annotations}
    for key, category in list(categories.items()):
        if counts[category.name] > 1 and key not in used:
            counts[category.name] -= 1
            del categories[key]
            report.add("category left out", f"category {key}",
                       f"it has no boxes and shares the name '{category.name}' with another category")


def read_images(items: list[dict], file: str, *, image_dir: str, report: Report) -> dict[object, Record]:
    """The entries of 'images' by the key of their id. Raises DataError for ids that mix up images."""
    keys, records = [id_key(item["id"]) for item in items], {}
    own_ids = all(isinstance(key, int) for key in keys if key is not None)  # some tools write texts
    for number, (item, key) in enumerate(zip(items, keys), 1):
        written, name = item["id"], item["file_name"]
        with report.catching("image unusable", f"image {shown(written)}"):
            if key is None:
                raise Unusable(f"its id {shown(written)} is neither a number nor a text; the image is left out")
            if isinstance(key, int) and not -2 ** 63 <= key < 2 ** 63:
                raise DataError(f"annotation file '{file}': the image id {shown(written)} is beyond 64 bits; number "
                                "the images from 1 on")
            path = image_path(image_dir, name)
            if key in records and records[key].path != path:
                raise DataError(f"annotation file '{file}': the images '{records[key].source}' and '{name}' share the "
                                f"id {shown(written)}; give each image an id of its own")
            if isinstance(written, bool):
                report.add("image id", name, f"its id {written} is read as {key}")
            kept = None if own_ids and isinstance(written, int) else written
            record = Record(key if own_ids else number, path, to_size(item.get("height")), to_size(item.get("width")),
                            source=name, boxes=[], written_id=kept)
            add_record(records, record, key=key, report=report)
    return records


def read_annotation(item: dict, number: int, *, records: dict[object, Record], categories: dict[int, Category],
                    report: Report) -> None:
    """Adds the box of one entry of 'annotations' to its Record, or a finding. number: its place in the list."""
    written = item.get("id")
    if type(written) is int and abs(written) < 2 ** 63:
        number = written
    record = records.get(id_key(item.get("image_id")))
    if record is None:
        reason = f"no image has the id {shown(item.get('image_id'))}"
        report.add("unknown image", f"annotation {number}", reason)
        return
    file, box = record.source, f"#{number}"
    area, crowd = None, False
    with report.catching("area unusable", file, box=box):
        area = to_area(item.get("area"))
    with report.catching("iscrowd unusable", file, box=box):
        crowd = to_flag(item.get("iscrowd"))
    with report.catching("box dropped", file, box=box):
        bbox = item.get("bbox")
        if not bbox and item.get(POLYGONS):
            bbox = mask_box(item[POLYGONS])
        pixels = to_pixels(bbox, f"bbox {shown(bbox)} is not four numbers", corners=False)
        known = categories.get(id_key(item.get("category_id")))
        name = known.name if known else f"category id {shown(item.get('category_id'))}"
        record.boxes.append(Box(number, report.class_name(name, file), pixels, area, crowd))


def to_area(value: object) -> float | None:
    """A finite area from 0 on, or None. Raises Unusable."""
    if value is None:
        return None
    area = to_number(value)
    if not 0 <= area < math.inf:
        raise Unusable(f"{shown(value)} is not an area")
    return area
