"""What a checkpoint or an exported file says of itself, checked: others may have changed or made up such a text."""
from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable
from typing import NamedTuple

from src.errors import DataError

MAX_IMAGE_SIZE, MAX_WIDTH, MAX_CLASSES = 1 << 13, 4, 100_000  # above any network; larger ones fill the memory
MAX_COUNT = 1 << 53                             # a whole number that JSON keeps


class Kind(NamedTuple):
    """What a value may be."""
    words: str
    fits: Callable[[object], bool]


def is_number(value: object, low: float, high: float) -> bool:
    """Whether a value is a number in this range, not a truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def is_count(value: object) -> bool:
    """Whether a value is a whole number from 0 on."""
    return isinstance(value, int) and is_number(value, 0, MAX_COUNT)


def is_list(value: object, fits: Callable[[object], bool]) -> bool:
    """Whether a value is a list of such values."""
    return isinstance(value, list) and all(map(fits, value))


def is_classes(value: object) -> bool:
    """Whether a value is a list of names, no two the same."""
    return is_list(value, is_text) and len(value) <= MAX_CLASSES and len(set(value)) == len(value)


def is_text(value: object) -> bool:
    """Whether a value is a text."""
    return isinstance(value, str)


def is_shape(value: object) -> bool:
    """Whether a value is the width and height of an anchor in pixels."""
    return is_list(value, lambda side: is_number(side, 1e-3, MAX_IMAGE_SIZE)) and len(value) == 2


def is_fraction(value: object) -> bool:
    """Whether a value lies in 0..1."""
    return is_number(value, 0, 1)


TEXT, FLAG, COUNT = Kind("a text", is_text), Kind("true or false", lambda value: isinstance(value, bool)), Kind(
    "a whole number from 0 on", is_count)
FRACTION, DICT = Kind("a number from 0 to 1", is_fraction), Kind("a map", lambda value: isinstance(value, dict))
POSITIVE = Kind("a whole number from 1 on", lambda value: is_count(value) and value > 0)
RGB = Kind("three numbers", lambda value: is_list(value, lambda part: is_number(part, -1e6, 1e6)) and len(value) == 3)
KINDS = {
    "model": TEXT, "mindspore": TEXT, "version": TEXT, "clip_anchors": FLAG, "raw": FLAG, "mean": RGB,
    "image_size": Kind(f"a whole number from 1 to {MAX_IMAGE_SIZE}", lambda value: is_count(value) and
                       1 <= value <= MAX_IMAGE_SIZE),
    "width": Kind(f"a number from 0.01 to {MAX_WIDTH}", lambda value: is_number(value, 0.01, MAX_WIDTH)),
    "anchor_shapes": Kind("a list of [width, height] for each level", lambda value: is_list(
        value, lambda level: is_list(level, is_shape))),
    "classes": Kind("a list of names, each once", is_classes),
    "std": Kind("three numbers that are not 0", lambda value: RGB.fits(value) and all(value)),
    "score": Kind("sigmoid or softmax", lambda value: value in ("sigmoid", "softmax")),
    "resize": Kind("bilinear, antialias or tensorflow", lambda value: value in ("bilinear", "antialias", "tensorflow")),
    "min_score": FRACTION, "nms_threshold": FRACTION, "draw_score": FRACTION, "nms_candidates": POSITIVE,
    "max_boxes": POSITIVE, "batch_size": COUNT, "inputs": DICT, "options": DICT, "plan": DICT,
    "class_scores": Kind("a map from names to numbers from 0 to 1", lambda value: isinstance(value, dict) and
                         all(map(is_fraction, value.values()))),
    "steps_done": COUNT, "since_best": COUNT, "steps_per_epoch": POSITIVE, "settled": FLAG,
    "best": Kind("a number", lambda value: is_number(value, -math.inf, math.inf)),
}
# what a program needs of an exported file, and of a checkpoint that a run goes on from
EXPORTED = ("model", "image_size", "classes", "min_score", "nms_threshold", "nms_candidates", "max_boxes", "mindspore",
            "batch_size", "inputs", "raw")


def read_meta(text: str, path: str, needed: tuple[str, ...] = ()) -> dict:
    """What a file says of itself, from its JSON. path: of the file, for messages. Raises DataError."""
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"what '{path}' says of itself is damaged: it is not JSON ({str(error)[:100]}); use another "
                        "one") from error
    if not isinstance(meta, dict):
        raise DataError(f"what '{path}' says of itself is damaged: it is {reprlib.repr(meta)}, not a map; use another "
                        "one")
    for name in needed:
        if name not in meta:
            raise DataError(f"'{path}' does not say its '{name}'; it is damaged, or of another program")
    for name, kind in KINDS.items():
        if name in meta and not kind.fits(meta[name]):
            raise DataError(f"'{path}' says of itself {name}={reprlib.repr(meta[name])}: expected {kind.words}; it is "
                            "damaged or was changed by hand")
    return meta
