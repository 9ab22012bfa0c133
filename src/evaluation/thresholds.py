"""From which score on the boxes of a detector are worth showing: precision, recall and F1 over the score."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from src.evaluation.mistakes import Judged

SCORES = np.arange(1, 100) / 100  # that are tried
MIN_BOXES = 10  # a class with fewer true boxes gets no score of its own: that would be chance
MIN_F1 = 0.2    # below, the best score is so low that nearly all that it lets through is wrong


class ScoreCurves(NamedTuple):
    """What is found from each of SCORES on, by class and, in the last column, of all classes."""
    right: np.ndarray  # [99, C + 1] found boxes of the right class, IoU of MIN_IOU or more
    found: np.ndarray  # [99, C + 1] found boxes
    boxes: np.ndarray  # [C + 1] true boxes

    @property
    def precision(self) -> np.ndarray:
        """[99, C + 1] 0..1, NaN where nothing is found."""
        return np.where(self.found > 0, self.right / np.maximum(self.found, 1), np.nan)

    @property
    def recall(self) -> np.ndarray:
        """[99, C + 1] 0..1, 0 where nothing is there."""
        return self.right / np.maximum(self.boxes, 1)

    @property
    def f1(self) -> np.ndarray:
        """[99, C + 1] harmonic mean of both, 0..1."""
        return 2 * self.right / np.maximum(self.found + self.boxes, 1)


class Found(NamedTuple):
    """All boxes that were found, those on a crowd or a difficult box left out."""
    scores: np.ndarray  # [D]
    labels: np.ndarray  # [D] 1..C
    hits: np.ndarray    # [D] bool: right


def collect_found(images: Sequence[Judged]) -> Found:
    """The found boxes of images that were judged without a least score: a higher one changes no box that it leaves."""
    rows = [(judged.found.weights[index], judged.found.labels[index], hit) for judged in images
            for hit, indices in ((True, [found for _, found in judged.mistakes.right]),
                                 (False, [found for _, found in judged.mistakes.confused] + judged.mistakes.false))
            for index in indices]
    scores, labels, hits = np.array(rows, float).reshape(-1, 3).T
    return Found(scores, labels.astype(int), hits.astype(bool))


def score_curves(images: Sequence[Judged], classes: int) -> ScoreCurves:
    """The curves of images that were judged without a least score. classes: how many there are."""
    found = collect_found(images)
    true = [judged.true.labels[judged.true.weights > 0] for judged in images]
    boxes = np.bincount(np.concatenate([np.zeros(0, int), *true]), minlength=classes + 1)[1:]
    counts = np.zeros((2, len(SCORES), classes), int)
    # the number of SCORES that a box reaches; 1e-9: 0.29 * 100 is a little less than 29
    reached = np.searchsorted(SCORES, found.scores + 1e-9, side="right")
    for label in range(1, classes + 1):
        for which, chosen in enumerate((found.hits & (found.labels == label), found.labels == label)):
            ends = np.bincount(reached[chosen], minlength=len(SCORES) + 1)
            counts[which, :, label - 1] = ends[::-1].cumsum()[::-1][1:]
    right, all_found = (np.column_stack([count, count.sum(axis=1)]) for count in counts)
    return ScoreCurves(right, all_found, np.append(boxes, boxes.sum()))


def choose_scores(curves: ScoreCurves, classes: Sequence[str]) -> dict:
    """The scores of best F1: {"draw_score": of all boxes, "class_scores": {class: its own}}; {} where hardly any box
    is right (an F1 below MIN_F1).

    Of several that are equally good the middle one.
    """
    everything = np.flatnonzero(curves.found[:, -1] == curves.found[0, -1])
    first = everything[-1]  # lower scores than any that was found are not worth naming
    f1, chosen = curves.f1[first:], []
    best = f1.max(axis=0)                                                     # [C + 1]
    for column, value in enumerate(best):
        ties = np.flatnonzero(f1[:, column] >= value - 1e-9)
        chosen.append(float(SCORES[first + ties[len(ties) // 2]]))
    if best[-1] < MIN_F1:
        return {}
    own = {name: score for name, score, boxes, value in zip(classes, chosen, curves.boxes, best)
           if boxes >= MIN_BOXES and value >= MIN_F1}
    return {"draw_score": chosen[-1], "class_scores": own}


def scores_by_class(classes: Sequence[str], draw_score: float, class_scores: Mapping[str, float]) -> np.ndarray:
    """The least score of each class, [C]: its own, or else draw_score."""
    return np.array([class_scores.get(name, draw_score) for name in classes], float)
