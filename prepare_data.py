"""Annotated images -> checked MindRecord files and a report. train.py does the same when they are missing.

    python prepare_data.py --data=FOLDER [--classes=[a,b]] [--mindrecord_dir=DIR] [--strict=True]
    python prepare_data.py --dataset=voc --voc_root=DIR [--classes=[a,b]] [--mindrecord_dir=DIR] [--strict=True]
"""
from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from src.errors import run_main

if TYPE_CHECKING:
    from easydict import EasyDict

    from src.data.prepare import Split
    from src.data.survey import Survey
    from src.evaluation.data_page import AnchorFit


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

    classes, missing, origin, splits = options.classes, [], "correct --classes or leave it out", []
    for name in ("train", "val"):
        try:
            with classes_from(origin):
                split = prepare_split(**split_options(options, name), classes=classes)
        except SplitMissing as error:
            missing.append(error)
            continue
        origin = f"the list is that of {split.name}: give the validation split of the same data"
        splits.append(split)
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
    if options.report:
        write_report(options, splits)


def write_report(options: EasyDict, splits: list[Split]) -> None:
    """Writes report.html of the splits, into output_path where that is typed, else beside the first conversion."""
    from src.data.survey import survey_split
    from src.evaluation.data_page import write_data_page
    from src.files import output_folder

    folder = options.output_path if "output_path" in options.typed else splits[0].folder
    with output_folder(folder):
        path = os.path.join(folder, "report.html")
        surveys = [survey_split(split) for split in splits]
        write_data_page(path, surveys, anchors=measure_anchors(options, splits[0], surveys[0]))
    print(f"{path} shows the data set")


def measure_anchors(options: EasyDict, split: Split, survey: Survey) -> AnchorFit | None:
    """How the anchors of the model fit the boxes of a split, None where it has no box.

    Of --model=auto, which is the default here, it is the model that train.py would choose for the split.
    """
    import numpy as np

    from src.anchor_fit import fit_anchors, read_boxes
    from src.evaluation.data_page import AnchorFit
    from src.models.ssd import build_model
    from src.training.anchors import with_file
    from src.training.build import choose_model
    from src.training.log import RunLog

    boxes, areas, total = read_boxes(survey.truth, options.seed)
    if not total:
        return None
    is_chosen = options.model == "auto"
    options = choose_model(options, split, log=RunLog(), rank=0, world=1)
    model = build_model(options.model, 2, image_size=options.image_size, width=options.width)
    if options.anchors not in ("", "auto"):  # whether fitted ones are better is said in any case
        model = with_file(model, options.anchors)
    fit = fit_anchors(boxes, model.anchors, model.levels(), threshold=options.match_threshold,
                      image_size=model.image_size)
    return AnchorFit(f"{model.name} at {model.image_size} pixels", is_chosen, survey.name,
                     options.match_threshold, fit, np.sqrt(areas))


if __name__ == "__main__":
    run_main(main)
