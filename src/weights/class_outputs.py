"""Outputs of a detector by class: from the list of classes of a file to another list."""
from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from src.classes import COCO_CATEGORY_IDS, COCO_CLASSES, VOC_CLASSES
from src.text import wrap

CHANNELS = {81: COCO_CLASSES, 91: COCO_CLASSES, 21: VOC_CLASSES}  # who has so many, with the background
# four classes of VOC have other names in COCO
COCO_WORDS = {"aeroplane": "airplane", "motorbike": "motorcycle", "sofa": "couch", "tvmonitor": "tv"}


class ClassMatch(NamedTuple):
    """Which classes of a network a file knows."""
    theirs: Sequence[str]                # classes of the file, without the background
    ours: Sequence[str]                  # classes of the network
    pairs: Sequence[tuple[int, int]]     # places of the same class in both, from 0

    def known(self) -> list[str]:
        """The shared names, with that of the file where it is written differently."""
        names = ((self.theirs[their], self.ours[our]) for their, our in self.pairs)
        return [our if our == their else f"{our} ({their} in the file)" for their, our in names]

    def new(self) -> list[str]:
        """The names that the file does not know."""
        known = {our for _, our in self.pairs}
        return [name for our, name in enumerate(self.ours) if our not in known]


def match_classes(theirs: Sequence[str], ours: Sequence[str]) -> ClassMatch:
    """Pairs classes of the same name, whatever its case, spaces and hyphens, and VOC's words with COCO's."""
    places = {plain_name(name): place for place, name in reversed(list(enumerate(theirs)))}
    found = [(places.get(plain_name(name)), place) for place, name in enumerate(ours)]
    return ClassMatch(theirs, ours, [pair for pair in found if pair[0] is not None])


def words_of_classes(match: ClassMatch, *, by_name: bool) -> list[str]:
    """Lines of a report. by_name: whether the outputs were taken by the names of the classes."""
    known, new = ", ".join(match.known()), ", ".join(match.new())
    if by_name:
        return [wrap(f"  outputs kept ({len(match.pairs)}): {known}", indent="    "),
                wrap(f"  new outputs ({len(match.new())}): {new or '-'}", indent="    ")]
    if not match.pairs or list(match.theirs) == list(match.ours):
        return []
    return [wrap(f"  note: the file knows {known}; --filter_weight=True keeps their outputs, by name", indent="    ")]


def plain_name(name: str) -> str:
    """A class name as it is compared."""
    plain = re.sub(r"[\s_-]+", "", name.casefold())
    return COCO_WORDS.get(plain, plain)


def take_outputs(theirs: np.ndarray, ours: np.ndarray, match: ClassMatch) -> np.ndarray | None:
    """A class layer [shapes * classes, ..] of the network with the file's outputs of the shared classes and background.

    theirs: the same layer of the file, background first, shape-major; ours: its present weights. None where the layers
    differ in more than their classes.
    """
    shapes = len(ours) // (len(match.ours) + 1)
    if not theirs.ndim or len(theirs) % shapes or theirs.shape[1:] != ours.shape[1:]:
        return None
    rows = used_channels(theirs.reshape(shapes, -1, *theirs.shape[1:]))  # [shapes, classes, ..]
    if rows.shape[1] != len(match.theirs) + 1:
        return None
    taken = ours.reshape(shapes, -1, *ours.shape[1:]).copy()
    for their, our in [(-1, -1), *match.pairs]:  # place -1 is the background, in front
        taken[:, our + 1] = rows[:, their + 1]
    return taken.reshape(ours.shape)


def used_channels(rows: np.ndarray) -> np.ndarray:
    """Classes [shapes, 91, ..] by COCO's ids, which have gaps -> the background and the 80 used ones; others stay."""
    return rows[:, [0, *COCO_CATEGORY_IDS]] if rows.shape[1] == COCO_CATEGORY_IDS[-1] + 1 else rows
