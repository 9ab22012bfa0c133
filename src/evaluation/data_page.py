"""report.html of a data set: counts, sizes, anchors, what is wrong with it, and pictures with boxes."""
from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from src.anchor_fit import Fit, share_matched
from src.data.findings import NOTES, Finding
from src.data.images import read_image
from src.data.prepare import data_name
from src.data.survey import Finder, Measures, Survey, box_of, identical_images, measure
from src.drawing import draw_boxes, encode_jpeg, fit_into
from src.errors import DataError
from src.evaluation import charts
from src.evaluation.diagnosis import group_sizes
from src.evaluation.report import boxes_of
from src.evaluation.summary import join_words
from src.page import data_uri, write_page
from src.text import one_line

SIDE, MAX_BYTES = 420, 30_000    # pixels and bytes of a picture: 72 of them stay below 3 MB as base64
NUM_MOSAIC = 16                  # images of each split that are shown
MAX_PICTURES, MAX_OF_KIND = 40, 8  # pictures of findings, in all and of a kind
MAX_LISTED = 20                  # lines of a list
SMALL_SIDE = 32                  # pixels: COCO's small objects
RARE = 0.1                       # of the boxes of the most frequent class: fewer are worth a sentence
SIDE_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)  # pixels
ASPECT_TICKS = (0.125, 0.25, 0.5, 1, 2, 4, 8)
MARK = (207, 27, 60)             # colour of the box of a finding


class AnchorFit(NamedTuple):
    """How the anchors of a model fit the boxes of a split."""
    model: str          # name and size
    chosen: bool        # whether it is the model that --model=auto chooses
    split: str          # whose boxes were measured
    threshold: float    # IoU of a match
    fit: Fit
    sides: np.ndarray   # [N] of the boxes it was measured on, pixels of the image


def write_data_page(path: str, surveys: Sequence[Survey], *, anchors: AnchorFit | None = None) -> None:
    """Writes the report of a data set of one split or more. anchors: None where they are not measured."""
    measures = [measure(survey) for survey in surveys]
    twins = identical_images(surveys)
    shown, name = join_words([survey.name for survey in surveys]), data_name([survey.root for survey in surveys])
    write_page(path, "data.html", title=f"{name}: {shown}",
               subtitle=join_words([f"{survey.name}: {survey.image_dir}" for survey in surveys]),
               facts=headline(surveys, measures), summary=summarize(surveys, measures, twins=twins, anchors=anchors),
               classes=class_table(surveys, measures), charts=build_charts(surveys, measures, anchors),
               mosaics=[(survey.name, mosaic(survey)) for survey in surveys], findings=show_findings(surveys),
               twins=[[f"{split}: {one_line(name)}" for split, name in group] for group in twins[:MAX_LISTED]],
               num_twins=len(twins))


def headline(surveys: Sequence[Survey], measures: Sequence[Measures]) -> list[tuple[str, str]]:
    """The few numbers in large type."""
    pairs = []
    for survey, numbers in zip(surveys, measures):
        pairs += [(f"{len(survey.truth['images']):,}", f"images of {survey.name}"),
                  (f"{numbers.boxes.sum():,}", f"boxes of {survey.name}")]
    pairs.append((f"{len(surveys[0].classes)}", "classes"))
    return [*pairs, (f"{sum(map(num_findings, surveys)):,}", "findings")]


def num_findings(survey: Survey) -> int:
    """How many findings a split has, without mere notes."""
    return sum(count for kind, count in survey.counts.items() if kind not in NOTES)


