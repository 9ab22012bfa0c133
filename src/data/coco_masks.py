"""The box round a COCO segmentation, for annotations that have no box of their own."""
LONGEST_SIDE = 1 << 16  # pixels; larger frames are damage, and their products leave 32 bits


def mask_box(segmentation):
    """Polygons [[x1, y1, x2, y2, ..], ..] or a run-length code {counts, size} -> its extent x, y, w, h in pixels.

    Raises TypeError, ValueError, KeyError, OverflowError for what is neither.
    """
    return rle_box(segmentation) if isinstance(segmentation, dict) else polygon_box(segmentation)


def polygon_box(polygons):
    """The extent of all polygons. Raises ValueError, TypeError."""
    if not isinstance(polygons, list):
        raise TypeError(polygons)
    parts = polygons if all(isinstance(one, list) for one in polygons) else [polygons]  # some tools write one alone
    if any(len(part) % 2 for part in parts):
        raise ValueError("an x without a y")
    x, y = ([float(one) for part in parts for one in part[start::2]] for start in (0, 1))
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def rle_box(code):
    """The extent of a run-length code. Raises ValueError, TypeError, KeyError."""
    from pycocotools import mask  # hardly a file needs it
    counts, (height, width) = code["counts"], code["size"]
    if not all(type(side) is int and 0 < side <= LONGEST_SIDE for side in (height, width)):
        raise ValueError(code["size"])
    if isinstance(counts, list):
        if not all(type(one) is int and one >= 0 for one in counts) or sum(counts) > height * width:
            raise ValueError("the runs leave the image")
        packed = mask.frPyObjects({"counts": counts, "size": [height, width]}, height, width)
    else:
        check_packed(counts)
        packed = {"counts": counts.encode("ascii"), "size": [height, width]}
    x, y, w, h = map(float, mask.toBbox(packed))
    if not 0 < mask.area(packed) <= w * h or x + w > width or y + h > height:
        raise ValueError("the mask is empty or leaves the image")
    return [x, y, w, h]


def check_packed(text):
    """Raises ValueError or TypeError unless a packed code is one that pycocotools reads to its end and no further."""
    if not isinstance(text, str):
        raise TypeError(text)
    codes = [ord(letter) - 48 for letter in text]
    if not codes or not all(0 <= one < 64 for one in codes) or codes[-1] & 32:
        raise ValueError("letters that no code has, or cut short")
