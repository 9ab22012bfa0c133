"""What a report says of an evaluation beside its averages: errors by kind, by score and by the size of the objects."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from src.boxes import area
from src.evaluation.mistakes import Judged, confusion, judge
from src.evaluation.thresholds import ScoreCurves, choose_scores, score_curves, scores_by_class
from src.metrics import Evaluated

# sides of squares in pixels, from octave to octave in halves
SIDES = (0, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, np.inf)
MIN_SIZE_BOXES = 10  # of a range of sizes; one with fewer joins the next
RELIABLE = 0.8       # share of the objects that a detector finds from "its" size on
MIN_SHARE = 0.7      # and in each single range above
# TIDE (Bolya et al., ECCV 2020), section 2: the kinds of errors, in words
ERRORS = {"Bkg": "nothing there", "Miss": "missed", "Loc": "box not tight", "Cls": "wrong class",
          "Both": "wrong class, not tight", "Dupe": "found twice"}


class SizeRange(NamedTuple):
    """The objects of a range of sizes: sides of squares of their area, in pixels of the image."""
    low: float
    high: float
    boxes: int
    found: int  # with the right class

    @property
    def share(self) -> float:
        """The share that is found."""
        return self.found / self.boxes

    @property
    def name(self) -> str:
        """The range in pixels, in short."""
        if np.isinf(self.high):
            return f"{self.low:g}+"
        return f"{self.low:g}-{self.high:g}" if self.low else f"<{self.high:g}"


class Diagnosis(NamedTuple):
    """What is right and wrong with the detections of a split."""
    classes: list[str]
    curves: ScoreCurves        # over all scores
    chosen: dict               # of choose_scores
    limits: np.ndarray         # [C] scores from which on boxes count in the fields that follow
    images: list[Judged]
    matrix: np.ndarray         # [C + 1, C + 1] confusion
    sizes: list[SizeRange]
    precision: np.ndarray      # [10, 101, C, 4] of metrics.Evaluated
    errors: dict[str, float]   # TIDE: the AP50 that each of ERRORS costs; {} with pycocotools
    bins: list[dict]           # hotcoco's calibration in ten ranges of scores; [] with pycocotools

    @property
    def right(self) -> int:
        """How many objects are found with the right class."""
        return int(np.trace(self.matrix))

    @property
    def boxes(self) -> int:
        """How many objects there are."""
        return int(self.matrix[1:].sum())

    @property
    def found(self) -> int:
        """How many boxes are found."""
        return int(self.matrix[:, 1:].sum())


def diagnose(truth: dict, detections: list[dict], evaluated: Evaluated, *, draw_score: float,
             typed: bool = False) -> Diagnosis:
    """Looks at the detections of a split, which a low score leaves in. truth: COCO dict; detections: COCO results;
    evaluated: of both.

    The single boxes are judged from the scores of best F1 on; from draw_score where it is typed, or nothing is right.
    """
    classes = evaluated.classes
    curves = score_curves(judge(truth, detections), len(classes))
    chosen = choose_scores(curves, classes)
    scores = chosen if chosen and not typed else {"draw_score": draw_score, "class_scores": {}}
    limits = scores_by_class(classes, scores["draw_score"], scores["class_scores"])
    images = judge(truth, detections, min_scores=limits)
    errors, bins = {}, []
    if evaluated.engine == "hotcoco" and detections and truth["annotations"]:
        lost = evaluated.run.tide_errors()["delta_ap"]
        errors, bins = {name: lost[name] for name in ERRORS}, evaluated.run.calibration()["bins"]
    return Diagnosis(classes, curves, chosen, limits, images, confusion(images, len(classes)), size_ranges(images),
                     evaluated.precision, errors, bins)


def size_ranges(images: Sequence[Judged]) -> list[SizeRange]:
    """How many objects of each size are found."""
    sides, right = [np.zeros(0)], [np.zeros(0, bool)]
    for judged in images:
        counted = judged.true.weights > 0
        pixels = judged.image["width"] * judged.image["height"]
        found = np.zeros(len(counted), bool)
        found[[true for true, _ in judged.mistakes.right]] = True
        sides.append(np.sqrt(area(judged.true.boxes) * pixels)[counted])
        right.append(found[counted])
    return group_sizes(np.concatenate(sides), np.concatenate(right))


def group_sizes(sides: np.ndarray, right: np.ndarray) -> list[SizeRange]:
    """Ranges of sides [N], small ones first, with MIN_SIZE_BOXES or more where there are so many. right: [N] bool."""
    ranges, low = [], 0.0
    for high in SIDES[1:]:
        inside = (sides >= low) & (sides < high)
        if inside.sum() >= MIN_SIZE_BOXES:
            ranges.append(SizeRange(low, high, int(inside.sum()), int(right[inside].sum())))
            low = high
    rest = sides >= low
    if rest.any():
        last = ranges.pop() if ranges else SizeRange(0.0, np.inf, 0, 0)
        ranges.append(SizeRange(last.low, np.inf, last.boxes + int(rest.sum()), last.found + int(right[rest].sum())))
    return ranges


def reliable_from(sizes: Sequence[SizeRange]) -> int | None:
    """The range from which on RELIABLE of the objects are found, in it, and in all from it on; None for none."""
    for index, first in enumerate(sizes):
        above = sizes[index:]
        worst = min(each.share for each in above)
        if min(first.share, share_found(above)) >= RELIABLE and worst >= MIN_SHARE:
            return index
    return None


def share_found(sizes: Sequence[SizeRange]) -> float:
    """The share of the objects of some ranges that is found."""
    return sum(each.found for each in sizes) / sum(each.boxes for each in sizes)


def class_precision(diagnosis: Diagnosis, size: int = 0) -> np.ndarray:
    """AP [C] of the classes for all boxes (0), small (1), medium (2) or large ones (3); NaN without a box."""
    values = diagnosis.precision[..., size]                      # [10, 101, C]
    return np.where(values.max(axis=(0, 1)) < 0, np.nan, values.mean(axis=(0, 1)))


def confused_pairs(diagnosis: Diagnosis) -> list[tuple[str, str, int]]:
    """(what is there, what it is taken for, how often), the most frequent first."""
    inner = diagnosis.matrix[1:, 1:] * (1 - np.eye(len(diagnosis.classes), dtype=int))
    rows, columns = np.nonzero(inner)
    pairs = [(diagnosis.classes[row], diagnosis.classes[column], int(inner[row, column]))
             for row, column in zip(rows, columns)]
    return sorted(pairs, key=lambda pair: -pair[2])