def summarize(surveys: Sequence[Survey], measures: Sequence[Measures], *, twins: list,
              anchors: AnchorFit | None) -> list[str]:
    """What a reader should know before training, most important first."""
    sentences = [f"{survey.name} has no image of {join_words(names[:MAX_LISTED])}: nothing can be learned or measured "
                 "there." for survey, numbers in zip(surveys, measures)
                 if (names := [name for name, count in zip(survey.classes, numbers.boxes) if not count])]
    leaks = sum(len({split for split, _ in group}) > 1 for group in twins)
    if leaks:
        sentences.append(f"{leaks} image(s) are in more than one split, so the validation is not fair: remove them "
                         "from one.")
    sentences.append(image_words(surveys))
    first = measures[0]
    if len(first.boxes) > 1 and 0 < first.boxes.min() < RARE * first.boxes.max():
        rare, often = (surveys[0].classes[index] for index in (first.boxes.argmin(), first.boxes.argmax()))
        count = first.boxes.min()
        sentences.append(f"{rare} is rare: {count} {'box' if count == 1 else 'boxes'}, where {often} has "
                         f"{first.boxes.max()}; --class_balance repeats its images.")
    if len(first.sides):
        small = (first.sides < SMALL_SIDE).mean()
        sentences.append(f"Half of the boxes are smaller than {np.median(first.sides):.0f} x "
                         f"{np.median(first.sides):.0f} pixels, and {small:.0%} are small (below 32 x 32).")
    if anchors is not None:
        sentences.append(anchor_words(anchors))
    empty = sum(int((numbers.per_image == 0).sum()) for numbers in measures)
    if empty:
        sentences.append(f"{empty} image(s) have no box; they count as images in which there is nothing.")
    count = sum(map(num_findings, surveys))
    sentences.append(f"The check has {count} finding(s), which are shown below." if count else
                     "The check has no finding.")
    return sentences


def image_words(surveys: Sequence[Survey]) -> str:
    """The sizes of the images."""
    sizes = np.array([(image["width"], image["height"]) for survey in surveys for image in survey.truth["images"]])
    low, high = sizes.min(axis=0), sizes.max(axis=0)
    if (low == high).all():
        return f"All images have {low[0]} x {low[1]} pixels."
    return f"The images are {low[0]} to {high[0]} pixels wide and {low[1]} to {high[1]} pixels high."


def anchor_words(anchors: AnchorFit) -> str:
    """How many boxes the anchors match, and whether fitted ones match more."""
    before, after = (share_matched(best, anchors.threshold) for best in (anchors.fit.before, anchors.fit.after))
    model = f"{anchors.model}, which --model=auto chooses," if anchors.chosen else anchors.model
    text = (f"The anchors of {model} match {before:.1%} of the boxes of {anchors.split} (IoU of "
            f"{anchors.threshold:g} or more)")
    return f"{text}; fitted ones (--anchors=auto) match {after:.1%}." if anchors.fit.shapes else f"{text}."


def class_table(surveys: Sequence[Survey], measures: Sequence[Measures]) -> dict:
    """Boxes and images of each class in each split, the most frequent first: head and rows."""
    head = ["class", *(f"{what} of {survey.name}" for survey in surveys for what in ("boxes", "images"))]
    order = np.argsort(-measures[0].boxes, kind="stable")
    totals = [(numbers.boxes.sum(), len(survey.truth["images"])) for survey, numbers in zip(surveys, measures)]
    rows = [["all", *(f"{value:,}" for pair in totals for value in pair)]]
    rows += [[one_line(surveys[0].classes[index]),
              *(f"{value:,}" for numbers in measures for value in (numbers.boxes[index], numbers.images[index]))]
             for index in order]
    return {"head": head, "rows": rows}


