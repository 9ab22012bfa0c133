"""Plates with text in any script, on images [H, W, 3] uint8 RGB."""
from __future__ import annotations

import functools
import os
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK = (20, 20, 20)
MIN_SIZE, MAX_SIZE = 11, 46  # of letters, pixels; between them a 32nd of the shorter side of the image
SMALLEST = 6                 # a long text in a narrow image is made smaller down to this, and left out below
MARGIN = 3                   # pixels left and right of a text


class Plate(NamedTuple):
    """A text on a coloured ground."""
    text: str
    font: ImageFont.FreeTypeFont
    place: list[int]  # x1, y1, x2, y2 in pixels
    color: tuple      # RGB


def fit_text(text: str, shape: tuple) -> tuple[ImageFont.FreeTypeFont | None, tuple[int, int]]:
    """The font for a text on an image of this shape, None where it has no room; width and height of its plate."""
    size = int(np.clip(min(shape[:2]) / 32, MIN_SIZE, MAX_SIZE))
    wide = load_font(text, size).getlength(text)
    font = load_font(text, int(size * min(1, (shape[1] - 2 * MARGIN) / wide)))
    height = sum(font.getmetrics()) + 1
    size = min(int(font.getlength(text)) + 1 + 2 * MARGIN, shape[1]), height
    return (None if font.size < SMALLEST or height > shape[0] else font), size


def draw_plate(canvas: np.ndarray, plate: Plate) -> None:
    """Writes the text on its ground, dark or white as can be read there."""
    x1, y1, x2, y2 = plate.place
    picture = Image.new("RGB", (x2 - x1, y2 - y1), plate.color)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, x2 - x1 - 1, y2 - y1 - 1), outline=INK)
    is_light = np.dot(plate.color, (0.299, 0.587, 0.114)) > 140  # ITU-R BT.601 luma
    draw.text((MARGIN, 0), plate.text, font=plate.font, fill=INK if is_light else (255, 255, 255))
    canvas[y1:y2, x1:x2] = np.asarray(picture)


def load_font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of so many pixels, at least 1, that has all letters of a text, if there is one."""
    return open_font(font_file(frozenset(text)), max(size, 1))


@functools.cache
def open_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    """A font file at a size."""
    return ImageFont.truetype(path, size)


@functools.cache
def font_file(letters: frozenset[str]) -> str:
    """The file of matplotlib's own font, or of the first one of the system that has these letters, if any has."""
    import matplotlib  # slow to import, and only drawings need it

    own = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    if letters <= letters_of(own):
        return own
    from matplotlib.font_manager import findSystemFonts

    return next((path for path in sorted(findSystemFonts()) if letters <= letters_of(path)), own)


@functools.cache
def letters_of(path: str) -> frozenset[str]:
    """The letters that a font file has; none of a file that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()
