"""What a detector got right and wrong in an image, at one score and one IoU: for people, where AP is one number."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from src.boxes import area, iou
from src.metrics import group_by

MIN_IOU = 0.5     # of a detection with its object
SMALL_SIDE = 0.1  # an object is small below this share of the image's side (square root of its area)


class Objects(NamedTuple):
    """Objects of one image, true or found."""
    boxes: np.ndarray    # [N, 4] x1, y1, x2, y2, fractions of the image
    labels: np.ndarray   # [N] 1..C-1
    weights: np.ndarray  # [N] found: scores; true: 1, or 0 for a crowd or difficult box, which need not be found


class Mistakes(NamedTuple):
    """Indices of the objects of an image by what became of them."""
    right: list[tuple[int, int]]     # (true, found) of one class
    confused: list[tuple[int, int]]  # (true, found) of two classes
    missed: list[int]                # true ones
    false: list[int]                 # found ones: false alarms

    @property
    def count(self) -> int:
        """How many mistakes there are."""
        return len(self.confused) + len(self.missed) + len(self.false)


class Judged(NamedTuple):
    """An image, what is in it, and what was found."""
    image: dict         # of the ground truth
    true: Objects
    found: Objects
    mistakes: Mistakes


def judge(truth: dict, detections: list[dict], *, min_scores: float | Sequence[float] = 0.0) -> list[Judged]:
    """What is right and wrong in each image of a COCO dict.

    detections: COCO results; min_scores: least score of one that counts, one for all classes or [C] in their order.
    """
    labels = {category["id"]: label for label, category in enumerate(truth["categories"], 1)}
    limits = dict(zip(labels, np.broadcast_to(min_scores, len(labels))))
    kept = [box for box in detections if box["score"] >= limits[box["category_id"]]]
    boxes, results, judged = group_by("image_id", truth["annotations"]), group_by("image_id", kept), []
    for image in truth["images"]:
        there, found = boxes[image["id"]], results[image["id"]]
        counts = [float(not box.get("iscrowd") and not box.get("difficult")) for box in there]
        both = [as_objects(items, weights, image=image, labels=labels)
                for items, weights in ((there, counts), (found, [box["score"] for box in found]))]
        judged.append(Judged(image, *both, find_mistakes(*both)))
    return judged


def as_objects(boxes: list[dict], weights: list[float], *, image: dict, labels: dict) -> Objects:
    """COCO boxes of one image as Objects. labels: {category id: label}."""
    corners = np.array([box["bbox"] for box in boxes], float).reshape(-1, 4)  # x, y, w, h in pixels
    corners[:, 2:] += corners[:, :2]
    size = [image["width"], image["height"]] * 2
    return Objects(corners / size, np.array([labels[box["category_id"]] for box in boxes], int), np.array(weights))


def find_mistakes(true: Objects, found: Objects, *, min_iou: float = MIN_IOU) -> Mistakes:
    """Pairs what was found with what is there, the best score first: at first within a class, then across classes.

    A pair overlaps by min_iou or more; each object is paired once. What is found on a true box of weight 0 does
    not count, as in the metrics.
    """
    overlaps = iou(found.boxes, true.boxes)                          # [found, true]
    free = np.asarray(true.weights) > 0                              # [true]
    rest, pairs = np.argsort(-np.asarray(found.weights), kind="stable").tolist(), []
    same = np.asarray(found.labels)[:, None] == np.asarray(true.labels)  # [found, true]
    for allowed in (same, ~same):
        made = []
        for index in list(rest):
            fitting = np.where(allowed[index] & free, overlaps[index], -1.0)
            if len(fitting) and fitting.max() >= min_iou:
                best = int(fitting.argmax())
                made.append((best, index))
                free[best] = False
                rest.remove(index)
        pairs.append(made)
    not_counted = overlaps[:, np.asarray(true.weights) == 0]
    false = [index for index in rest if not (not_counted[index] >= min_iou).any()]
    return Mistakes(right=pairs[0], confused=pairs[1], missed=np.flatnonzero(free).tolist(), false=false)


def add_confusion(matrix: np.ndarray, true: Objects, found: Objects, *, mistakes: Mistakes) -> None:
    """Counts one image into matrix [C, C] of true class (row) and found class (column); 0 stands for nothing."""
    pairs = [(true.labels[row], found.labels[column]) for row, column in (*mistakes.right, *mistakes.confused)]
    pairs += [(true.labels[row], 0) for row in mistakes.missed]
    pairs += [(0, found.labels[column]) for column in mistakes.false]
    for row, column in pairs:
        matrix[row, column] += 1


def confusion(images: Sequence[Judged], classes: int) -> np.ndarray:
    """[classes + 1, classes + 1] of true and found class; 0 stands for nothing."""
    matrix = np.zeros((classes + 1, classes + 1), int)
    for judged in images:
        add_confusion(matrix, judged.true, judged.found, mistakes=judged.mistakes)
    return matrix


def describe_mistakes(true: Objects, found: Objects, *, mistakes: Mistakes, classes: Sequence[str]) -> str:
    """One line on what is wrong, such as "4 of 9 missed (3 of them small), 1 false alarm"."""
    parts = []
    if mistakes.missed:
        small = np.sqrt(area(np.asarray(true.boxes)[mistakes.missed])) < SMALL_SIDE
        note = f" ({small.sum()} of them small)" if small.any() else ""
        parts.append(f"{len(mistakes.missed)} of {np.count_nonzero(true.weights)} missed{note}")
    if mistakes.confused:
        names = sorted({f"{classes[true.labels[row] - 1]} taken for {classes[found.labels[column] - 1]}"
                        for row, column in mistakes.confused})
        parts.append(f"{len(mistakes.confused)} of a wrong class ({', '.join(names)})")
    if mistakes.false:
        parts.append(f"{len(mistakes.false)} false alarm{'s' if len(mistakes.false) > 1 else ''}")
    return ", ".join(parts) or "nothing is wrong"
