"""Which rows an epoch shows and in which order; all is drawn from one generator, of (seed, epoch)."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator


class Samples(NamedTuple):
    """The samples of an epoch in order."""
    rows: np.ndarray    # [n] int, row numbers
    copies: np.ndarray  # [n] int, how often the same row was listed before: each time it is augmented differently


def repeat_factors(classes: list[np.ndarray], threshold: float) -> tuple[np.ndarray, dict[int, float]]:
    """How often an epoch shows each image on average, [n] float64, at least 1; and the factors above 1 of the classes.

    classes: of each image the different labels [k]. A class in a share f of the images has the factor
    max(1, sqrt(threshold / f)), an image the largest of its classes, and 1 without any.
    Source: LVIS, https://arxiv.org/abs/1908.03195 appendix B.2.
    """
    labels, counts = np.unique(np.concatenate([np.zeros(0, int), *classes]), return_counts=True)
    factors = np.sqrt(threshold * len(classes) / counts)
    of_class = {int(label): float(factor) for label, factor in zip(labels, factors) if factor > 1}
    of_image = [max((of_class.get(int(label), 1.0) for label in found), default=1.0) for found in classes]
    return np.array(of_image), of_class


def epoch_length(factors: np.ndarray) -> int:
    """How many samples draw_samples() gives: the same in every epoch, so that schedules can count steps."""
    return int(np.floor(factors).sum()) + int(np.modf(factors)[0].sum())


def draw_samples(factors: np.ndarray, rng: Generator) -> Samples:
    """Lists each row as often as the whole part of its factor [n], some of them once more, and shuffles all.

    LVIS rounds each factor up with the probability of its fraction, and epochs differ in length. Here the number of
    those rounded up is the sum of the fractions, rounded down. They are drawn by systematic sampling: the fractions
    lie end to end on a line in random order, and equidistant points hit some of them. A row is hit once at most, with a
    probability in proportion to its fraction.
    """
    rows, certain = np.arange(len(factors)), np.floor(factors).astype(int)
    shuffled = rng.permutation(rows)
    ends = np.cumsum(np.modf(factors)[0][shuffled])
    count = epoch_length(factors) - certain.sum()
    points = (np.arange(count) + rng.uniform()) * (ends[-1] / max(count, 1))
    hit = shuffled[np.searchsorted(ends, points)]
    times = certain + np.bincount(hit, minlength=len(rows))
    copies = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)  # 0, 1, .. for each row
    order = rng.permutation(times.sum())
    return Samples(np.repeat(rows, times)[order], copies[order])
