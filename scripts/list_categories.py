"""Lists the classes of a data set: their ids, names, boxes and images in the training and the validation split.

    python scripts/list_categories.py --data=FOLDER
    python scripts/list_categories.py --dataset=coco --coco_root=DATA
    python scripts/list_categories.py --dataset=voc --voc_root=DATA
    python scripts/list_categories.py --dataset=other --image_dir=DIR --anno_path=train.txt

Only annotations are read, no image is opened; prepare_data.py checks everything. The ids are those of a COCO file, else
the place in the list of classes. --classes=[a,b] lists only these.
"""
from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from easydict import EasyDict

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.config import read_options, split_options, take_data
from src.data.annotations import SplitMissing
from src.data.findings import Report
from src.data.formats import identify, split_files
from src.data.labels import refuse_misspelt
from src.data.records import Record
from src.errors import run_main
from src.text import one_line

CONVERSION = ("mindrecord_dir", "strict")  # options of a split that are not about its annotations


class Category(NamedTuple):
    """What a split has of one class."""
    number: int     # of a COCO file, else the place in the list of classes
    name: str
    boxes: int      # of all kinds
    images: int
    crowd: int      # boxes
    difficult: int  # boxes


def main() -> None:
    """Reads the options, prints a table a split; one of the two may be missing."""
    options, note = take_data(read_options(sys.argv[1:], "scripts/list_categories.py", doc=__doc__, strict=True),
                              identify)
    if note:
        print(f"{note}\n")
    missing = []
    for split in ("train", "val"):
        try:
            print_split(options, split)
        except SplitMissing as error:
            missing.append(error)
    if len(missing) == 2:
        raise missing[0]
    for error in missing:
        print(f"only one split: {error}")


def print_split(options: EasyDict, split: str) -> None:
    """Prints the classes of split "train" or "val", and what was found in its annotations. Raises SplitMissing."""
    place = {name: value for name, value in split_options(options, split).items() if name not in CONVERSION}
    files, report = split_files(**place), Report()
    records, names, ids = files.read(classes=options.classes, report=report)
    if split == "train":
        refuse_misspelt(names, report.class_names)
    categories = count_classes(records, names, ids)
    empty, boxes = sum(not record.boxes for record in records), sum(category.boxes for category in categories)
    print(f"{files.name}: {len(records):,} images, {empty:,} of them without boxes; {boxes:,} boxes of "
          f"{len(categories)} classes")
    print(as_table(categories))
    if report.finding_count:
        print(f"{report.finding_count} finding(s) in the annotations; the first of each kind:\n{report.summary(1)}")
    print()


def count_classes(records: Iterable[Record], names: list[str], ids: list[int]) -> list[Category]:
    """The categories in label order."""
    boxes, images, crowd, difficult = (Counter() for _ in range(4))
    for record in records:
        boxes.update(box.label for box in record.boxes)
        images.update({box.label for box in record.boxes})
        crowd.update(box.label for box in record.boxes if box.crowd)
        difficult.update(box.label for box in record.boxes if box.difficult)
    return [Category(number, name, boxes[label], images[label], crowd[label], difficult[label])
            for label, (number, name) in enumerate(zip(ids, names), 1)]


def as_table(categories: list[Category]) -> str:
    """The categories as text; columns of crowd and difficult boxes only where there are any."""
    columns = [column for column in ("boxes", "images", "crowd", "difficult")
               if column in ("boxes", "images") or any(getattr(category, column) for category in categories)]
    names = [one_line(category.name) for category in categories]
    width = max(map(len, [*names, "class"]))
    lines = [f"{'id':>6}  {'class':<{width}}" + "".join(f"{column:>11}" for column in columns)]
    for category, name in zip(categories, names):
        counts = "".join(f"{getattr(category, column):>11,}" for column in columns)
        lines.append(f"{category.number:>6}  {name:<{width}}{counts}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
