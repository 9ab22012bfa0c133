"""What was found in a picture, and which of it is wanted."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from src.classes import nearest
from src.errors import OptionError
from src.evaluation.thresholds import scores_by_class
from src.recipes import read_commas, to_float
from src.text import listed

SCORE_FORM = "expected a score such as 0.5, or scores of classes such as person:0.3,car:0.6, or both"


class Detections(NamedTuple):
    """What was found in a picture, the best score first."""
    boxes: np.ndarray   # [n, 4] float32, x1, y1, x2, y2 as fractions of the picture
    scores: np.ndarray  # [n] float32
    labels: np.ndarray  # [n] int32, 1..C-1

    def select(self, chosen: np.ndarray) -> Detections:
        """Some of them. chosen: [n] bool, or indices."""
        return Detections(*(part[chosen] for part in self))

    def from_scores(self, scores: np.ndarray) -> Detections:
        """Those with at least the score of their class. scores: [C]."""
        return self.select(self.scores >= scores[self.labels - 1])


def read_scores(text: str, classes: Sequence[str], stored: Mapping) -> dict:
    """"0.5,car:0.6" -> {"draw_score": 0.5, "class_scores": {"car": 0.6}}.

    A score without a class counts for all others; where there is none, those of stored do. Raises OptionError.
    """
    everywhere, own = None, {}
    for item in read_commas(text):
        name, _, number = item.rpartition(":")
        try:
            score = to_float(number)
        except ValueError:
            score = -1.0
        if not 0 <= score <= 1 or (not name and everywhere is not None):
            raise OptionError(f"--score_threshold={text}: {SCORE_FORM}, from 0 to 1")
        if name:
            own[known_class(name, classes, "score_threshold")] = score
        else:
            everywhere = score
    if everywhere is None:
        return {"draw_score": stored["draw_score"], "class_scores": {**stored["class_scores"], **own}}
    return {"draw_score": everywhere, "class_scores": own}


def shown_scores(classes: Sequence[str], only: Sequence[str], stored: Mapping) -> np.ndarray:
    """The least score of each class, [C]: its own or draw_score of stored, infinity where it is not among only.

    only: names, [] for all. Raises OptionError.
    """
    wanted = {known_class(name, classes, "only_classes") for name in only} or set(classes)
    scores = scores_by_class(classes, stored["draw_score"], stored["class_scores"])
    return np.where([name in wanted for name in classes], scores, np.inf)


def score_words(scores: np.ndarray) -> str:
    """What the least scores of classes [C] are, in words."""
    low, high = scores.min(), np.max(scores, initial=0, where=np.isfinite(scores))
    if low == high:
        return f"with a score of at least {low:g} (--draw_score)"
    return f"with at least the score of their class ({low:g} to {high:g})"


def known_class(name: str, classes: Sequence[str], option: str) -> str:
    """A class that a user named. Raises OptionError where the model does not know it."""
    if name in classes:
        return name
    near = nearest(name, classes)
    hint = f"did you mean '{near}'? " if near else ""
    raise OptionError(f"--{option}: '{name}' is not a class of this model; {hint}it knows {listed(classes)}")
