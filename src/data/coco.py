"""COCO annotation files -> records."""
from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from functools import partial

from src.data.annotations import Place, SplitFiles, SplitMissing, image_path, read_text, require_folder, require_root
from src.data.coco_masks import mask_box
from src.data.findings import Report, Unusable
from src.data.labels import derived_classes, label_records
from src.data.records import Annotations, Box, Record, add_record
from src.data.values import shown, to_flag, to_number, to_pixels, to_size
from src.errors import DataError

POLYGONS = "segmentation"
COCO_KEYS = {"images": ("id", "file_name"), "annotations": (), "categories": ("id", "name")}
NUMBER = re.compile("0|-?[1-9][0-9]{0,17}")  # "007" is a text: it may be another image than 7


def coco_split(split: str, place: Place) -> SplitFiles:
    """Where a split of COCO lies: an annotation file and an image folder, each as named or else as usual."""
    if place.coco_root or not (place.anno_path and place.image_dir):
        # the places of the training split alone may be named
        content = ("annotations/ and the image folders, or name a file and a folder by --anno_path and --image_dir, "
                   "for validation by --val_anno_path and --val_image_dir")
        require_root(place, "coco_root", content, error=SplitMissing if split == "val" else DataError)
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
    return SplitFiles(name, [path], image_dir, read=partial(read_coco, path, image_dir), as_annotated=True)


def read_coco(file: str, image_dir: str, *, classes: list[str], report: Report) -> Annotations:
    """Reads a COCO instances file. classes: names, or [] = its categories by id. Raises DataError."""
    data = load_coco(file)
    require_folder(image_dir, "image folder")
    categories = read_categories(data["categories"], file, report)
    drop_namesakes(categories, data["annotations"], report)
    report.class_names.update(categories.values())
    names = list(classes) or derived_classes(list(categories.values()), file)
    records = read_images(data["images"], file, image_dir=image_dir, report=report)
    for number, item in enumerate(data["annotations"], 1):
        read_annotation(item, number, records=records, categories=categories, report=report)
    label_records(records.values(), names, file=file, report=report)
    written = {id_key(item["id"]): item["id"] for item in reversed(data["categories"])}
    ids = {name: written[key] for key, name in categories.items()}
    free = max(categories, default=0) + 1  # for classes without a category
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


def read_categories(items: list[dict], file: str, report: Report) -> dict[int, str]:
    """The names of 'categories' by id, each on one line. Raises DataError for one id with two names."""
    categories = {}
    for key, name in sorted(((id_key(item["id"]), item["name"]) for item in items), key=lambda pair: pair[0]):
        place = f"category {key}"
        with report.catching("category unusable", place):
            if isinstance(name, (int, float)) and not isinstance(name, bool):
                report.add("class name changed", place, f"its name {shown(name)} is read as text")
                name = str(name)
            if not isinstance(name, str) or not name.strip():
                raise Unusable(f"its name {shown(name)} is not text with a letter in it; its boxes are left out")
            name = report.class_name(name, place)
            if categories.setdefault(key, name) != name:
                raise DataError(f"annotation file '{file}': category id {key} has two names, '{categories[key]}' and "
                                f"'{name}'; give each class an id of its own")
    return categories


def drop_namesakes(categories: dict[int, str], annotations: list[dict], report: Report) -> None:
    """Takes a category without boxes out of `categories` where another one has its name.

    Roboflow writes such a parent of all classes. Where none of them has boxes the last one stays.
    """
    counts = Counter(categories.values())
    used = {id_key(item.get("category_id")) for item in annotations}
    for key, name in list(categories.items()):
        if counts[name] > 1 and key not in used:
            counts[name] -= 1
            del categories[key]
            reason = f"it has no boxes and shares the name '{name}' with another category"
            report.add("category left out", f"category {key}", reason)


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
            record = Record(key if own_ids else number, path, name, height=to_size(item.get("height")),
                            width=to_size(item.get("width")), written_id=kept)
            add_record(records, record, key=key, report=report)
    return records


def read_annotation(item: dict, number: int, *, records: dict[object, Record], categories: dict[int, str],
                    report: Report) -> None:
    """Adds the box of one entry of 'annotations' to its Record, or a finding. number: its place in the list."""
    written = item.get("id")
    if type(written) is int and abs(written) < 2 ** 63:
        number = written
    image = item.get("image_id")
    record = records.get(id_key(image))
    if record is None:
        report.add("unknown image", f"annotation {number}", f"no image has the id {shown(image)}")
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
        category = item.get("category_id")
        name = categories.get(id_key(category), f"category id {shown(category)}")
        record.boxes.append(Box(number, report.class_name(name, file), pixels, area=area, crowd=crowd))


def to_area(value: object) -> float | None:
    """A finite area from 0 on, or None. Raises Unusable."""
    if value is None:
        return None
    area = to_number(value)
    if not 0 <= area < math.inf:
        raise Unusable(f"{shown(value)} is not an area")
    return area
