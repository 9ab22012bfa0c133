"""For --data: what of each format lies in a folder. `find_<format>(tree) -> Found | None`.

Names say where to look and the beginning of a file says what it is. Raises DataError where there are several data sets
of a format.
"""
from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
from itertools import islice

from src.data.found import Found, Part, arrange
from src.data.images import IMAGE_ENDINGS
from src.data.layouts import HEAD, Tree, folder_of_names, folder_of_stems, head, sample, split_of
from src.data.txt_fields import is_box, is_image, split_line
from src.data.yolo_files import IMAGES, LABELS, SPLIT_KEYS, is_label_file, is_yaml, label_path, read_head, yaml_images
from src.errors import DataError
from src.files import open_regular

COCO_LISTS = {name: re.compile(rf'"{name}"\s*:\s*\['.encode()) for name in ("images", "annotations", "categories")}
FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
INSTANCES = "instances_"   # how COCO names its boxes, beside captions_ and person_keypoints_
LABELME = re.compile(r'"(shapes|imagePath)"\s*:')
ANNOTATION = re.compile(r"<(\w+:)?annotation[\s>]", re.IGNORECASE)
MAX_LOOKED = 50            # files of a folder, or lines of a file, that are looked at
MAX_NAMES = 1000           # file names of a COCO file that are looked at
LISTS = os.path.join("ImageSets", "Main")


# --- COCO

def find_coco(tree: Tree) -> Found | None:
    """COCO's tree, or JSON files in its form with the images beside them or elsewhere in the folder."""
    files = [os.path.join(folder, name) for folder, names in tree.files(".json").items()
             if not is_labelme_folder(tree, folder, names) for name in names[:MAX_LOOKED]]
    names = {path: coco_names(tree.path(path)) for path in files}
    names = {path: found for path, found in names.items() if found is not None}
    if any(os.path.basename(path).startswith(INSTANCES) for path in names):
        names = {path: found for path, found in names.items() if os.path.basename(path).startswith(INSTANCES)}
    usual = {path: usual_split(path) for path in names}
    if len({root for root, _ in usual.values()}) == 1 and all(
            split and tree.folders.get(os.path.normpath(os.path.join(root, split))) for root, split in usual.values()):
        return coco_tree(tree, usual)
    parts = [Part(split_of(path), path, folder_of_names(tree, found, os.path.dirname(path) or "."))
             for path, found in names.items()]
    return arrange(tree, parts, dataset="coco", words="COCO JSON")


def coco_names(path: str) -> list[str] | None:
    """Some file names of images in a COCO file, None where a file is no such file. It is not parsed: it may be huge."""
    try:
        with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if not all(pattern.search(data) for pattern in COCO_LISTS.values()):
                return None
            found = [match[1] for match in islice(re.finditer(FILE_NAME, data), MAX_NAMES)]
    except (OSError, ValueError):  # an empty file cannot be mapped
        return None
    names = []
    for text in sample(found):
        with contextlib.suppress(ValueError):
            names.append(json.loads(text))
    return names


def usual_split(path: str) -> tuple[str, str]:
    """annotations/instances_<split>.json -> the root of the tree, relative, and <split>; others -> "", ""."""
    folder, name = os.path.split(path)
    root, last = os.path.split(folder)
    match = re.fullmatch(rf"{INSTANCES}(.+)\.json", name)
    return (root or ".", match[1]) if match and last == "annotations" else ("", "")


def coco_tree(tree: Tree, usual: dict[str, tuple[str, str]]) -> Found | None:
    """COCO's own tree. usual: root and split of each annotation file."""
    parts = arrange(tree, [Part(split_of(split), path, split) for path, (_, split) in usual.items()], dataset="coco",
                    words="COCO JSON")
    if parts is None:
        return None
    given = {"coco_root": tree.path(next(iter(usual.values()))[0])}
    for split, prefix in (("train", ""), ("val", "val_")):
        if f"{prefix}image_dir" in parts.options:
            name = os.path.basename(parts.options[f"{prefix}image_dir"])
            given.update({f"{split}_data_type": name} if name != f"{split}2017" else {})
    return parts._replace(words="a COCO tree", options=given)


# --- VOC

def find_voc(tree: Tree) -> Found | None:
    """VOC's tree with lists, or XML files with the images beside them or elsewhere."""
    lists = [os.path.dirname(os.path.dirname(folder)) or "." for folder, names in tree.folders.items()
             if f"{os.sep}{folder}".endswith(f"{os.sep}{LISTS}") and any(name.endswith(".txt") for name in names)]
    if len(lists) > 1:
        places = ", ".join(f"'{tree.path(root)}'" for root in lists[:4])
        raise DataError(f"'{tree.root}' holds several VOC trees: {places}; name one of them by --data")
    xml_files = {folder: names for folder, names in tree.files(".xml").items()
                 if any(ANNOTATION.search(head(tree.path(folder, name))) for name in sample(names))}
    if lists and xml_files:
        return voc_tree(tree, lists[0])
    parts = [Part(split_of(folder), folder, folder_of_stems(tree, names, folder))
             for folder, names in xml_files.items()]
    return arrange(tree, parts, dataset="voc", words="VOC XML files")


