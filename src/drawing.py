"""Boxes with names on images, and images as PNG and JPEG. Images are [H, W, 3] uint8 RGB."""
from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from src.boxes import area
from src.files import write_atomic
from src.lettering import Plate, draw_plate, fit_text
from src.text import one_line

# Told apart on photographs and on white; label l has colour (l - 1) % 20, later rounds are paler.
PALETTE = ("e6194b 3cb44b 4363d8 f58231 a53bd0 00b3b3 f032e6 8db600 ff7f9f 12806a b0702c b07aff "
           "c0392b 6fcf97 8a8a1a ffb347 4b3fa7 7d93ab e0b000 0096ff").split()
RIM = (20, 20, 20)
MAX_HIDDEN = 0.1   # share of a name that may lie on other names
MAX_COVERED = 0.5  # share of another box that a name with a shorter form may cover
TILE_SIDE, MAX_TILE_SIDE = 300, 900  # pixels of the shorter side of a picture in a grid, and at most of the longer one


def class_color(label: int) -> tuple[int, int, int]:
    """Fixed RGB colour of a label 1, 2, .."""
    paler, index = divmod(label - 1, len(PALETTE))
    color = np.array(list(bytes.fromhex(PALETTE[index])))
    return tuple(np.rint(color + (255 - color) * 0.2 * (paler % 4)).astype(int).tolist())


def draw_boxes(image: np.ndarray, boxes: np.ndarray, labels: Sequence[int], *, scores: np.ndarray | None = None,
               classes: Sequence[str] = (), colors: Sequence[tuple] = (), texts: Sequence[str] = ()) -> np.ndarray:
    """A copy of image with boxes and their names; better scores are drawn on top.

    boxes [N, 4] x1, y1, x2, y2 fractions of the image; labels [N] 1..C-1; scores [N] or None; classes: names without
    background, label l is classes[l - 1] (the bare number where the list is too short). colors, texts: [N] RGB and
    what is written at each box, "" for nothing, in place of those of its label.
    """
    canvas = np.ascontiguousarray(image).copy()
    height, width = canvas.shape[:2]
    inside = np.clip(np.nan_to_num(np.asarray(boxes, float).reshape(-1, 4)), 0, 1)
    pixels = np.minimum(np.rint(inside * ((width, height) * 2)), (width - 1, height - 1) * 2).astype(int)
    colors = colors or [class_color(int(label)) for label in labels]
    order = range(len(pixels)) if scores is None else np.argsort(scores)
    line = 1 + min(height, width) // 240
    for index in order:
        corners = pixels[index, :2].tolist(), pixels[index, 2:].tolist()
        cv2.rectangle(canvas, *corners, RIM, line + 2)  # keeps the line visible where the picture has its colour
        cv2.rectangle(canvas, *corners, colors[index], line)
    wanted = [[text] for text in texts] or label_texts(labels, scores, classes)
    # the last is on top and chooses its place first
    plates = choose_plates(wanted, pixels, colors, order=[*reversed(order)], shape=canvas.shape, drop=not texts)
    for plate in reversed(plates):
        draw_plate(canvas, plate)
    return canvas


def label_texts(labels: Sequence[int], scores: np.ndarray | None, classes: Sequence[str]) -> list[list[str]]:
    """What to write at boxes: name and score, or where there is little room the score alone; without scores the name.
    """
    names = [label_text(int(label), classes) for label in labels]
    if scores is None:
        return [[name] for name in names]
    return [[f"{name} {score:.2f}", f"{score:.2f}"] for name, score in zip(names, scores)]


def label_text(label: int, classes: Sequence[str]) -> str:
    """The name of a label on one line, or its number."""
    return one_line(classes[label - 1]) if 1 <= label <= len(classes) else str(label)


