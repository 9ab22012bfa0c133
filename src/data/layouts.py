"""Which data a folder holds, in words: for a user whose data set lies otherwise than it should."""
from __future__ import annotations

import os
from itertools import islice

from src.data.images import IMAGE_ENDINGS

KINDS = {"images": IMAGE_ENDINGS, "XML files": (".xml",), "JSON files": (".json",), "TXT files": (".txt",),
         "CSV files": (".csv",), "YAML files": (".yaml", ".yml")}
VOC_LAYOUTS = (os.path.join("ImageSets", "Main"), os.path.join("train", "Annotations"))
MAX_DEPTH, MAX_FOLDERS = 3, 300  # of folders that are listed
MAX_NAMED = 3                    # folders of each kind in the message


def what_is_there(root: str) -> str:
    """What lies below a folder, and what to do where it looks like a data set of a known kind; the end of a message."""
    listed, places, found = folders_below(root), {}, []
    for kind, endings in KINDS.items():
        folders = [folder for folder, names in listed if any(name.lower().endswith(endings) for name in names)]
        places[kind] = folders
        if folders:
            more = " .." if len(folders) > MAX_NAMED else ""
            found.append(f"{kind} in {', '.join(folders[:MAX_NAMED])}{more}")
    return f"'{root}' has {', '.join(found) or 'no images and no annotations'}{advice(root, places, listed)}"


def advice(root: str, places: dict[str, list[str]], listed: list[tuple[str, list[str]]]) -> str:
    """What a user whose data lies like this may do, "" where nothing is known."""
    for folder, _ in listed[1:]:
        if any(os.path.isdir(os.path.join(root, folder, layout)) for layout in VOC_LAYOUTS):
            return f"; is it --voc_root={os.path.join(root, folder)}?"
    if places["XML files"]:
        return "; put or link XML files and images into such folders, or write the list, one image name a line"
    if places["JSON files"]:
        return f"; COCO's JSON is read by --dataset=coco --coco_root={root}"
    if any("labels" in folder.split(os.sep) for folder in places["TXT files"]):
        return "; YOLO's labels must be exported as VOC, COCO or TXT (docs/data.md) first"
    return ""


def folders_below(root: str) -> list[tuple[str, list[str]]]:
    """(path relative to root, names of its files) of a folder and of those below it, to some depth."""
    listed = []
    for path, folders, names in islice(os.walk(root), MAX_FOLDERS):
        relative = os.path.relpath(path, root)
        if relative.count(os.sep) >= MAX_DEPTH - 1:
            folders.clear()
        folders.sort()
        listed.append((relative, names))
    return listed
