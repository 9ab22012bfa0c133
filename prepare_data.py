"""Annotated images -> checked MindRecord files and a report. train.py does the same when they are missing.

    python prepare_data.py --data=FOLDER [--classes=[a,b]] [--mindrecord_dir=DIR] [--strict=True]
    python prepare_data.py --dataset=voc --voc_root=DIR [--classes=[a,b]] [--mindrecord_dir=DIR] [--strict=True]
"""
import sys

from src.errors import run_main


def main() -> None:
    """Converts the training and the validation split; one may be missing."""
    from src.config import read_options, split_options, take_data, unused_note
    from src.data.formats import identify

    options, note = take_data(read_options(sys.argv[1:], "prepare_data.py", doc=__doc__), identify)
    for line in filter(None, [unused_note(options, "prepare_data.py"), note]):
        print(line, flush=True)
    from src.machine import process
    process.prepare()
    from src.data.annotations import SplitMissing
    from src.data.labels import classes_from
    from src.data.prepare import prepare_split
    from src.text import one_line

    classes, missing, origin = options.classes, [], "correct --classes or leave it out"
    for name in ("train", "val"):
        try:
            with classes_from(origin):
                split = prepare_split(**split_options(options, name), classes=classes)
        except SplitMissing as error:
            missing.append(error)
            continue
        origin = f"the list is that of {split.name}: give the validation split of the same data"
        classes = split.classes  # a validation split without some class must not renumber the others
        print(f"{split.name}: {split.count} images, {sum(split.boxes_per_class)} boxes in {split.folder}")
        for class_name, count in zip(split.classes, split.boxes_per_class):
            print(f"{count:>9}  {one_line(class_name)}")
        if split.finding_count and not split.converted:
            print(f"found at conversion:\n{split.summary}")
        print(f"report: {split.report}\n")
    if len(missing) == 2:
        raise missing[0]
    for error in missing:
        print(f"only one split: {error}")


if __name__ == "__main__":
    run_main(main)
