"""The file of anchor shapes that training writes and --anchors=FILE reads."""
from __future__ import annotations

import json
import reprlib
from collections.abc import Sequence

from src.errors import OptionError
from src.files import read_json, write_atomic

WRITERS = "train.py --anchors=auto and scripts/anchor_stats.py --output_path write such files"

MIN_PIXELS, MAX_PIXELS = 1e-3, 1e6


def write_shapes(path: str, shapes: Sequence, image_size: int) -> None:
    """Writes the shapes of the anchors as JSON, a line a level: per level [w, h] in pixels of image_size."""
    levels = ",\n  ".join(json.dumps([[float(side) for side in shape] for shape in level]) for level in shapes)
    text = f'{{\n "image_size": {image_size},\n "shapes": [\n  {levels}\n ]\n}}\n'
    write_atomic(path, text.encode())


def read_shapes(path: str, counts: Sequence[int], image_size: int) -> list[list[list[float]]]:
    """The shapes of a file, in pixels of image_size: per level as many [w, h] as counts says.

    Raises OptionError for a file that is missing or broken or holds other numbers of shapes.
    """
    try:
        content = read_json(path)
        scale, shapes = image_size / positive(content["image_size"]), content["shapes"]
        shapes = [[[positive(side) * scale for side in shape] for shape in level] for level in shapes]
        if any(len(shape) != 2 for level in shapes for shape in level):
            raise ValueError("a shape is not [width, height]")
    except OSError as error:
        raise OptionError(f"--anchors '{path}' cannot be read ({error.strerror}); {WRITERS}") from error
    except KeyError as error:
        raise OptionError(f"--anchors '{path}' has no {error}; {WRITERS}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise OptionError(f"--anchors '{path}' is broken: {' '.join(str(error).split())[:150]}; {WRITERS}") from error
    found = [len(level) for level in shapes]
    if found != list(counts):
        raise OptionError(f"--anchors '{path}' has levels of {join(found)} shapes, the model has levels of "
                          f"{join(counts)}; fit them for this model by --anchors=auto")
    return shapes


def positive(value: object) -> float:
    """A number of a file, above 0 and not beyond any image. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not MIN_PIXELS <= value <= MAX_PIXELS:
        raise ValueError(f"{reprlib.repr(value)} is not a positive number of pixels")
    return float(value)


def join(counts: Sequence[int]) -> str:
    """[3, 6] -> "3, 6"."""
    return ", ".join(map(str, counts))
