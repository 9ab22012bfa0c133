"""VOC XML files -> records."""
from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from src.data.annotations import Place, SplitFiles, SplitMissing, read_text, require_folder, require_root
from src.data.findings import Report, Unusable
from src.data.labels import label_records
from src.data.layouts import what_is_there
from src.data.records import Annotations, Box, Record, add_record
from src.data.values import to_flag, to_pixels, to_size
from src.data.voc_names import ImageFolder, by_stem, listed_file, xml_names
from src.errors import DataError

UNREADABLE = "annotation unreadable"
DECLARED = re.compile(rb"""<\?xml[^>]*\bencoding\s*=\s*["']([\w.:-]+)""")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
LAYOUTS = ("known are ImageSets/Main/<split>.txt with Annotations/ and JPEGImages/, and <split>/Annotations/ with "
           "<split>/Images/ (eval/ for val)")


def voc_split(split: str, place: Place) -> SplitFiles:
    """A split of VOC as named, or else as usual; test stands in for a val that is not there."""
    require_root(place, "voc_root", "Annotations/, JPEGImages/ and ImageSets/Main/")
    if place.split_name:
        return find_voc(place.voc_root, [place.split_name])
    try:
        return find_voc(place.voc_root, {"train": ["train"], "val": ["val", "test"]}[split])
    except DataError as error:
        raise SplitMissing(str(error)) from error


def find_voc(root: str, splits: list[str]) -> SplitFiles:
    """The first of these splits that is there; files: its list, or the zoo's folder, and the XML files."""
    for split in splits:
        zoo = os.path.join(root, "eval" if split == "val" else split)
        list_file = os.path.join(root, "ImageSets", "Main", f"{split}.txt")
        xml_dir = os.path.join(zoo, "Annotations")
        if os.path.isdir(xml_dir):
            files = [xml_dir, *(os.path.join(xml_dir, name) for name in xml_names(xml_dir))]
            return SplitFiles(split, files, os.path.join(zoo, "Images"), read=partial(read_voc, root, split))
        xml_dir = os.path.join(root, "Annotations")
        if os.path.isfile(list_file):
            require_folder(xml_dir, "annotation folder")
            known, lines = by_stem(xml_names(xml_dir)), map(str.strip, read_text(list_file).split("\n"))
            files = [list_file, *(listed_file(line, xml_dir, known) for line in lines if line)]
            return SplitFiles(split, files, os.path.join(root, "JPEGImages"), read=partial(read_voc, root, split))
    raise DataError(no_list(root, splits[0]))


def no_list(root: str, split: str) -> str:
    """Why a split cannot be found: the lists there are, else the layouts that are known and what was found instead."""
    folder = os.path.join(root, "ImageSets", "Main")
    # those of one class, cat_train, would hide those that can be chosen
    lists = sorted((path.stem for path in Path(folder).glob("*.txt")), key=lambda name: ("_" in name, name))
    message = f"VOC split list '{os.path.join(folder, split)}.txt' is missing; there is "
    if lists:
        more = " .." if len(lists) > 20 else ""
        return f"{message}{', '.join(lists[:20])}{more}"
    return f"{message}no list at all; the layouts {LAYOUTS}; {what_is_there(root)}"


def read_voc(root: str, split: str, *, classes: list[str], report: Report) -> Annotations:
    """Reads the VOC XML files of a split. classes: names, or [] = those found, sorted.

    Coordinates are taken as written: VOC's own count from 1, but most tools that write VOC files count from 0.
    Image ids are 1, 2, .. in the order of the list. Raises DataError when nothing can be used.
    """
    files = find_voc(root, [split])
    require_folder(files.image_dir, "image folder")
    origin, *xml_files = files.files
    xml_dir = origin if os.path.isdir(origin) else os.path.join(root, "Annotations")
    report.forms.corners = True
    records, folders = {}, {}  # records by path of the image, image folders by path below xml_dir
    for path in xml_files:
        with report.catching(UNREADABLE, path):
            inner = os.path.relpath(os.path.dirname(path), xml_dir)
            if inner not in folders:
                own = os.path.join(files.image_dir, inner)  # cam1/7.xml may mean cam1/7.jpg
                apart = not inner.startswith(os.pardir) and os.path.isdir(own)
                folders[inner] = ImageFolder(own if apart else files.image_dir, os.path.join(xml_dir, inner))
            record = read_voc_record(path, folders[inner], image_id=len(records) + 1, report=report)
            if record:
                add_record(records, record, key=record.path, report=report)
    if not records:
        reason = report.findings[0] if report.findings else "it lists no image"
        raise DataError(f"'{origin}' has no usable annotation: {reason}")
    return label_records(records.values(), classes, file=origin, report=report)


