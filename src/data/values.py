"""Values of data files -> numbers, flags and boxes. All raise Unusable for what cannot be one."""
from __future__ import annotations

import math

from src.data.findings import Unusable

MAX_PIXELS = 1e9  # no image is so wide; areas and sums of larger coordinates leave the range of floats
FLAG_WORDS = {"true": True, "yes": True, "false": False, "no": False, "": False}


def to_number(value: object) -> float:
    """A float from a number or its text."""
    try:
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):  # Python reads True as 1, 1_0 as 10
            raise ValueError(value)
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise Unusable(f"{shown(value)} is not a number") from error


def to_flag(value: object) -> bool:
    """Whether a flag is set: of True, 1, "1", "1.0", "true" and their opposites; None: it is not."""
    if isinstance(value, str) and value.strip().lower() in FLAG_WORDS:
        return FLAG_WORDS[value.strip().lower()]
    if value is None or isinstance(value, bool):
        return bool(value)
    return to_number(value) != 0


def to_size(value: object) -> int:
    """Pixels of a side, 0 (ask the image) from anything that is not a number."""
    try:
        return max(int(float(value)), 0)
    except (TypeError, ValueError, OverflowError):
        return 0


def to_pixels(numbers: object, reason: str, *, corners: bool) -> tuple[float, ...]:
    """x1, y1, x2, y2 with `corners`, else x, y, w, h -> x, y, w, h. reason: that they are not four numbers."""
    try:
        x, y, width, height = map(to_number, numbers if isinstance(numbers, (list, tuple)) else ())
    except ValueError as error:  # Unusable is one
        raise Unusable(reason) from error
    if corners:
        width, height = width - x, height - y
    if any(MAX_PIXELS < abs(value) < math.inf for value in (x, y, width, height)):
        raise Unusable(f"{shown(numbers)} lies beyond any image")
    return x, y, width, height


def shown(value: object) -> str:
    """A value as a message shows it: not longer than it helps."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]} .."
