"""An evaluation in sentences that a reader needs no training for."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from src.evaluation.diagnosis import RELIABLE, Diagnosis, SizeRange, confused_pairs, reliable_from, share_found
from src.evaluation.thresholds import MIN_BOXES

MIN_PAIRS = 3         # a class is taken for another at least so often that it is worth a sentence
SELDOM = 0.02         # share of the objects that are confused
MAX_NAMES = 3         # of classes in a sentence
WELL_CALIBRATED = 0.1  # mean distance of score and share of right boxes, over ranges of scores
MIN_SCORED = 10        # boxes of a range of scores; fewer do not tell


def summarize(diagnosis: Diagnosis) -> list[str]:
    """What is found and what is not, what is confused, from which size on, and what the scores are worth."""
    if not diagnosis.boxes:
        return ["No object is marked in these images, so nothing can be said about what the model finds."]
    if not diagnosis.found:
        return [f"The model finds none of the {diagnosis.boxes} objects with a score that counts. Train longer, or "
                "look at a lower score."]
    sentences = [what_is_found(diagnosis), by_class(diagnosis), what_is_confused(diagnosis),
                 size_words(diagnosis.sizes), score_words(diagnosis), calibration_words(diagnosis.bins)]
    return [sentence for sentence in sentences if sentence]


def what_is_found(diagnosis: Diagnosis) -> str:
    """The shares that are found, and that are wrong."""
    boxes, right, found = diagnosis.boxes, diagnosis.right, diagnosis.found
    return (f"The model finds {right} of {boxes} objects ({right / boxes:.0%}). Of the {found} boxes it draws, "
            f"{right} are right and {found - right} are wrong ({(found - right) / found:.0%}).")


def by_class(diagnosis: Diagnosis) -> str:
    """The classes of which the largest and the smallest share is found, "" for a single class."""
    boxes, right = diagnosis.matrix[1:].sum(axis=1), np.diag(diagnosis.matrix)[1:]
    shares = {name: hits / count for name, hits, count in zip(diagnosis.classes, right, boxes) if count >= MIN_BOXES}
    if len(shares) < 2:
        return ""
    best, worst = max(shares, key=shares.get), min(shares, key=shares.get)
    return f"It is best at {best} ({shares[best]:.0%} found) and weakest at {worst} ({shares[worst]:.0%})."


def what_is_confused(diagnosis: Diagnosis) -> str:
    """The most frequent confusions, or that there are none."""
    if len(diagnosis.classes) < 2:
        return ""
    pairs = [f"{there} for {taken} ({count} times)" for there, taken, count in confused_pairs(diagnosis)
             if count >= MIN_PAIRS]
    if pairs:
        return f"It takes {join_words(pairs[:MAX_NAMES])}."
    count = sum(pair[2] for pair in confused_pairs(diagnosis))
    if not count:
        return "It never confuses classes."
    if count <= SELDOM * diagnosis.boxes:
        return f"It hardly ever confuses classes ({count} of {diagnosis.boxes} objects)."
    return f"It takes {count} object(s) for another class, but no class for one certain other class often."


def size_words(sizes: Sequence[SizeRange]) -> str:
    """From which size on objects are found, "" where there are too few to tell sizes apart."""
    if len(sizes) < 2:
        return ""
    index = reliable_from(sizes)
    if index is None:
        best = max(sizes, key=lambda each: each.share)
        return (f"At no size does it find {RELIABLE:.0%} of the objects; it finds most of those {in_words(best)} "
                f"({best.share:.0%}).")
    if index == 0:
        return "It finds small objects as well as large ones."
    below, above = sizes[:index], sizes[index:]
    side = f"{above[0].low:g}"
    return (f"It is reliable from a size of about {side} x {side} pixels on: it finds {share_found(above):.0%} of the "
            f"objects of that size or larger, and {share_found(below):.0%} of the smaller ones.")


def in_words(each: SizeRange) -> str:
    """A range of sizes as a part of a sentence."""
    if np.isinf(each.high):
        return f"from {each.low:g} pixels on"
    return f"of {each.low:g} to {each.high:g} pixels" if each.low else f"below {each.high:g} pixels"


def score_words(diagnosis: Diagnosis) -> str:
    """Which score to use."""
    if not diagnosis.chosen:
        return "Too few of its boxes are right, at any score, to name one to use."
    score, own = diagnosis.chosen["draw_score"], diagnosis.chosen["class_scores"]
    text = f"Missed and wrong boxes are in the best balance when boxes with a score of {score:g} or more are shown"
    different = [f"{value:g} for {name}" for name, value in own.items() if value != score]
    if not different:
        return f"{text}."
    return f"{text}, and class by class {join_words(different) if len(different) <= MAX_NAMES else 'as below'}."


def calibration_words(bins: Sequence[dict]) -> str:
    """Whether a score is the probability that the box is right, "" where not known.

    The ranges of scores count alike: most boxes have a score near 0, and few of them are right, in any model.
    """
    gaps = np.array([each["avg_confidence"] - each["avg_accuracy"] for each in bins if each["count"] >= MIN_SCORED])
    if not len(gaps):
        return ""
    if np.abs(gaps).mean() <= WELL_CALIBRATED:
        return "A score says about how probable it is that the box is right."
    high = gaps.mean() > 0
    return f"Do not read a score as a probability: boxes are right {'less' if high else 'more'} often than it says."


def join_words(words: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
