"""Lists the classes of a data set: their ids, names, boxes and images in the training and the validation split.

    python scripts/list_categories.py --dataset=coco --coco_root=DATA
    python scripts/list_categories.py --dataset=voc --voc_root=DATA
    python scripts/list_categories.py --dataset=other --image_dir=DIR --anno_path=train.txt

Only annotations are read, no image is opened; prepare_data.py checks everything. The ids are those of a COCO file, else
the place in the list of classes. --classes=[a,b] lists these alone.
"""
import os
import sys
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.config import read_options, split_options
from src.data.annotations import Place, SplitMissing
from src.data.findings import Report
from src.data.labels import refuse_misspelt
from src.data.prepare import DATA_FORMATS
from src.errors import run_main
from src.text import one_line


def main():
    """Reads the options, prints a table a split; one of the two may be missing."""
    options = read_options(sys.argv[1:], "scripts/list_categories.py", doc=__doc__, strict=True)
    missing = []
    for split in ("train", "val"):
        try:
            files, records, rows, report = read_split(options, split)
        except SplitMissing as error:
            missing.append(error)
            continue
        empty = sum(not record.boxes for record in records)
        print(f"{files.name}: {len(records):,} images, {empty:,} of them without boxes; "
              f"{sum(row[2] for row in rows):,} boxes of {len(rows)} classes")
        print(table(rows))
        if report.finding_count:
            print(f"{report.finding_count} finding(s) in the annotations; the first of each kind:")
            print(report.summary(1))
        print()
    if len(missing) == 2:
        raise missing[0]
    for error in missing:
        print(f"only one split: {error}")


def read_split(options, split):
    """The annotations of a split -> SplitFiles, list of Record, the rows of count_classes, Report."""
    arguments = split_options(options, split)
    place = Place(**{name: arguments[name] for name in Place._fields})
    files, report = DATA_FORMATS[options.dataset](split, place), Report()
    records, names, ids = files.read(classes=options.classes, report=report)
    if split == "train":
        refuse_misspelt(names, report.class_names)
    return files, records, count_classes(records, names, ids), report


def count_classes(records, names, ids):
    """[(id, name, boxes, images, crowd boxes, difficult boxes)] in label order; boxes count all kinds."""
    boxes, images, crowd, difficult = (Counter() for _ in range(4))
    for record in records:
        boxes.update(box.label for box in record.boxes)
        images.update({box.label for box in record.boxes})
        crowd.update(box.label for box in record.boxes if box.crowd)
        difficult.update(box.label for box in record.boxes if box.difficult)
    return [(number, name, boxes[label], images[label], crowd[label], difficult[label])
            for label, (number, name) in enumerate(zip(ids, names), 1)]


def table(rows):
    """The rows as text; columns of crowd and difficult boxes only where there are any."""
    titles = ("boxes", "images", "crowd", "difficult")
    shown = [column for column in range(4) if column < 2 or any(row[2 + column] for row in rows)]
    rows = [(number, one_line(name), *counts) for number, name, *counts in rows]
    wide = max([len(name) for _, name, *_ in rows] + [5])
    lines = [f"{'id':>6}  {'class':<{wide}}" + "".join(f"{titles[column]:>11}" for column in shown)]
    for number, name, *counts in rows:
        lines.append(f"{number:>6}  {name:<{wide}}" + "".join(f"{counts[column]:>11,}" for column in shown))
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
