"""What lies in a folder: its files by folder, images that belong to annotations, and all that in words for messages."""
from __future__ import annotations

import os
import re
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from src.data.images import IMAGE_ENDINGS
from src.errors import DataError
from src.files import open_regular

KINDS = {"images": IMAGE_ENDINGS, "XML files": (".xml",), "JSON files": (".json",), "TXT files": (".txt",),
         "CSV files": (".csv",), "YAML files": (".yaml", ".yml")}
VOC_LAYOUTS = (os.path.join("ImageSets", "Main"), os.path.join("train", "Annotations"))
MAX_DEPTH, MAX_FOLDERS = 5, 1000  # of folders that are listed
MAX_NAMED = 3                     # folders of each kind in the message
OWN_MARKS = ({"manifest.json", "ground_truth.json"}, {"config.yaml", "log.jsonl"})  # of a conversion and of a run
SPLIT_WORDS = {"train": "train", "training": "train", "trainval": "train", "val": "val", "valid": "val",
               "validation": "val", "eval": "val", "dev": "val", "test": "test", "testing": "test"}
HEAD = 1 << 16  # bytes of a file that are looked at to tell what it is
SAMPLE = 20  # names that are looked up to find out where images lie


class Tree(NamedTuple):
    """A folder with the folders below it."""
    root: str                      # as a user gave it
    folders: dict[str, list[str]]  # path relative to root, itself first as ".": names of its files, sorted

    def path(self, *parts: str) -> str:
        """A path below the root."""
        return os.path.normpath(os.path.join(self.root, *parts))

    def files(self, *endings: str) -> dict[str, list[str]]:
        """The names with one of these endings, in any case, by folder; folders without one are left out."""
        found = {folder: [name for name in names if name.lower().endswith(endings)]
                 for folder, names in self.folders.items()}
        return {folder: names for folder, names in found.items() if names}


def list_tree(path: str) -> Tree:
    """The tree of a folder, or of a file: then it holds this file alone, and the images around it.

    Raises DataError where there is no such path.
    """
    if os.path.isdir(path):
        return Tree(path, folders_below(path))
    if not os.path.isfile(path):
        raise DataError(f"--data '{path}' is neither a folder nor a file")
    folder, name = os.path.split(path)
    for root in (folder or ".", os.path.join(folder, os.pardir)):  # annotations/ may stand beside the images
        images = Tree(root, folders_below(root)).files(*IMAGE_ENDINGS)
        if images:
            break
    own = os.path.relpath(folder or ".", root)
    return Tree(root, {".": [], **images, own: [*images.get(own, []), name]})


def folders_below(root: str) -> dict[str, list[str]]:
    """{path relative to root: names of its files} of a folder and of those below it, to some depth.

    Hidden folders, conversions and runs of this program are left out.
    """
    listed = {}
    for path, folders, names in islice(os.walk(root, followlinks=True), MAX_FOLDERS):
        relative = os.path.relpath(path, root)
        if any(marks <= {*names} for marks in OWN_MARKS):
            folders.clear()
            continue
        if relative.count(os.sep) >= MAX_DEPTH - 1:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        listed[relative] = sorted(name for name in names if not name.startswith("."))
    return listed


def split_of(path: str) -> str:
    """The split that the parts of a relative path name, the last part first: train, val, test, or "" for none."""
    for part in reversed(os.path.normpath(path).split(os.sep)):
        for word in re.findall("[a-z]+", part.lower()):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
    return ""


def head(path: str) -> str:
    """The beginning of a text file; in UTF-16 it is readable as far as its letters are Latin."""
    with open_regular(path) as file:
        return file.read(HEAD).replace(b"\0", b"").decode("utf-8-sig", errors="replace")


def sample(names: Iterable[str]) -> list[str]:
    """Some of the names, from all over the list."""
    names = list(names)
    return names[::max(1, len(names) // SAMPLE)][:SAMPLE]


def folder_of_names(tree: Tree, names: Iterable[str], start: str) -> str:
    """The folder, relative to the root, below which most of some file names lie; start: where to look first."""
    names = [name.replace("\\", "/") for name in sample(names)]
    images = list(tree.files(*IMAGE_ENDINGS))
    folders = dict.fromkeys([start, ".", *images, *(os.path.dirname(folder) or "." for folder in images)])
    found = {folder: sum(os.path.isfile(tree.path(folder, name)) for name in names) for folder in folders}
    best = max(found, key=found.get)
    return best if found[best] or not images else images[0]


def folder_of_stems(tree: Tree, names: Iterable[str], start: str) -> str:
    """The folder, relative to the root, with most of the images that are named like some files; start: the first."""
    wanted = {os.path.splitext(name)[0] for name in names}
    images = tree.files(*IMAGE_ENDINGS)
    found = {folder: len(wanted & {os.path.splitext(name)[0] for name in images.get(folder, ())})
             for folder in dict.fromkeys([start, *images])}
    return max(found, key=found.get)


# --- in words

def what_is_there(tree: Tree) -> str:
    """What lies in a folder, kind by kind."""
    found = []
    for kind, endings in KINDS.items():
        folders = list(tree.files(*endings))
        if folders:
            more = " .." if len(folders) > MAX_NAMED else ""
            found.append(f"{kind} in {', '.join(folders[:MAX_NAMED])}{more}")
    return f"'{tree.root}' has {', '.join(found) or 'no images and no annotations'}"


def advice(tree: Tree) -> str:
    """What a user may do whose data lies like this where VOC's lists were looked for; "" where nothing is known."""
    for folder in list(tree.folders)[1:]:
        if any(os.path.isdir(tree.path(folder, layout)) for layout in VOC_LAYOUTS):
            return f"; is it --voc_root={tree.path(folder)}?"
    if tree.files(".xml", ".json") or any("labels" in folder.split(os.sep) for folder in tree.files(".txt")):
        return f"; --data={tree.root} finds out by itself what it is"
    return ""
