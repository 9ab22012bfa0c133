"""Draws a small COCO data set of circles, triangles, squares and stars, to try everything without downloading anything.

    python scripts/make_demo_data.py OUT [--images 300] [--val 60] [--seed 1]

writes OUT/train2017, OUT/val2017 and OUT/annotations/instances_{train,val}2017.json. A seed gives the same files again.
"""
from __future__ import annotations

import json
import os
import sys

import cv2
import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.arguments import ArgumentParser
from src.errors import run_main
from src.files import expand_home, write_atomic

DESCRIPTION = "drawn shapes, made by scripts/make_demo_data.py"
CLASSES = ("circle", "triangle", "square", "star")
HUES = (0, 30, 110, 70)  # each class keeps to a family of colours, as road signs do: half of OpenCV's degrees
HUE_RANGE = 14
SIZES = ((320, 240), (240, 320))  # width, height in pixels
SIDE = (0.25, 0.45)   # diameter of a shape as a share of the short image side
MAX_SHAPES = 3        # an image
TILT = np.pi / 12     # radians by which a shape may lean: 15 degrees
EMPTY = 0.04          # share of images without a shape
OVERLAP = 0.1         # of two boxes: intersection over the smaller one, so that neither hides the other
CONTRAST = 90         # smallest distance in RGB between a shape and the background below it
SUBPIXEL = 4          # fractional bits of the drawn coordinates
MARGIN = 14           # pixels around a shape that its shadow can reach


def main() -> int:
    """Reads the command line, draws both splits -> exit code."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("out", type=expand_home, help="folder to write")
    parser.add_argument("--images", type=int, default=300, help="training images (default 300)")
    parser.add_argument("--val", type=int, default=60, help="validation images (default 60)")
    parser.add_argument("--seed", type=int, default=1, help="another seed draws other images (default 1)")
    options = parser.parse_args()
    if min(options.images, options.val, options.seed) < 0:
        parser.error("--images, --val and --seed must not be negative")
    try:
        for number, (split, count) in enumerate((("train2017", options.images), ("val2017", options.val))):
            boxes = write_split(options.out, split, count=count, seed=(options.seed, number))
            print(f"{os.path.join(options.out, split)}: {count} images, {boxes} boxes")
    except OSError as error:
        print(f"error: {options.out} cannot be written: {error}", file=sys.stderr)
        return 4
    return 0


def write_split(out: str, split: str, *, count: int, seed: tuple[int, ...]) -> int:
    """Draws a split into out, the annotation file last, and returns its number of boxes."""
    path = os.path.join(out, "annotations", f"instances_{split}.json")
    refuse_foreign(path)
    for folder in (os.path.join(out, split), os.path.dirname(path)):
        os.makedirs(folder, exist_ok=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        image, shapes = draw_image(np.random.default_rng((*seed, number)))
        name = f"{number:06d}.jpg"
        data = cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 92))[1]
        with open(os.path.join(out, split, name), "wb") as file:
            file.write(data.tobytes())
        images.append({"id": number, "file_name": name, "width": image.shape[1], "height": image.shape[0]})
        annotations += [{"id": len(annotations) + index, "image_id": number, "iscrowd": 0, **shape}
                        for index, shape in enumerate(shapes, 1)]
    categories = [{"id": index, "name": name} for index, name in enumerate(CLASSES, 1)]
    truth = {"info": {"description": DESCRIPTION}, "images": images, "annotations": annotations,
             "categories": categories}
    write_atomic(path, json.dumps(truth).encode())
    return len(annotations)


def refuse_foreign(path: str) -> None:
    """Ends the program where path is an annotation file that this script did not write: it may be somebody's COCO."""
    if os.path.exists(path):
        with open(path, "rb") as file:
            if DESCRIPTION.encode() not in file.read(200):
                sys.exit(f"error: {path} is not from this script; name another folder")


def draw_image(rng: np.random.Generator) -> tuple[np.ndarray, list[dict]]:
    """One image [H, W, 3] uint8 RGB and its shapes as COCO annotations (category_id, bbox, area)."""
    width, height = SIZES[rng.integers(len(SIZES))]
    canvas = draw_background(rng, height, width)
    shapes = []
    wanted = 0 if rng.random() < EMPTY else rng.integers(1, MAX_SHAPES + 1)
    for _ in range(40 if wanted else 0):
        label = int(rng.integers(len(CLASSES)))
        diameter = min(width, height) * rng.uniform(*SIDE)
        center = rng.uniform((diameter * 0.3, diameter * 0.3), (width - diameter * 0.3, height - diameter * 0.3))
        points = center + outline(label, rng.uniform(-TILT, TILT)) * diameter / 2
        box = clipped_box(points, width, height)
        if all(overlap(box, shape["bbox"]) <= OVERLAP for shape in shapes):
            area = paint(canvas, points, hue=HUES[label], rng=rng)
            shapes.append({"category_id": label + 1, "bbox": box, "area": area})
        if len(shapes) == wanted:
            break
    return np.clip(canvas, 0, 255).astype(np.uint8), shapes