def voc_tree(tree: Tree, root: str) -> Found:
    """A tree with lists: those of train and val where they are there, else what else there is."""
    names = {name[:-4] for name in tree.folders[os.path.normpath(os.path.join(root, LISTS))] if name.endswith(".txt")}
    given = {"voc_root": tree.path(root)}
    has_val = bool({"val", "test"} & names)
    if "train" not in names:
        rest = sorted(names - {"val", "test"}, key=lambda name: (name != "trainval", "_" in name, name))
        given["train_data_type"] = next(iter(rest or sorted(names, reverse=True)))
        has_val = has_val and bool(rest)
        if has_val and rest[0] == "trainval":  # it holds val
            has_val = "test" in names
            given.update({"val_data_type": "test"} if has_val and "val" in names else {})
    return Found("voc", "a VOC tree with lists", given, has_val=has_val, unused=[])


# --- YOLO

def find_yolo(tree: Tree) -> Found | None:
    """YOLO's data.yaml, or folders of label files with the images beside them or elsewhere."""
    yaml_files = [tree.path(folder, name) for folder, names in tree.folders.items() for name in names if is_yaml(name)]
    found = list(filter(None, map(yolo_yaml, yaml_files)))
    if len(found) > 1:
        places = ", ".join(f"'{data.options['anno_path']}'" for data in found[:4])
        raise DataError(f"'{tree.root}' holds several data.yaml of YOLO: {places}; name one of them by --data")
    if found:
        return found[0]
    parts = []
    for folder, names in tree.files(".txt").items():
        if any(is_label_file(tree.path(folder, name)) for name in sample(names)):
            turned = re.sub(rf"(^|{re.escape(os.sep)}){LABELS}($|{re.escape(os.sep)})", rf"\1{IMAGES}\2", folder)
            images = folder_of_stems(tree, names, turned)
            first = tree.files(*IMAGE_ENDINGS).get(images, ["x.jpg"])[0]
            usual = os.path.dirname(label_path(tree.path(images, first)))
            parts.append(Part(split_of(folder), "" if usual == tree.path(folder) else folder, images))
    return arrange(tree, parts, dataset="yolo", words="YOLO labels")


def yolo_yaml(path: str) -> Found | None:
    """What a data.yaml names, None where a YAML file is something else or names images that are not there."""
    data = read_head(path)
    if "names" not in data or not data.get("train"):
        return None
    with contextlib.suppress(DataError):
        if any(map(os.path.isfile, yaml_images(path, "train"))):
            has_val = any(data.get(key) for key in SPLIT_KEYS["val"])
            given = {"anno_path": path, **({"val_anno_path": path} if has_val else {})}
            return Found("yolo", "YOLO labels with a data.yaml", given, has_val=has_val, unused=[])
    return None


# --- TXT

def find_txt(tree: Tree) -> Found | None:
    """TXT files of `image.jpg x1,y1,x2,y2,class ..` lines."""
    files = [os.path.join(folder, name) for folder, names in tree.files(".txt").items() for name in names[:MAX_LOOKED]]
    images = {path: txt_images(tree.path(path)) for path in files}
    parts = [Part(split_of(path), path, folder_of_names(tree, names, os.path.dirname(path) or "."))
             for path, names in images.items() if names]
    return arrange(tree, parts, dataset="other", words="TXT files of boxes")


def txt_images(path: str) -> list[str]:
    """The file names of the first images in a TXT file of boxes, none for another file."""
    lines = [split_line(line) for line in head(path).split("\n")[:MAX_LOOKED] if line.strip()]
    names = [("".join(parts).strip(), fields) for parts, fields in lines]
    is_txt = any(is_image(name) and any(map(is_box, fields)) for name, fields in names)
    return [name for name, _ in names] if is_txt else []


# --- LabelMe

def find_labelme(tree: Tree) -> Found | None:
    """LabelMe's JSON files with the images beside them or elsewhere."""
    parts = [Part(split_of(folder), folder, folder_of_stems(tree, names, folder))
             for folder, names in tree.files(".json").items() if is_labelme_folder(tree, folder, names)]
    return arrange(tree, parts, dataset="labelme", words="LabelMe JSON files")


def is_labelme_folder(tree: Tree, folder: str, names: list[str]) -> bool:
    """Whether one of some JSON files is of LabelMe."""
    for name in sample(names):
        with open_regular(tree.path(folder, name)) as file:
            start = file.read(HEAD)
            file.seek(max(0, os.path.getsize(file.name) - HEAD))  # imageData, which is long, may stand between
            text = (start + file.read()).decode(errors="replace")
        if len(set(LABELME.findall(text))) == 2:
            return True
    return False
