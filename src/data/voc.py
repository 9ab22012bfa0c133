"""VOC XML files -> records."""
import os
from pathlib import Path

from src.data.annotations import (
    add_box,
    add_record,
    check_folder,
    faults_as_findings,
    label_records,
    read_text,
    to_flag,
    to_size,
)
from src.data.layouts import what_is_there
from src.data.records import Record, visible
from src.data.voc_names import ImageFolder, listed_file, xml_names
from src.data.xml_files import read_xml, texts
from src.errors import DataError

UNREADABLE = "annotation unreadable"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
LAYOUTS = ("known are ImageSets/Main/<split>.txt with Annotations/ and JPEGImages/, and <split>/Annotations/ with "
           "<split>/Images/ (eval/ for val)")


def read_voc(root, split, classes, report):
    """The VOC XML files of a split -> (records, class names, ids 1..C-1). classes [] = the names found, sorted.

    Coordinates are taken as written: VOC's own count from 1, but most tools that write VOC files count from 0.
    Image ids are 1, 2, .. in the order of the list. Raises DataError when nothing can be used.
    """
    _, list_file, annotation_files, image_dir = voc_files(root, split)
    check_folder(image_dir, "image folder")
    base = list_file if os.path.isdir(list_file) else os.path.join(root, "Annotations")
    records, folders, before = {}, {}, len(report.findings)
    for path in annotation_files:
        with faults_as_findings(report, UNREADABLE, path):
            images = image_folder(os.path.relpath(os.path.dirname(path), base), base, image_dir, known=folders)
            record = read_voc_record(path, images, len(records) + 1, report=report)
            if record:
                add_record(records, record.path, record, report)
    faults = [(f"{one.file}:", one.box, one.reason) for one in report.findings[before:before + 1]]
    fault = " ".join(part for one in faults for part in one if part)
    if not records:
        raise DataError(visible(f"'{list_file}' has no usable annotation: {fault or 'it lists no image'}"))
    if fault and not classes and not any(record.boxes for record in records.values()):
        raise DataError(visible(f"'{list_file}' has no usable box: {fault}"))
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
            folder = os.path.join(root, "Annotations")
            check_folder(folder, "annotation folder")
            known, lines = xml_names(folder), (line.strip() for line in read_text(lists).split("\n"))
            return split, lists, [listed_file(line, folder, known) for line in lines if line], \
                os.path.join(root, "JPEGImages")
    raise DataError(no_list(root, splits[0]))


def no_list(root, split):
    """Why a split cannot be found: the lists there are, else the layouts that are known and what was found instead."""
    folder = os.path.join(root, "ImageSets", "Main")
    # those of one class, cat_train, would hide those that can be chosen
    lists = sorted((one.stem for one in Path(folder).glob("*.txt")), key=lambda name: ("_" in name, name))
    message = f"VOC split list '{os.path.join(folder, split)}.txt' is missing; there is "
    if lists:
        return f"{message}{', '.join(lists[:20])}{' ..' if len(lists) > 20 else ''}"
    return f"{message}no list at all; the layouts {LAYOUTS}; {what_is_there(root)}"


def image_folder(inner, annotations, image_dir, *, known):
    """The ImageFolder of the XML files in annotations/inner: image_dir/inner if there is such a folder, else image_dir.

    known: those that were read already.
    """
    if inner not in known:
        folder = os.path.join(image_dir, inner)
        apart = not inner.startswith(os.pardir) and os.path.isdir(folder)
        known[inner] = ImageFolder(folder if apart else image_dir, os.path.join(annotations, inner))
    return known[inner]


def read_voc_record(path, images, number, *, report):
    """One XML file -> Record, or None with a finding. images: an ImageFolder."""
    if not os.path.isfile(path):
        report.add(UNREADABLE, path, None, "there is no such file; image left out")
        return None
    tree = read_xml(path)
    if tree.tag != "annotation":
        report.add(UNREADABLE, path, None, f"its root is <{tree.tag}>, not <annotation> as in VOC; image left out")
        return None
    written = os.path.basename(next(iter(texts(tree, "filename")), "").replace("\\", "/"))
    image, odd = images.find(os.path.splitext(os.path.basename(path))[0], written)
    if odd:
        report.add("image name unclear" if image else "duplicated id", path, None, odd)
    if not image:
        return None
    size = (to_size(tree.findtext(f"size/{name}")) for name in ("height", "width"))
    record = Record(number, os.path.abspath(os.path.join(images.folder, image)), *size, path, [])
    for index, item in enumerate(tree.findall("object"), 1):
        add_object(record, index, item, report=report)
    return record


def add_object(record, index, item, *, report):
    """Adds the boxes of an <object>, nearly always one, to a Record; what is not clear becomes a finding."""
    names, boxes = texts(item, "name"), item.findall("bndbox")
    if not names or not boxes:
        report.add("box dropped", record.source, f"#{index}",
                   f"the object has no {'<bndbox>' if names else '<name>'} (it holds {tags(item)})")
        return
    if len(names) > 1:
        reason = f"the object has the names {' and '.join(names)}; the first is taken"
        report.add("class unclear", record.source, f"#{index}", reason)
    flag, difficult = next(iter(texts(item, "difficult")), ""), False
    try:
        difficult = to_flag(flag)
    except ValueError:
        report.add("difficult unusable", record.source, f"#{index}", f"difficult is '{flag}', not 0 or 1; 0 is taken")
    for box in boxes:
        found = [texts(box, tag) for tag in CORNERS]
        corners = [one[0] for one in found if len(one) == 1]
        odd = [f"<{tag}>" for tag, one in zip(CORNERS, found) if len(one) != 1]
        reason = f"the bndbox needs one {' and one '.join(odd)} (it holds {tags(box)})" if odd else \
            f"bndbox {', '.join(corners)} is not four numbers"
        add_box(record, index, names[0], corners, report, "box dropped", reason, True, None, False, difficult)


def tags(node):
    """The tags below a node, in words."""
    return ", ".join(f"<{child.tag}>" for child in node) or "nothing"
