"""The box round a COCO segmentation, for annotations that have no box of their own."""
from __future__ import annotations

from src.data.findings import Unusable
from src.data.values import shown

MAX_SIDE = 1 << 16  # pixels; larger frames are damage, and their products leave 32 bits


def mask_box(segmentation: object) -> list[float]:
    """Polygons [[x1, y1, x2, y2, ..], ..] or a run-length code {counts, size} -> x, y, w, h in pixels, or Unusable."""
    try:
        return rle_box(segmentation) if isinstance(segmentation, dict) else polygon_box(segmentation)
    except (TypeError, ValueError, KeyError, OverflowError, AttributeError) as error:
        raise Unusable(f"it has no bbox, and no box can be made of segmentation {shown(segmentation)}") from error


def polygon_box(polygons: object) -> list[float]:
    """The extent of all polygons. Raises ValueError, TypeError."""
    if not isinstance(polygons, list):
        raise TypeError(polygons)
    if not all(isinstance(part, list) for part in polygons):
        polygons = [polygons]  # some tools write a single one without the outer list
    if any(len(part) % 2 for part in polygons):
        raise ValueError("an x without a y")
    x = [float(value) for part in polygons for value in part[0::2]]
    y = [float(value) for part in polygons for value in part[1::2]]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def rle_box(code: dict) -> list[float]:
    """The extent of a run-length code. Raises ValueError, TypeError, KeyError, AttributeError."""
    from pycocotools import mask  # hardly a file needs it
    counts, (height, width) = code["counts"], code["size"]
    if not all(type(side) is int and 0 < side <= MAX_SIDE for side in (height, width)):
        raise ValueError(code["size"])
    if isinstance(counts, list):
        if not all(type(run) is int and run >= 0 for run in counts) or sum(counts) > height * width:
            raise ValueError("the runs leave the image")
        packed = mask.frPyObjects({"counts": counts, "size": [height, width]}, height, width)
    else:
        # pycocotools reads past the end of a code with other letters, or one that is cut short
        codes = [letter - 48 for letter in counts.encode("ascii")]
        if not codes or not all(0 <= code < 64 for code in codes) or codes[-1] & 32:
            raise ValueError("letters that no code has, or cut short")
        packed = {"counts": counts.encode("ascii"), "size": [height, width]}
    x, y, w, h = map(float, mask.toBbox(packed))
    if not 0 < mask.area(packed) <= w * h or x + w > width or y + h > height:
        raise ValueError("the mask is empty or leaves the image")
    return [x, y, w, h]