def outline(label: int, angle: float) -> np.ndarray:
    """Corners [N, 2] of a class in the unit circle, point up or lying flat, then turned by angle."""
    count, inner = {"circle": (72, 1), "triangle": (3, 1), "square": (4, 1), "star": (10, 0.45)}[CLASSES[label]]
    upright = np.pi / 4 if CLASSES[label] == "square" else -np.pi / 2
    at = upright + angle + 2 * np.pi * np.arange(count) / count
    radius = np.where(np.arange(count) % 2, inner, 1.0) if CLASSES[label] == "star" else np.ones(count)
    return np.stack([np.cos(at), np.sin(at)], axis=1) * radius[:, None]


def clipped_box(points: np.ndarray, width: int, height: int) -> list[float]:
    """The tight box x, y, w, h of corners [N, 2] inside the image, to a hundredth of a pixel."""
    low = np.clip(points.min(axis=0), 0, (width, height))
    high = np.clip(points.max(axis=0), 0, (width, height))
    return [round(float(value), 2) for value in (*low, *(high - low))]


def overlap(box: list[float], other: list[float]) -> float:
    """Intersection of two boxes x, y, w, h over the smaller of them."""
    wide = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    high = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    return max(wide, 0) * max(high, 0) / min(box[2] * box[3], other[2] * other[3])


def paint(canvas: np.ndarray, points: np.ndarray, *, hue: int, rng: np.random.Generator) -> float:
    """Draws a shape with shadow, shading and rim into canvas [H, W, 3] float32 -> its pixels inside the image."""
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - MARGIN, 0)
    high = np.ceil(points.max(axis=0)).astype(int) + MARGIN
    part, points = canvas[low[1]:high[1], low[0]:high[0]], points - low
    mask = fill(part.shape[:2], points)
    shadow = cv2.GaussianBlur(fill(part.shape[:2], points + (3, 4)), (0, 0), 3) * 0.45
    part *= 1 - shadow[..., None]
    color = pick_color(rng, hue, part[mask > 0.5].mean(axis=0))
    direction = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:part.shape[0], :part.shape[1]].astype(np.float32)
    center, reach = points.mean(axis=0), np.ptp(points, axis=0).max()
    slope = ((columns - center[0]) * np.cos(direction) + (rows - center[1]) * np.sin(direction)) / reach
    body = color * (1 + 0.25 * slope[..., None])
    part += mask[..., None] * (body - part)
    rim = fill(part.shape[:2], points, thickness=2) * mask * 0.6
    part += rim[..., None] * (color * 0.45 - part)
    return round(float(mask.sum()), 1)


def fill(shape: tuple[int, ...], points: np.ndarray, thickness: int = 0) -> np.ndarray:
    """Coverage [H, W] float32 0..1 of a polygon, antialiased; thickness > 0 draws only its edge."""
    mask = np.zeros(shape, np.uint8)
    # OpenCV puts whole numbers on pixel centres, COCO on pixel edges
    corners = np.rint((points - 0.5) * 2 ** SUBPIXEL).astype(np.int32)
    if thickness:
        cv2.polylines(mask, [corners], True, 255, thickness, cv2.LINE_AA, SUBPIXEL)
    else:
        cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, SUBPIXEL)
    return mask.astype(np.float32) / 255


def pick_color(rng: np.random.Generator, hue: int, below: np.ndarray) -> np.ndarray:
    """A vivid colour near a hue, far from the mean colour below it; the best of a few if none is far enough."""
    best, best_distance = None, -1
    for _ in range(12):
        near = (hue + rng.integers(-HUE_RANGE, HUE_RANGE + 1)) % 180
        hsv = np.array([[[near, rng.integers(120, 256), rng.integers(140, 256)]]], np.uint8)
        color = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
        distance = np.linalg.norm(color - below)
        if distance > best_distance:
            best, best_distance = color, distance
        if distance > CONTRAST:
            break
    return best


def draw_background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A soft texture [H, W, 3] float32: a gradient of two muted colours with blobs, stripes, grain or all of them."""
    first, second = rng.uniform(50, 200, (2, 3)).astype(np.float32)
    first, second = (color.mean() + 0.6 * (color - color.mean()) for color in (first, second))
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    along = columns / width * np.cos(angle) + rows / height * np.sin(angle)
    mix = (along - along.min()) / np.ptp(along)
    kind = rng.integers(4)
    if kind == 1:  # stripes
        mix = 0.5 * mix + 0.25 + 0.2 * np.sin(along * rng.uniform(20, 60))
    elif kind == 2:  # blurred blobs
        coarse = rng.uniform(0, 1, (rng.integers(4, 9), rng.integers(4, 9))).astype(np.float32)
        mix = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    elif kind == 3:  # checks with soft edges
        pitch = rng.uniform(0.1, 0.3)
        mix = 0.5 + 0.25 * np.tanh(4 * np.sin(columns * pitch) * np.sin(rows * pitch)) + 0.2 * (mix - 0.5)
    canvas = first + mix[..., None] * (second - first)
    grain = rng.normal(0, rng.uniform(2, 9), (height, width, 1)).astype(np.float32)
    return np.ascontiguousarray(canvas + cv2.GaussianBlur(grain, (0, 0), 0.8)[..., None], np.float32)


if __name__ == "__main__":
    run_main(main)
