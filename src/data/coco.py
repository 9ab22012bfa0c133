"""COCO annotation files -> records."""
import json
import math
import os
import re
from collections import Counter, namedtuple

from src.data.annotations import (
    UnusableRecord,
    add_box,
    add_record,
    check_folder,
    derived_classes,
    faults_as_findings,
    image_path,
    label_records,
    read_text,
    shown,
    to_flag,
    to_number,
    to_size,
)
from src.data.coco_masks import mask_box
from src.data.records import Record
from src.errors import DataError

POLYGONS = "segmentation"
COCO_KEYS = {"images": ("id", "file_name"), "annotations": (), "categories": ("id", "name")}
NUMBER = re.compile("0|-?[1-9][0-9]{0,17}")  # "007" is a text: it may be another image than 7
Category = namedtuple("Category", "id name")  # the id as it is written


def read_coco(annotation_file, image_dir, classes, report):
    """A COCO instances file -> (records, class names, their COCO category ids). classes [] = its categories by id.

    Raises DataError on a file or folder that cannot be used.
    """
    data = load_coco(annotation_file)
    check_folder(image_dir, "image folder")
    categories = read_categories(data["categories"], annotation_file, report)
    drop_namesakes(categories, data["annotations"], report)
    found = [category.name for category in categories.values()]
    report.class_names.update(found)
    names = list(classes) or derived_classes(found, annotation_file)
    records = read_images(data["images"], annotation_file, image_dir, report=report)
    for number, item in enumerate(data["annotations"], 1):
        with faults_as_findings(report, "box dropped", f"annotation {number}"):
            read_annotation(item, number, records=records, categories=categories, report=report)
    label_records(records.values(), names, annotation_file, report)
    ids = {category.name: category.id for category in categories.values()}
    free = max(categories, default=0) + 1
    return list(records.values()), names, [ids.get(name, free + index) for index, name in enumerate(names)]


def load_coco(path):
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
            raise DataError(f"annotation file '{path}': an entry of '{key}' must be an object"
                            f"{' with ' if needed else ''}{' and '.join(needed)}")
    if not all(isinstance(id_key(item["id"], True), int) for item in data["categories"]):
        raise DataError(f"annotation file '{path}': category ids must be whole numbers")
    return data


def without_polygons(pairs):
    """The dict of a JSON object, without its polygons where it has a box."""
    item = dict(pairs)
    if item.get("bbox"):
        item.pop(POLYGONS, None)
    return item


def id_key(value, strict=False):
    """What ids are compared by: 7, 7.0 and "7" are one, other texts are themselves. None for what is no id.

    strict: True is none either, which Python takes for 1.
    """
    if isinstance(value, str):
        return int(value) if NUMBER.fullmatch(value) else value
    if isinstance(value, int):
        return None if strict and isinstance(value, bool) else int(value)
    if not isinstance(value, float) or not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else value


def read_categories(items, file, report):
    """The entries of 'categories' -> {key: Category} by id. Raises DataError for one id with two names."""
    categories = {}
    for item in sorted(items, key=lambda item: id_key(item["id"])):
        key = id_key(item["id"])
        with faults_as_findings(report, "category unusable", f"category {key}"):
            name = category_name(item["name"], key, report)
            if categories.setdefault(key, Category(item["id"], name)).name != name:
                raise DataError(f"annotation file '{file}': category id {key} has two names, '{categories[key].name}' "
                                f"and '{name}'; give each class an id of its own")
    return categories


def category_name(name, key, report):
    """The name of a category as text on one line. Raises UnusableRecord for what is no name."""
    if isinstance(name, (int, float)) and not isinstance(name, bool):
        report.add("class name changed", f"category {key}", None, f"its name {shown(name)} is read as text")
        return str(name)
    if not isinstance(name, str) or not name.strip():
        raise UnusableRecord(f"its name {shown(name)} is not text with a letter in it; its boxes are left out")
    return report.class_name(name, f"category {key}")


def drop_namesakes(categories, annotations, report):
    """Takes a category without boxes out of {key: Category} where another one has its name.

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
            report.add("category left out", f"category {key}", None,
                       f"it has no boxes and shares the name '{category.name}' with another category")


def read_images(items, file, image_dir, *, report):
    """The entries of 'images' -> {key of the id: Record}. Raises DataError for ids that mix up images."""
    keys, records = [id_key(item["id"]) for item in items], {}
    own_ids = all(isinstance(key, int) for key in keys if key is not None)  # some tools write texts
    for number, (item, key) in enumerate(zip(items, keys), 1):
        written, name = item["id"], item["file_name"]
        with faults_as_findings(report, "image unusable", f"image {shown(written)}"):
            check_image_id(key, written, file)
            path = image_path(image_dir, name)
            if key in records and records[key].path != path:
                raise DataError(f"annotation file '{file}': the images '{records[key].source}' and '{name}' share the "
                                f"id {shown(written)}; give each image an id of its own")
            if isinstance(written, bool):
                report.add("image id", name, None, f"its id {written} is read as {key}")
            size = to_size(item.get("height")), to_size(item.get("width"))
            kept = None if own_ids and type(written) in (int, bool) else written
            add_record(records, key, Record(key if own_ids else number, path, *size, name, [], kept), report)
    return records


def check_image_id(key, written, file):
    """Raises UnusableRecord for what is no id, DataError for a number that no tool can hold."""
    if key is None:
        raise UnusableRecord(f"its id {shown(written)} is neither a number nor a text; the image is left out")
    if isinstance(key, int) and not -2 ** 63 <= key < 2 ** 63:
        raise DataError(f"annotation file '{file}': the image id {shown(written)} is beyond 64 bits; number the images "
                        "from 1 on")


def read_annotation(item, number, *, records, categories, report):
    """Adds the box of one entry of 'annotations' to its Record, or a finding."""
    owner, category, written = item.get("image_id"), item.get("category_id"), item.get("id")
    number = written if type(written) is int and abs(written) < 2 ** 63 else number
    record = records.get(id_key(owner))
    if record is None:
        report.add("unknown image", f"annotation {number}", None, f"no image has the id {shown(owner)}")
        return
    known = categories.get(id_key(category))
    name = known.name if known else f"category id {shown(category)}"
    box = item.get("bbox")
    if not box and item.get(POLYGONS):
        box = read_mask(item[POLYGONS])
    place = {"record": record, "number": number, "report": report}
    area, crowd = read_value(item, "area", read_area, **place), read_value(item, "iscrowd", to_flag, **place)
    add_box(record, number, name, box, report, "box dropped", f"bbox {shown(box)} is not four numbers", False, area,
            bool(crowd))


def read_mask(segmentation):
    """The box round a segmentation. Raises UnusableRecord."""
    try:
        return mask_box(segmentation)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise UnusableRecord(f"it has no bbox, and no box can be made of segmentation {shown(segmentation)}") from error


def read_value(item, key, read, *, record, number, report):
    """What read() makes of a value of an annotation; None, and a finding, where it can make nothing of it."""
    value = item.get(key)
    try:
        return None if value is None else read(value)
    except (TypeError, ValueError, OverflowError):
        report.add(f"{key} unusable", record.source, f"#{number}", f"{key} {shown(value)} is left out")
        return None


def read_area(value):
    """A finite area from 0 on. Raises ValueError and as to_number."""
    area = to_number(value)
    if not 0 <= area < math.inf:
        raise ValueError(value)
    return area