def read_voc_record(path: str, images: ImageFolder, *, image_id: int, report: Report) -> Record | None:
    """One XML file -> Record, or None with a finding."""
    if not os.path.isfile(path):
        raise Unusable("there is no such file; image left out")
    tree = read_xml(path)
    if tree.tag != "annotation":
        raise Unusable(f"its root is <{tree.tag}>, not <annotation> as in VOC; image left out")
    written = os.path.basename((texts(tree, "filename") or [""])[0].replace("\\", "/"))
    image, odd = images.find(os.path.splitext(os.path.basename(path))[0], written)
    if odd:
        report.add("image name unclear" if image else "duplicated id", path, odd)
    if not image:
        return None
    height, width = (to_size(tree.findtext(f"size/{name}")) for name in ("height", "width"))
    image = os.path.abspath(os.path.join(images.folder, image))
    record = Record(image_id, image, path, height=height, width=width)
    for number, item in enumerate(tree.findall("object"), 1):
        add_object(record, number, item, report=report)
    return record


def add_object(record: Record, number: int, item: Element, *, report: Report) -> None:
    """Adds the boxes of an <object>, nearly always one, to a Record; what is not clear becomes a finding."""
    file, place = record.source, f"#{number}"
    names, boxes = texts(item, "name"), item.findall("bndbox")
    if not names or not boxes:
        missing = "<bndbox>" if names else "<name>"
        report.add("box dropped", file, f"the object has no {missing} (it holds {tags(item)})", box=place)
        return
    if len(names) > 1:
        reason = f"the object has the names {' and '.join(names)}; the first is taken"
        report.add("class unclear", file, reason, box=place)
    difficult = False
    with report.catching("difficult unusable", file, box=place):
        difficult = to_flag((texts(item, "difficult") or [None])[0])
    for box in boxes:
        with report.catching("box dropped", file, box=place):
            pixels = corner_pixels(box)
            record.boxes.append(Box(number, report.class_name(names[0], file), pixels, difficult=difficult))


def corner_pixels(box: Element) -> tuple[float, ...]:
    """A <bndbox> -> x, y, w, h in pixels. Raises Unusable."""
    found = {tag: texts(box, tag) for tag in CORNERS}
    odd = [f"<{tag}>" for tag, values in found.items() if len(values) != 1]
    if odd:
        raise Unusable(f"the bndbox needs one {' and one '.join(odd)} (it holds {tags(box)})")
    corners = [values[0] for values in found.values()]
    return to_pixels(corners, f"bndbox {', '.join(corners)} is not four numbers", corners=True)


def read_xml(path: str) -> Element:
    """The root of an XML file; its tags in small letters and without namespaces. Raises what the parser raises.

    Expat fetches no external entity, and ends a file whose entities grow without measure with an error.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        root = ElementTree.fromstring(data)
    except (ValueError, LookupError):  # expat reads UTF and one byte a letter; Python decodes gb2312, big5, shift_jis
        declared = DECLARED.search(data[:200])
        if not declared:
            raise
        root = ElementTree.fromstring(data.decode(declared[1].decode()))  # of a text the declaration does not count
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2].lower()
    return root


def texts(node: Element, tag: str) -> list[str]:
    """What the children of a node with this tag say, white space as in a sentence; empty ones are left out."""
    return [text for child in node.findall(tag) if (text := " ".join((child.text or "").split()))]


def tags(node: Element) -> str:
    """The tags below a node, in words."""
    return ", ".join(f"<{child.tag}>" for child in node) or "nothing"
