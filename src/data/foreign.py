"""Annotations that are not read: what a file looks like and what to do, for a user whose folder holds nothing known."""
from __future__ import annotations

import os
import re

from src.data.finders import COCO_LISTS
from src.data.layouts import Tree, head
from src.data.txt_fields import looks_like
from src.data.yolo_files import first_line
from src.files import open_regular

# by ending: what the beginning of a file of another tool's own form holds, and how to go on
FORMS = {
    ".json": {r'"_via_|"regions"\s*:': "VIA's own JSON; export it as COCO",
              r'"(completions|annotations)"[\s\S]*"(from_name|to_name)"\s*:': "Label Studio's own JSON; export it as "
                                                                              "COCO, VOC or YOLO",
              r'"coordinates"\s*:': "CreateML's JSON; convert it to COCO's",
              r'"(bbox|score)"[\s\S]*"score"\s*:': "results of a detector, not annotations"},
    ".xml": {r"<annotations[\s>]": "CVAT's own XML; export it as COCO, VOC or YOLO"},
    ".csv": {r",": "a table; convert it to one of those forms"}}
MAX_LOOKED = 20  # files


def why_unknown(tree: Tree) -> str:
    """What the first file that gives itself away looks like, "" for none."""
    files = [os.path.join(folder, name) for folder, names in tree.files(*FORMS, ".txt").items() for name in names]
    for path in files[:MAX_LOOKED]:
        if form := form_of(tree.path(path)):
            return f"'{tree.path(path)}' looks like {form}"
    return ""


def form_of(path: str) -> str:
    """What a file looks like, "" where it is not told."""
    ending, text = os.path.splitext(path)[1].lower(), head(path)
    if ending == ".txt":
        line = first_line(path)
        return looks_like(line) if line else ""
    forms = [form for mark, form in FORMS[ending].items() if re.search(mark, text)]
    if ending != ".json" or forms:
        return next(iter(forms), "")
    with open_regular(path) as file:
        data = file.read()
    missing = [name for name, pattern in COCO_LISTS.items() if not pattern.search(data)]
    return f"COCO's JSON, but has no list '{missing[0]}'" if 0 < len(missing) < len(COCO_LISTS) else ""
