"""Where YOLO's files lie: the images of a data.yaml, the label file of an image, the names of the classes."""
from __future__ import annotations

import os

import yaml

from src.data.annotations import SplitMissing, read_text
from src.data.images import IMAGE_ENDINGS
from src.data.layouts import head, split_of
from src.data.per_image import files_below
from src.data.txt_fields import is_number
from src.data.voc_names import names_with
from src.errors import DataError
from src.recipes import load_yaml

YAML_ENDINGS = (".yaml", ".yml")
IMAGES, LABELS = "images", "labels"  # folders beside each other, of which the one stands for the other in a path
NAMES_FILES = ("data.yaml", "classes.txt", "obj.names", "_darknet.labels")  # before YAML files of other names
SPLIT_KEYS = {"train": ("train",), "val": ("val", "valid", "test")}  # of a data.yaml; test stands in for val


def is_yaml(path: str) -> bool:
    """True for the name of a YAML file."""
    return path.lower().endswith(YAML_ENDINGS)


def read_data_yaml(path: str) -> dict:
    """A data.yaml, every scalar as it is written: the class `on` is not True. Raises DataError."""
    try:
        data = load_yaml(read_text(path), yaml.BaseLoader)
    except ValueError as error:
        raise DataError(f"'{path}' is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise DataError(f"'{path}' is not a data.yaml of YOLO; it needs names, train and val")
    return data


def read_head(path: str) -> dict:
    """A YAML file that may be something else, then {}."""
    try:
        return read_data_yaml(path)
    except DataError:
        return {}


def read_names(path: str) -> list[str]:
    """The names of the class numbers 0, 1, .. in a data.yaml, or one a line. Raises DataError."""
    if not is_yaml(path):
        lines = [line.strip() for line in read_text(path).split("\n")]
        while lines and not lines[-1]:
            lines.pop()
        names = dict(enumerate(lines))
    else:
        written = read_data_yaml(path).get("names")
        names = dict(enumerate(written)) if isinstance(written, list) else written
    try:
        numbered = {int(number): name for number, name in names.items()}
        usable = all(isinstance(name, str) for name in numbered.values()) and 0 <= min(numbered) <= max(numbered) < 1e4
    except (AttributeError, ValueError):
        usable = False
    if not usable:
        raise DataError(f"'{path}' has no usable names of the classes; they are a list, or a map from 0, 1, ..")
    return [name if (name := numbered.get(number, "")).strip() else str(number) for number in range(max(numbered) + 1)]


def find_names(folders: list[str]) -> str:
    """The file with the names of the classes in one of the folders, "" for none.

    Above images/, labels/ and the folder of a split it is looked for too.
    """
    for folder in map(os.path.abspath, folders):
        while True:
            for name in (*NAMES_FILES, *names_with(folder, YAML_ENDINGS)):
                path = os.path.join(folder, name)
                if os.path.isfile(path) and (not is_yaml(path) or "names" in read_head(path)):
                    return os.path.relpath(path)
            folder, name = os.path.split(folder)
            if name not in (IMAGES, LABELS) and not split_of(name):
                break
    return ""


def label_path(image: str, image_dir: str = "", label_dir: str = "") -> str:
    """The label file of an image: at the same place in label_dir, or in labels/ for images/, or beside the image."""
    stem = os.path.splitext(os.path.relpath(image, image_dir) if label_dir else image)[0]
    if label_dir:
        return os.path.join(label_dir, f"{stem}.txt")
    parts = stem.split(os.sep)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == IMAGES:
            turned = os.sep.join([*parts[:place], LABELS, *parts[place + 1:]])
            return f"{turned if os.path.isdir(os.path.dirname(turned)) else stem}.txt"
    return f"{stem}.txt"


def yaml_images(path: str, split: str) -> list[str]:
    """The paths of the images that a data.yaml names for split "train" or "val". Raises SplitMissing, DataError.

    Paths begin in its `path`, or where that is a folder of another machine, in the folder of the file itself; exports
    of Roboflow write one ../ too many.
    """
    data, own = read_data_yaml(path), os.path.dirname(path) or "."
    entry = next((data[key] for key in SPLIT_KEYS[split] if data.get(key)), None)
    if not entry:
        raise SplitMissing(f"'{path}' names no images for {split}")
    roots = [os.path.join(own, str(data.get("path") or "")), own]
    images = []
    for name in entry if isinstance(entry, list) else [entry]:
        name = str(name)
        tried = [os.path.join(root, part) for part in (name, name.lstrip("./")) for root in roots]
        found = next((place for place in tried if os.path.exists(place)), None)
        if found is None:
            raise DataError(f"'{path}' names '{name}' for {split}, but there is no '{os.path.normpath(tried[0])}'")
        found = os.path.normpath(found)
        images += files_below(found, IMAGE_ENDINGS) if os.path.isdir(found) else listed_images(found, roots)
    if not images:
        raise DataError(f"'{path}': '{entry}', which it names for {split}, holds no image")
    return list(dict.fromkeys(images))


def listed_images(path: str, roots: list[str]) -> list[str]:
    """The images that a text file lists, one path a line, from its own folder or from one of the roots on."""
    if path.lower().endswith(IMAGE_ENDINGS):
        return [path]
    images = []
    for line in filter(None, map(str.strip, read_text(path).split("\n"))):
        name = line.replace("\\", "/")
        inner = name.partition("/")[2]  # CVAT writes data/images/train/a.jpg for what lies in images/train/
        tried = [os.path.normpath(os.path.join(root, part)) for part in (name, inner)
                 for root in (os.path.dirname(path), *roots)]
        images.append(next(filter(os.path.exists, tried), tried[0]))
    return images


def is_label_file(path: str) -> bool:
    """True for a text file whose first line begins with a class number and four numbers more, as YOLO's labels."""
    parts = first_line(path).split()
    return len(parts) >= 5 and parts[0].isdecimal() and all(map(is_number, parts))


def first_line(path: str) -> str:
    """The first line of a text file that is not empty, "" for none."""
    return next(filter(None, map(str.strip, head(path).split("\n"))), "")
