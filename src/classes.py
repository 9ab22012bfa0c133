"""Class names of the usual data sets, in label order: the i-th (from 1) has label i, background is 0, not listed."""
from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from src.errors import OptionError
from src.text import one_line

# by category id; the ids 1..90 of the annotation files have ten gaps, the names have none
COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
    "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed",
    "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven",
    "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush")
COCO_CATEGORY_IDS = tuple(number for number in range(1, 91)
                          if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")
NAMED = {"coco": COCO_CLASSES, "voc": VOC_CLASSES}


def named_classes(names: Iterable[str]) -> list[str]:
    """Names that a user typed; ["coco"] and ["voc"] stand for the lists of these data sets. Raises OptionError.

    For typed names only: in data and in a checkpoint `coco` is a class like others.
    """
    names = [one_line(str(name)) for name in names]
    if len(names) == 1 and names[0] in NAMED:
        return list(NAMED[names[0]])
    refuse_background(names)
    return checked_classes(names)


def checked_classes(names: Iterable[str]) -> list[str]:
    """Names of data, a checkpoint or resolved options, as they are; a single name may be any. Raises OptionError."""
    names = [str(name) for name in names]
    if len(names) > 1:
        refuse_background(names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionError(f"--classes names {', '.join(map(repr, twice))} more than once")
    return names


def refuse_background(names: list[str]) -> None:
    """Raises OptionError where a list names the background."""
    if any(name.lower() == "background" for name in names):
        raise OptionError("--classes holds 'background'; background is implicit: leave it out")


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The known name most like `name`, in upper or lower case, or None."""
    lower = {known.lower(): known for known in reversed(names)}
    return lower.get(next(iter(difflib.get_close_matches(name.lower(), lower, 1, 0.6)), None))