def build_charts(surveys: Sequence[Survey], measures: Sequence[Measures],
                 anchors: AnchorFit | None) -> list[tuple[str, str, str]]:
    """(title, address, what it says) of each chart."""
    names = [survey.name for survey in surveys]
    sides, aspects, counts = ([getattr(numbers, field) for numbers in measures]
                              for field in ("sides", "aspects", "per_image"))
    if not sum(map(len, sides)):
        return []
    largest = max(float(np.concatenate(sides).max()), 2.0)
    max_count = int(np.concatenate(counts).max())
    built = [
        ("Sizes of the boxes", charts.histogram(sides, np.geomspace(1, largest, 33), names=names, ticks=SIDE_TICKS,
                                                label="side in pixels (square root of the area)"),
         "COCO calls boxes below 32 pixels small and those from 96 on large."),
        ("Shapes of the boxes", charts.histogram(aspects, np.geomspace(1 / 8, 8, 34), names=names, ticks=ASPECT_TICKS,
                                                 label="width / height"), "1 is a square; above, a box is wide."),
        ("Boxes an image", charts.histogram(counts, np.arange(max_count + 2) - 0.5 if max_count < 40 else
                                            np.linspace(0, max_count, 41), names=names, label="boxes"),
         f"{np.concatenate(counts).mean():.1f} boxes an image, at most {max_count}.")]
    if anchors is not None:
        ranges = group_sizes(anchors.sides, anchors.fit.before >= anchors.threshold - 1e-6)
        built.append(("Boxes that an anchor matches", charts.share_by_size(ranges, label="share matched"),
                      f"Of {anchors.model}, by size; numbers: how many boxes. A box without a match is learned from "
                      "one anchor alone."))
    return built


def mosaic(survey: Survey) -> list[tuple[str, str]]:
    """(address, name) of images with their boxes: of each class at least one, the others spread over the split."""
    images = survey.truth["images"]
    by_class = {}
    for item in survey.truth["annotations"]:
        by_class.setdefault(item["category_id"], item["image_id"])
    wanted = set(list(by_class.values())[:NUM_MOSAIC // 2])
    places = [place for place, image in enumerate(images) if image["id"] in wanted]
    spread = np.linspace(0, len(images) - 1, NUM_MOSAIC).round().astype(int).tolist() if images else []
    chosen = sorted(dict.fromkeys([*places, *spread]).keys() if len(images) > NUM_MOSAIC else range(len(images)))
    pictures = []
    for place in chosen[:NUM_MOSAIC]:
        image = images[place]
        boxes, labels = boxes_of(survey.truth, image)
        address = picture(os.path.join(survey.image_dir, image["file_name"]), image["height"], image["width"],
                          boxes=boxes, labels=labels, classes=survey.classes)
        if address:
            pictures.append((address, one_line(image["file_name"])))
    return pictures


def show_findings(surveys: Sequence[Survey]) -> list[dict]:
    """For each split and kind of finding: how many, pictures of the first ones, and the rest as lines."""
    groups, left = [], MAX_PICTURES
    for survey in surveys:
        finder = Finder(survey)
        for kind, count in survey.counts.most_common():
            pictures, lines = [], []
            for finding in [finding for finding in survey.findings if finding.kind == kind]:
                place = finder.find(finding) if left and len(pictures) < MAX_OF_KIND else None
                address = place and picture(*place, boxes=box_of(finding, *place[1:]), labels=[1], colors=[MARK],
                                            texts=[""])
                if address:
                    left -= 1
                    pictures.append((address, short(finding)))
                elif len(lines) < MAX_LISTED:
                    lines.append(short(finding))
            groups.append({"split": survey.name, "kind": kind, "count": count, "pictures": pictures, "lines": lines,
                           "note": kind in NOTES, "more": count - len(pictures) - len(lines)})
    return groups


def short(finding: Finding) -> str:
    """A finding in one line, with the name of its file alone."""
    return str(finding._replace(file=os.path.basename(finding.file)))


def picture(path: str, height: int, width: int, *, boxes: np.ndarray, labels: Sequence[int],
            **drawing: Sequence) -> str:
    """The address of an image with boxes, "" where it cannot be read. drawing: of draw_boxes."""
    try:
        pixels = fit_into(read_image(path, height, width), SIDE, SIDE)
    except DataError:
        return ""
    return data_uri(encode_jpeg(draw_boxes(pixels, boxes, labels, **drawing), MAX_BYTES), "jpeg")
