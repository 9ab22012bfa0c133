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
from src.data.layouts import Tree, advice, list_tree, what_is_there
from src.data.per_image import files_below, read_files
from src.data.records import Annotations, Box, Record
from src.data.values import to_flag, to_pixels, to_size
from src.data.voc_names import ImageFolder, by_stem, listed_file, names_with
from src.errors import DataError

DECLARED = re.compile(rb"""<\?xml[^>]*\bencoding\s*=\s*["']([\w.:-]+)""")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
LAYOUTS = ("known are ImageSets/Main/<split>.txt with Annotations/ and JPEGImages/, and <split>/Annotations/ with "
           "<split>/Images/ (eval/ for val)")


def voc_split(split: str, place: Place) -> SplitFiles:
    """A split of VOC as named, or else as usual; test stands in for a val that is not there.

    With anno_path, a folder of XML files, no list is needed.
    """
    if place.anno_path:
        prefix = "" if split == "train" else "val_"
        require_folder(place.anno_path, f"--{prefix}anno_path")
        xml_files = files_below(place.anno_path, ".xml")
        if not xml_files:
            raise DataError(f"--{prefix}anno_path '{place.anno_path}' holds no XML file; VOC has one an image")
        return from_files(split, place.anno_path, xml_files, folder=place.anno_path,
                          image_dir=place.image_dir or place.anno_path)
    require_root(place, "voc_root", "Annotations/, JPEGImages/ and ImageSets/Main/",
                 error=SplitMissing if split == "val" else DataError)
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
            files = [os.path.join(xml_dir, name) for name in names_with(xml_dir, ".xml")]
            return from_files(split, xml_dir, files, folder=xml_dir, image_dir=os.path.join(zoo, "Images"))
        xml_dir = os.path.join(root, "Annotations")
        if os.path.isfile(list_file):
            require_folder(xml_dir, "annotation folder")
            known, lines = by_stem(names_with(xml_dir, ".xml")), map(str.strip, read_text(list_file).split("\n"))
            files = [listed_file(line, xml_dir, known) for line in lines if line]
            return from_files(split, list_file, files, folder=xml_dir, image_dir=os.path.join(root, "JPEGImages"))
    raise DataError(no_list(root, splits[0]))


def from_files(split: str, origin: str, xml_files: list[str], *, folder: str, image_dir: str) -> SplitFiles:
    """The split of some XML files below a folder. origin: the list or the folder that says which."""
    read = partial(read_xml_files, xml_files, folder, image_dir, origin=origin)
    return SplitFiles(split, [origin, *xml_files], image_dir, read=read)


def no_list(root: str, split: str) -> str:
    """Why a split cannot be found: the lists there are, else the layouts that are known and what was found instead."""
    folder = os.path.join(root, "ImageSets", "Main")
    # those of one class, cat_train, would hide those that can be chosen
    lists = sorted((path.stem for path in Path(folder).glob("*.txt")), key=lambda name: ("_" in name, name))
    message = f"VOC split list '{os.path.join(folder, split)}.txt' is missing; there is "
    if lists:
        more = " .." if len(lists) > 20 else ""
        return f"{message}{', '.join(lists[:20])}{more}"
    tree = list_tree(root) if os.path.isdir(root) else Tree(root, {})
    return f"{message}no list at all; the layouts {LAYOUTS}; {what_is_there(tree)}{advice(tree)}"


def read_voc(root: str, split: str, *, classes: list[str], report: Report) -> Annotations:
    """Reads a split of a VOC tree as read_xml_files() does. Raises DataError when nothing can be used."""
    return find_voc(root, [split]).read(classes=classes, report=report)


def read_xml_files(xml_files: list[str], folder: str, image_dir: str, *, origin: str, classes: list[str],
                   report: Report) -> Annotations:
    """Reads VOC's XML files, which lie below a folder. classes: names, or [] = those found, sorted.

    Coordinates are taken as written: VOC's own count from 1, but most tools that write VOC files count from 0.
    """
    require_folder(image_dir, "image folder")
    report.forms.corners = True
    return read_files(xml_files, folder, image_dir, origin=origin, tag="<filename>", read_file=read_voc_record,
                      classes=classes, report=report)


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
