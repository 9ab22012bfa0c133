"""Boxes with names on images, and images as PNG and JPEG. Images are [H, W, 3] uint8 RGB."""
from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from src.boxes import area
from src.files import write_atomic
from src.text import one_line

# Told apart on photographs and on white; label l has colour (l - 1) % 20, later rounds are paler.
PALETTE = ("e6194b 3cb44b 4363d8 f58231 a53bd0 00b3b3 f032e6 8db600 ff7f9f 12806a b0702c b07aff "
           "c0392b 6fcf97 8a8a1a ffb347 4b3fa7 7d93ab e0b000 0096ff").split()
RIM = (20, 20, 20)
FONT = cv2.FONT_HERSHEY_SIMPLEX
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
    written, plates = [], np.zeros((0, 4))
    for index in reversed(order):  # the last is on top and chooses its place first
        text = texts[index] if texts else label_text(int(labels[index]), classes)
        if scores is not None and not texts:
            text += f" {scores[index]:.2f}"
        if not text:
            continue
        scale, size = label_size(canvas, text)
        if scale >= 0.2 and size[1] <= height:
            plates = np.vstack([plates, free_place(size, pixels[index], canvas.shape, plates=plates, boxes=pixels)])
            written.append((text, scale, colors[index]))
    for (text, scale, color), place in reversed(list(zip(written, plates.astype(int).tolist()))):
        draw_plate(canvas, text, place, scale=scale, color=color)
    return canvas


def label_text(label: int, classes: Sequence[str]) -> str:
    """The name of a label on one line, or its number."""
    return one_line(classes[label - 1]) if 1 <= label <= len(classes) else str(label)


def label_size(canvas: np.ndarray, text: str) -> tuple[float, tuple[int, int]]:
    """Font scale of a label on canvas, and width and height of its plate in pixels."""
    height, width = canvas.shape[:2]
    scale = np.clip(min(height, width) / 900, 0.4, 1.6)
    scale *= min(1, (width - 6) / cv2.getTextSize(text, FONT, scale, 1)[0][0])
    (text_width, text_height), base = cv2.getTextSize(text, FONT, max(scale, 0.01), 1)
    return scale, (text_width + 6, text_height + base + 3)


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


def draw_plate(canvas: np.ndarray, text: str, place: list[int], *, scale: float, color: tuple) -> None:
    """Writes text on a filled plate at place x1, y1, x2, y2 in pixels."""
    x1, y1, x2, y2 = place
    for fill, thickness in ((color, -1), (RIM, 1)):
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), fill, thickness)
    ink = RIM if np.dot(color, (0.299, 0.587, 0.114)) > 140 else (255, 255, 255)  # ITU-R BT.601 luma
    (_, height), _ = cv2.getTextSize(text, FONT, scale, 1)
    cv2.putText(canvas, text, (x1 + 3, y1 + height + 2), FONT, scale, ink, max(1, round(scale * 1.6)), cv2.LINE_AA)


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
    write_atomic(path, cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())
