"""COCO, VOC and TXT annotations -> records, every fault named. No image is decoded here: records.finish_record() clips
and normalises the boxes once the size of the decoded image is known."""
import json
import os
from pathlib import Path
from xml.etree import ElementTree

from src.data.classes import named_classes, nearest
from src.data.records import Box, Record
from src.errors import DataError, OptionError

MOST_NUMBERED_CLASSES = 10000  # a larger TXT class number is a misplaced coordinate
POLYGONS = "segmentation"
IMAGE_ENDINGS = ("", ".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
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


def add_box(record, number, name, numbers, report, kind, reason, corners=True, *more):
    """Appends a Box to a Record, or adds a finding of a kind and reason where `numbers` are not four numbers.

    numbers: x1, y1, x2, y2, without corners x, y, w, h; more: the last fields of Box.
    """
    try:
        x, y, width, height = map(float, numbers)
    except (TypeError, ValueError):
        report.add(kind, record.source, f"#{number}", reason)
        return
    size = (width - x, height - y) if corners else (width, height)
    record.boxes.append(Box(number, name, (x, y, *size), *more))


def read_voc(root, split, classes, report):
    """The VOC XML files of a split -> (records, class names, ids 1..C-1). classes [] = the names found, sorted.

    Coordinates are taken as written: VOC's own count from 1, but most tools that write VOC files count from 0.
    Image ids are 1, 2, .. in the order of the list. Raises DataError when nothing can be used.
    """
    _, list_file, annotation_files, image_dir = voc_files(root, split)
    check_folder(image_dir, "image folder")
    present = set(os.listdir(image_dir))
    records, problem = {}, "it lists no image"
    for path in annotation_files:
        try:
            tree = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError) as error:
            problem = f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}"
            report.add("annotation unreadable", path, None, f"{problem}; image left out")
            continue
        record = read_voc_record(tree, path, image_dir, present, len(records) + 1, report)
        add_record(records, record.path, record, report)
    if not records:
        raise DataError(f"'{list_file}' has no usable annotation: {problem}")
    return label_records(records.values(), classes, list_file, report)


def voc_files(root, *splits):
    """Of the first split there is, as VOC or the model zoo has it: name, list or folder, XML files, image folder."""
    for split in splits:
        folder = os.path.join(root, {"val": "eval"}.get(split, split), "Annotations")
        if os.path.isdir(folder):
            files = [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.lower().endswith(".xml")]
            return split, folder, files, os.path.join(os.path.dirname(folder), "Images")
        lists = os.path.join(root, "ImageSets", "Main", f"{split}.txt")
        if os.path.isfile(lists):
            names = (line.strip() for line in read_text(lists).split("\n"))
            files = [os.path.join(root, "Annotations", f"{name}.xml") for name in names if name]
            return split, lists, files, os.path.join(root, "JPEGImages")
    folder = os.path.join(root, "ImageSets", "Main")
    known = ", ".join(sorted(one.stem for one in Path(folder).glob("*.txt"))) or "no list at all"
    raise DataError(f"VOC split list '{os.path.join(folder, splits[0])}.txt' is missing; there is {known}")


def read_voc_record(tree, path, image_dir, present, number, report):
    """The root of one XML file -> Record. present: names of the files in image_dir."""
    stem = os.path.splitext(os.path.basename(path))[0]
    written = os.path.basename((tree.findtext("filename") or stem).strip().replace("\\", "/"))
    candidates = (name + ending for name in (written, stem) for ending in IMAGE_ENDINGS)
    image = next((name for name in candidates if name in present), stem + ".jpg")
    size = (to_size(tree.findtext(f"size/{name}")) for name in ("height", "width"))
    record = Record(number, os.path.abspath(os.path.join(image_dir, image)), *size, path, [])
    for index, item in enumerate(tree.findall("object"), 1):
        corners = [item.findtext(f"bndbox/{tag}") for tag in ("xmin", "ymin", "xmax", "ymax")]
        name, difficult = ((item.findtext(tag) or "").strip() for tag in ("name", "difficult"))
        add_box(record, index, name, corners, report, "box dropped", f"bndbox {corners} is not four numbers", True,
                None, False, difficult == "1")
    return record


