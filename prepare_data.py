"""COCO, VOC or TXT data -> checked MindRecord files and a report. train.py does the same when they are missing.

    python prepare_data.py --dataset=voc --voc_root=DIR [--classes=[a,b]] [--mindrecord_dir=DIR] [--strict=True]
"""
import sys

from src.errors import run_main


def main():
    """Converts the training and the validation split; one may be missing."""
    from src.config import read_options, split_options, unused_note

    options = read_options(sys.argv[1:], "prepare_data.py", doc=__doc__)
    note = unused_note(options, "prepare_data.py")
    if note:
        print(note, flush=True)
    from src.machine import process
    process.prepare()
    from src.data.annotations import SplitMissing
    from src.data.labels import classes_from
    from src.data.prepare import prepare_split

    classes, missing, origin = options.classes, [], "correct --classes or leave it out"
    for split in ("train", "val"):
        try:
            with classes_from(origin):
                converted = prepare_split(**split_options(options, split), classes=classes)
        except SplitMissing as error:
            missing.append(error)
            continue
        origin = f"the list is that of {converted.name}: give the validation split of the same data"
        classes = converted.classes  # a validation split without some class must not renumber the others
        show(converted)
    if len(missing) == 2:
        raise missing[0]
    for error in missing:
        print(f"only one split: {error}")


def show(split):
    """Prints what a split holds and what was found wrong with it."""
    from src.text import one_line
    print(f"{split.name}: {split.count} images, {sum(split.boxes_per_class)} boxes in {split.folder}")
    for name, count in zip(split.classes, split.boxes_per_class):
        print(f"{count:>9}  {one_line(name)}")
    if split.finding_count and not split.converted:
        print(f"found at conversion:\n{split.summary}")
    print(f"report: {split.report}\n")


if __name__ == "__main__":
    run_main(main)
