"""Large pictures in overlapping tiles, for objects that are small in them: where the tiles lie, and one list of boxes.

The network also sees the whole picture, for objects that are larger than a tile.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from src.boxes import area, paired_iou
from src.errors import OptionError
from src.inference.found import Detections

OVERLAP = 0.2  # share of a tile's side that its neighbour has too, as in SAHI: smaller objects are whole in one tile
BORDER = 0.02  # share of a tile's side: a box that ends so near to another tile may go on there
NESTED, QUARTER = 0.9, 0.25  # of two windows' boxes: share of the smaller one in the larger one, and of its area
MAX_TILES = 64
WHOLE = np.array([[0.0, 0.0, 1.0, 1.0]])  # the window of a picture without tiles


def read_tiles(text: str) -> np.ndarray:
    """The windows of "3x2" (columns x rows), as tile_windows() gives them; of "" the whole picture. Raises OptionError.
    """
    found = re.fullmatch(r"(\d+)x(\d+)", text or "1x1")
    columns, rows = map(int, found.groups()) if found else (0, 0)
    if not 1 <= columns * rows <= MAX_TILES:
        raise OptionError(f"--tiles={text}: expected columns x rows such as 2x2, together at most {MAX_TILES}")
    return tile_windows(columns, rows)


def tile_windows(columns: int, rows: int) -> np.ndarray:
    """All of a picture and then its tiles row by row, [1 + n, 4] x1, y1, x2, y2 as fractions; for 1, 1 only the former.
    """
    tiles = [[x1, y1, x2, y2] for y1, y2 in spans(rows) for x1, x2 in spans(columns)]
    return np.array([*WHOLE, *(tiles if len(tiles) > 1 else [])])


def batch_size(limit: int, windows: int, pictures: int | None) -> int:
    """How many windows the network shall take at a time: all of as many pictures as stay within the limit.

    pictures: how many there are, None where that is not known.
    """
    at_a_time = max(limit // windows, 1)
    return min(limit, windows * min(at_a_time, pictures or at_a_time))


def spans(count: int) -> list[tuple[float, float]]:
    """Begin and end of so many equal parts of 0..1 that overlap."""
    side = 1 / (count - (count - 1) * OVERLAP)
    return [(start, start + side) for start in np.arange(count) * side * (1 - OVERLAP)]


def cut(pixels: np.ndarray, windows: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The parts of a picture [H, W, 3] in windows [n, 4], and the windows as they are in whole pixels."""
    height, width = pixels.shape[:2]
    size = np.array([width, height, width, height])
    corners = np.clip(np.rint(windows * size), 0, size).astype(int)
    corners[:, :2] = np.minimum(corners[:, :2], size[:2] - 1)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)  # a picture may have fewer pixels than tiles
    return [pixels[y1:y2, x1:x2] for x1, y1, x2, y2 in corners.tolist()], corners / size


def merge(found: Sequence[Detections], windows: np.ndarray, thresholds: Mapping) -> Detections:
    """What was found in the windows [n, 4] of a picture as one list, the best score first, at most max_boxes.

    Of two boxes of a class with a larger IoU than nms_threshold the weaker goes; of different windows also where one
    lies in the other and is at least a quarter as large: an object that is seen at two sizes gets boxes that differ
    more. A box that its tile's border cuts off goes where more than nms_threshold of it lies in another box of its
    class, whatever their scores. thresholds: holds max_boxes and nms_threshold.
    """
    if len(found) == 1:
        return found[0]
    sizes = np.tile(windows[:, 2:] - windows[:, :2], 2)                                # [n, 4]
    boxes = np.concatenate([part.boxes * size + np.tile(window[:2], 2)
                            for part, size, window in zip(found, sizes, windows)])     # [N, 4]
    is_cut = np.concatenate([touches(part.boxes, window) for part, window in zip(found, windows)])  # [N]
    origin = np.repeat(np.arange(len(found)), [len(part.scores) for part in found])                 # [N]
    scores = np.concatenate([part.scores for part in found])
    labels = np.concatenate([part.labels for part in found])
    kept = np.zeros(len(boxes), bool)
    for index in np.lexsort((-scores, is_cut)):
        rivals = np.flatnonzero(kept & (labels == labels[index]))
        share = share_inside if is_cut[index] else paired_iou
        goes = share(boxes[index], boxes[rivals]) > thresholds["nms_threshold"]
        goes |= is_nested(boxes[index], boxes[rivals]) & (origin[rivals] != origin[index])
        kept[index] = not goes.any()
    kept = np.flatnonzero(kept)
    best = kept[np.argsort(-scores[kept], kind="stable")][:thresholds["max_boxes"]]
    return Detections(boxes[best].astype(np.float32), scores[best], labels[best])


def touches(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Which boxes [n, 4], fractions of a window [4], end at a border of it that is not one of the picture: [n] bool."""
    begins = (boxes[:, :2] < BORDER) & (window[:2] > 0)
    ends = (boxes[:, 2:] > 1 - BORDER) & (window[2:] < 1)
    return (begins | ends).any(axis=1)


def shared_area(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The area that a box [4] shares with each of others [n, 4]: [n]."""
    corners = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    return area(np.concatenate(corners, axis=1))


def share_inside(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How much of a box [4] lies in each of others [n, 4]: [n], 0..1."""
    return shared_area(box, others) / max(area(box), 1e-12)


def is_nested(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """With which of others [n, 4] a box [4] shares an object by NESTED and QUARTER, whichever is larger: [n] bool."""
    smaller, larger = np.minimum(area(box), area(others)), np.maximum(area(box), area(others))
    return (shared_area(box, others) >= NESTED * smaller) & (smaller >= QUARTER * larger)