def read_txt(file, image_dir, classes, report):
    """`path x1,y1,x2,y2,class ...`, one image a line -> (records, class names, ids 1..C-1).

    Pixels, x first. Tabs separate the fields of a line that has one, spaces otherwise. classes [] = the names found,
    sorted, or "1".."largest" when all are numbers. Number i means the i-th class: 0, background in the model zoo, is an
    unknown class. Image ids are 1, 2, .. in the order of the lines. Raises DataError when nothing can be used.
    """
    check_folder(image_dir, "image_dir")
    records = {}
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        fields = [field.strip() for field in (line.strip(" ").split("\t") if "\t" in line else line.split())]
        record = Record(len(records) + 1, os.path.abspath(os.path.join(image_dir, fields[0])), 0, 0, f"{file}:{number}",
                        [])
        for index, field in enumerate(fields[1:], 1):
            *corners, name = (part.strip() for part in field.split(","))
            hint = "" if "," in field else "; a path with spaces needs tabs between the fields"
            if field:
                add_box(record, index, name, corners if name else (), report, "bad line",
                        f"'{field}' is not x1,y1,x2,y2,class{hint}")
        add_record(records, record.path, record, report)
    if not records:
        raise DataError(f"annotation file '{file}' is empty; each line is 'image.jpg x1,y1,x2,y2,class ...'")
    return label_records(records.values(), classes, file, report, numbered=True)


def add_record(records, key, record, report):
    """Adds an image under its id or path; a second one of the same key becomes a finding."""
    if key in records:
        report.add("duplicated id", record.source, None, f"image {key} belongs to {records[key].source} already")
    else:
        records[key] = record


def read_text(path):
    """The content of a text file. Raises DataError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"annotation file '{path}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"annotation file '{path}' is not text in UTF-8; save it as UTF-8") from error


def to_size(value):
    """Pixels from what an annotation says, 0 (ask the image) from anything that is no number."""
    try:
        return max(int(float(value)), 0)
    except (TypeError, ValueError, OverflowError):
        return 0


def check_folder(path, name):
    """Raises DataError unless path is a folder."""
    if not os.path.isdir(path):
        raise DataError(f"{name} '{path}' is not a folder")


def derived_classes(names, file, numbered=False):
    """The class names found in a file, or with numbered and nothing but numbers "1".."largest". Raises DataError."""
    try:
        if not names:
            raise OptionError("no class is in it")
        if numbered and all(name.isdecimal() for name in names):
            largest = max(map(int, names))
            if not 1 <= largest <= MOST_NUMBERED_CLASSES:
                raise OptionError(f"the largest class number is {largest}; they count from 1")
            return [str(number) for number in range(1, largest + 1)]
        return named_classes(names) if len(names) > 1 else names
    except OptionError as error:
        raise DataError(f"{file}: {error}; name the classes with --classes=[a,b]") from error


def label_records(records, classes, file, report, numbered=False):
    """Gives the boxes of records their labels -> (records, class names, their ids 1..C-1).

    classes [] = the names found; numbered: "2" is the second. A box of an unknown class becomes a finding. Raises
    DataError when all boxes are such.
    """
    found = {box.name for record in records for box in record.boxes}
    report.class_names |= found
    names = list(classes) or derived_classes(sorted(found), file, numbered)
    labels = {name: label for label, name in enumerate(names, 1)}
    if numbered:  # a number is a place in the list, unless a class has that very name
        places = {name: int(name) for name in found if name.isdecimal() and 1 <= int(name) <= len(names)}
        labels = {**places, **labels}
    if found and not found & set(labels):
        raise DataError(f"none of the classes [{', '.join(names)}] is in '{file}', which has "
                        f"[{', '.join(sorted(found))}]; correct --classes or leave it out")
    reasons = {name: unknown_class(name, names) for name in found - set(labels)}
    for record in records:
        for box in record.boxes:
            if box.name in reasons:
                report.add("unknown class", record.source, f"#{box.number}", reasons[box.name])
        record.boxes = [box._replace(label=labels[box.name]) for box in record.boxes if box.name in labels]
    return list(records), names, list(range(1, len(names) + 1))


def refuse_misspelt(classes, found):
    """Raises OptionError for a class that no annotation has while one of a similar name is left; found: names there."""
    left = sorted(found - set(classes))
    for name in classes:
        near = None if name in found else nearest(name, left)
        if near:
            raise OptionError(f"classes: no training annotation is of class '{name}', but there is '{near}'; correct "
                              f"'{name}', or take it out of the list")


def unknown_class(name, names):
    """Why a class name is unknown, in words."""
    if name == "0":
        return "class 0 was background in the model zoo; here numbers start at 1"
    near = nearest(name, names)
    return f"'{name}' is not in the list of classes" + (f"; did you mean '{near}'?" if near else "")
