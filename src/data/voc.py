"""VOC XML files -> records."""
import os
from pathlib import Path
from xml.etree import ElementTree

from src.data.annotations import add_box, add_record, check_folder, label_records, read_text, to_size
from src.data.records import Record
from src.errors import DataError

IMAGE_ENDINGS = ("", ".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


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