def choose_plates(wanted: list[list[str]], boxes: np.ndarray, colors: Sequence[tuple], *, order: Sequence[int],
                  shape: tuple, drop: bool) -> list[Plate]:
    """Plates for boxes [N, 4], in pixels of an image of this shape, each where it hides least.

    wanted: for each box the texts to try, longer ones first. order: of the boxes, the first chooses first. drop: leave
    out a text that would hide others, where a box of its colour has one already, so that the colour tells the class.
    """
    plates, taken, named = [], np.zeros((0, 4)), set()
    for index in order:
        for text in filter(None, wanted[index]):
            font, size = fit_text(text, shape)
            if font is None:
                continue
            place = free_place(size, boxes[index], shape, plates=taken, boxes=boxes)
            hidden = shared_areas(place[None], taken).sum() / (size[0] * size[1])
            others = np.delete(boxes, index, axis=0)
            covered = (shared_areas(place[None], others) / np.maximum(area(others), 1)).max(initial=0)
            crowds = hidden > MAX_HIDDEN or (covered > MAX_COVERED and text != wanted[index][-1])
            if drop and crowds and colors[index] in named:
                continue
            plates.append(Plate(text, font, place.astype(int).tolist(), colors[index]))
            taken = np.vstack([taken, place])
            named.add(colors[index])
            break
    return plates


def free_place(size: tuple[int, int], box: np.ndarray, shape: tuple, *, plates: np.ndarray,
               boxes: np.ndarray) -> np.ndarray:
    """Where a plate of size (width, height) at its box hides least: x1, y1, x2, y2 [4], all in pixels.

    Tried in this order: above and below the box at its left end, the same at its right end, right and left of it.
    shape: of the image; plates, boxes [N, 4]: what a plate should not cover; a name is worth four times a box.
    """
    (x1, y1, x2, y2), (width, height) = box, size
    left = np.clip([x1, x1, x2 - width, x2 - width, x2 + 2, x1 - width - 1], 0, shape[1] - width)
    top = np.clip([y1 - height, y2 + 1, y1 - height, y2 + 1, y1, y1], 0, shape[0] - height)
    places = np.stack([left, top, left + width, top + height], axis=1)                    # [6, 4]
    hidden = 4 * shared_areas(places, plates).sum(axis=1) + shared_areas(places, boxes).sum(axis=1)
    return places[hidden.argmin()]


def shared_areas(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Areas that boxes [N, 4] and boxes [M, 4] share: [N, M]; corners x1, y1, x2, y2."""
    first = first[:, None]                                                                # [N, 1, 4]
    corners = np.maximum(first[..., :2], second[:, :2]), np.minimum(first[..., 2:], second[:, 2:])
    return area(np.concatenate(corners, axis=-1))


def to_tile(image: np.ndarray) -> np.ndarray:
    """Image [H, W, 3] at the size a grid shows it, shorter side 300 pixels: names on it are legible and of one size."""
    height, width = image.shape[:2]
    return resized(image, min(TILE_SIDE / min(height, width), MAX_TILE_SIDE / max(height, width)))


def fit_into(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Image [H, W, 3] as large as fits into height and width, in its own shape."""
    factor = min(height / image.shape[0], width / image.shape[1])
    return resized(image, factor)


def resized(image: np.ndarray, factor: float) -> np.ndarray:
    """Image [H, W, 3] with both sides times factor, 1 pixel or more."""
    size = max(round(image.shape[1] * factor), 1), max(round(image.shape[0] * factor), 1)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)


def encode_jpeg(image: np.ndarray, max_bytes: int) -> bytes:
    """Image [H, W, 3] uint8 RGB as a JPEG below max_bytes: with less quality, and smaller where that is not enough."""
    while True:
        for quality in (90, 80, 70, 60):
            data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            if len(data) < max_bytes:
                return data
        image = cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)


def save_png(path: str, image: np.ndarray) -> None:
    """Writes image [H, W, 3] uint8 RGB as a PNG. Raises EnvironmentFault where that is not possible."""
    write_atomic(path, encode_png(image))


def encode_png(image: np.ndarray) -> bytes:
    """Image [H, W, 3] uint8 RGB as the content of a PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
