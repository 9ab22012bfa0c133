"""Which rows an epoch shows, in which order and mosaics; all is drawn from one generator, of (seed, epoch)."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator


class Samples(NamedTuple):
    """The samples of an epoch in order."""
    rows: np.ndarray      # [n] int, row numbers
    copies: np.ndarray    # [n] int, how often the same row was listed before: each time it is augmented differently
    partners: np.ndarray  # [n, 3] int, the other rows of a mosaic, -1 for an image that stays alone; or [n, 0]


@dataclass
class Sampler:
    """Draws the samples of an epoch, the same on every process and for every batch size."""
    seed: int
    rows: int                          # how many there are
    factors: np.ndarray | None = None  # [rows], of repeat_factors(); None: every row comes once
    mosaic: float = 0.0                # share of the samples that get partners
    mosaic_epochs: float = math.inf    # in the first ones only

    @property
    def length(self) -> int:
        """Samples of an epoch, in every epoch as many, so that schedules can count steps."""
        return self.rows if self.factors is None else repeated_length(self.factors)

    def samples(self, epoch: int) -> Samples:
        """The samples of an epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        samples = list_once(self.rows, rng) if self.factors is None else list_repeated(self.factors, rng)
        if self.mosaic and epoch < self.mosaic_epochs:
            return with_partners(samples, self.mosaic, rng)
        return samples


def list_once(rows: int, rng: Generator) -> Samples:
    """Lists every row once, in random order."""
    return Samples(rng.permutation(rows), np.zeros(rows, int), np.zeros((rows, 0), int))


def with_partners(samples: Samples, share: float, rng: Generator) -> Samples:
    """Makes a share of the samples mosaics; any rows of the epoch are their partners, a row with itself too."""
    count = len(samples.rows)
    partners = samples.rows[rng.integers(count, size=(count, 3))]
    partners[rng.uniform(size=count) >= share] = -1
    return samples._replace(partners=partners)


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


def repeated_length(factors: np.ndarray) -> int:
    """How many samples list_repeated() gives."""
    return int(np.floor(factors).sum()) + int(np.modf(factors)[0].sum())


def list_repeated(factors: np.ndarray, rng: Generator) -> Samples:
    """Lists each row as often as the whole part of its factor [n], some of them once more, and shuffles all.

    LVIS rounds each factor up with the probability of its fraction, and epochs differ in length. Here the number of
    those rounded up is the sum of the fractions, rounded down. They are drawn by systematic sampling: the fractions
    lie end to end on a line in random order, and equidistant points hit some of them. A row is hit once at most, with a
    probability in proportion to its fraction.
    """
    rows, certain = np.arange(len(factors)), np.floor(factors).astype(int)
    shuffled = rng.permutation(rows)
    ends = np.cumsum(np.modf(factors)[0][shuffled])
    count = repeated_length(factors) - certain.sum()
    points = (np.arange(count) + rng.uniform()) * (ends[-1] / max(count, 1))
    hit = shuffled[np.searchsorted(ends, points)]
    times = certain + np.bincount(hit, minlength=len(rows))
    copies = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)  # 0, 1, .. for each row
    order = rng.permutation(times.sum())
    return Samples(np.repeat(rows, times)[order], copies[order], np.zeros((len(order), 0), int))
