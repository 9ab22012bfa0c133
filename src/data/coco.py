"""COCO annotation files -> records."""
import json
import os

from src.data.annotations import add_box, add_record, check_folder, derived_classes, label_records, read_text, to_size
from src.data.records import Record
from src.errors import DataError

POLYGONS = "segmentation"
COCO_KEYS = {"images": ("id", "file_name"), "annotations": (), "categories": ("id", "name")}


def read_coco(annotation_file, image_dir, classes, report):
    """A COCO instances file -> (records, class names, their COCO category ids). classes [] = its categories by id.

    Raises DataError on a file or folder that cannot be used.
    """
    data = load_coco(annotation_file)
    check_folder(image_dir, "image folder")
    categories = {item["id"]: str(item["name"]) for item in sorted(data["categories"], key=lambda item: item["id"])}
    report.class_names.update(categories.values())
    names = list(classes) or derived_classes(list(categories.values()), annotation_file)
    ids = {name: number for number, name in categories.items()}
    free = max(categories, default=0) + 1
    own_ids = all(type(image["id"]) is int for image in data["images"])  # some tools write texts
    records = {}
    for number, image in enumerate(data["images"], 1):
        path = os.path.abspath(os.path.join(image_dir, image["file_name"]))
        size = to_size(image.get("height")), to_size(image.get("width"))
        record = Record(image["id"] if own_ids else number, path, *size, image["file_name"], [])
        add_record(records, image["id"], record, report)
    for number, item in enumerate(data["annotations"], 1):
        number, owner, category = item.get("id", number), item.get("image_id"), item.get("category_id")
        if owner not in records:
            report.add("unknown image", f"annotation {number}", None, f"no image has the id {owner}")
            continue
        add_box(records[owner], number, categories.get(category, f"category id {category}"), item.get("bbox"), report,
                "box dropped", f"bbox {item.get('bbox')} is not four numbers", False, item.get("area"),
                bool(item.get("iscrowd")))
    label_records(records.values(), names, annotation_file, report)
    return list(records.values()), names, [ids.get(name, free + index) for index, name in enumerate(names)]


def load_coco(path):
    """The JSON of a COCO file without its polygons, which take most of the memory. Raises DataError."""
    try:
        data = json.loads(read_text(path), object_pairs_hook=lambda pairs: {k: v for k, v in pairs if k != POLYGONS})
    except ValueError as error:
        what = f"is not JSON or is cut short ({error})" if os.path.getsize(path) else "is empty"
        raise DataError(f"annotation file '{path}' {what}; fetch or export it again") from error
    for key, needed in COCO_KEYS.items():
        items = data.get(key) if isinstance(data, dict) else None
        if not isinstance(items, list):
            raise DataError(f"annotation file '{path}' has no list '{key}'; it must be a COCO instances file")
        if not all(isinstance(item, dict) and all(name in item for name in needed) for item in items):
            raise DataError(f"annotation file '{path}': an entry of '{key}' must be an object"
                            f"{' with ' if needed else ''}{' and '.join(needed)}")
    if not all(type(item["id"]) is int for item in data["categories"]):
        raise DataError(f"annotation file '{path}': category ids must be whole numbers")
    return data
