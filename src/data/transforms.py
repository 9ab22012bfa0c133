"""Training geometry (numpy, cv2): crop, expand, flip, resize. Each transform turns a Sample into a Sample.

A size is (width, height) in pixels; that of the network's input, a square, is one number, its side.
A window is x1, y1, x2, y2 in pixels of an image, [4] int, and may reach beyond it.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from src import boxes as box_ops
from src.data.resize import resize

MIN_BOX_SIDE = 1.0   # network pixels; a box that a crop leaves narrower is not a training target
GREY = (127.5,) * 3  # RGB, 0..255: what surrounds an expanded image where a network has no mean of its own


class Sample(NamedTuple):
    """A training image with its ground truth."""
    image: np.ndarray   # [H, W, 3] uint8 RGB
    boxes: np.ndarray   # [N, 4] float32, x1, y1, x2, y2 as fractions of the image
    labels: np.ndarray  # [N] int32, 1..C-1


Transform = Callable[[Sample, Generator], Sample]


# --- rules that accept crops: IoU [N, T] of each box with each crop, minimal IoU -> [T] bool

def not_between(overlap: np.ndarray, min_iou: float) -> np.ndarray:
    """Refuses a crop where one box is below the minimum and another more than .2 above it.

    Source: model zoo official/cv/SSD, random_sample_crop.
    """
    return ~((overlap.min(axis=0) < min_iou) & (overlap.max(axis=0) > min_iou + 0.2))


def any_reaches(overlap: np.ndarray, min_iou: float) -> np.ndarray:
    """Some box has the minimum. Source: caffe ssd SatisfySampleConstraint; PaddleDetection RandomCrop."""
    return overlap.max(axis=0) >= min_iou


def all_reach(overlap: np.ndarray, min_iou: float) -> np.ndarray:
    """Every box has the minimum. Source: DALI RandomBBoxCrop, all_boxes_above_threshold."""
    return overlap.min(axis=0) >= min_iou


def all_exceed(overlap: np.ndarray, min_iou: float) -> np.ndarray:
    """Every box is strictly above the minimum. Source: MLPerf v0.7 SSDCropping."""
    return overlap.min(axis=0) > min_iou


# --- sides of crops: [n, 2], width and height as fractions of an image of this size, n <= count

def pixel_sides(size: tuple[int, int], rng: Generator, count: int) -> np.ndarray:
    """Sides U(.3, 1) of the image, kept where the crop's own aspect ratio is .5..2 (model zoo)."""
    width, height = size
    sides = rng.uniform(0.3, 1.0, (count, 2))
    aspect = sides[:, 1] * height / (sides[:, 0] * width)
    return sides[(aspect >= 0.5) & (aspect <= 2)]


def fraction_sides(_size: tuple[int, int], rng: Generator, count: int) -> np.ndarray:
    """Sides U(.3, 1) of the image, kept where the ratio of these fractions is .5..2 (DALI, MLPerf)."""
    return pixel_sides((1, 1), rng, count)


def scaled_sides(_size: tuple[int, int], rng: Generator, count: int) -> np.ndarray:
    """Scale U(.3, 1) and aspect ratio U(.5, 2), moved to the next one that fits into the image (caffe SampleBBox)."""
    scale = rng.uniform(0.3, 1.0, count)
    aspect = np.clip(rng.uniform(0.5, 2.0, count), scale ** 2, scale ** -2)
    return np.stack([scale * aspect ** 0.5, scale * aspect ** -0.5], axis=1)


def fitting_sides(_size: tuple[int, int], rng: Generator, count: int) -> np.ndarray:
    """Scale U(.3, 1) and an aspect ratio uniform over those of .5..2 that fit into the image (PaddleDetection)."""
    scale = rng.uniform(0.3, 1.0, count)
    aspect = rng.uniform(np.maximum(0.5, scale ** 2), np.minimum(2.0, scale ** -2))
    return np.stack([scale * aspect ** 0.5, scale * aspect ** -0.5], axis=1)


def large_sides(size: tuple[int, int], rng: Generator, count: int) -> np.ndarray:
    """An aspect ratio U(.75, 3) of the crop and a height uniform over those of .75 to 1 of the image's area that fit.

    Source: TensorFlow, sample_distorted_bounding_box, with the numbers of random_crop_image in fpnlite's configuration.
    """
    width, height = size
    aspect = rng.uniform(0.75, 3.0, count)
    lowest = np.sqrt(0.75 * width * height / aspect)
    highest = np.minimum(np.minimum(np.sqrt(width * height / aspect), height), width / aspect)
    aspect, lowest, highest = (values[lowest <= highest] for values in (aspect, lowest, highest))
    drawn = rng.uniform(lowest, highest)
    return np.stack([drawn * aspect / width, drawn / height], axis=1)


# --- transforms

@dataclass
class MinIoUCrop:
    """Random crop that keeps an overlap with the objects; boxes stay when their centre is inside.

    A minimal IoU is drawn, then crops; the first one that the rule accepts and that holds the centre of a box is taken.
    When all trials fail, the next minimal IoU is drawn. An image without boxes is not cropped. The defaults are those
    of the model zoo (the idea: SSD paper section 2.2).
    """
    min_ious: tuple[float | None, ...] = (None, 0.1, 0.3, 0.5, 0.7, 0.9)  # None: no crop
    trials: int = 50                                                      # crops for each minimal IoU
    accepts: Callable[[np.ndarray, float], np.ndarray] = not_between
    draw_sides: Callable[[tuple[int, int], Generator, int], np.ndarray] = pixel_sides
    shuffled: bool = False  # each minimal IoU comes once, in random order, and then the image stays as it is
    at_once: int = 1        # crops drawn and judged together: faster where most are refused

    def __call__(self, sample: Sample, rng: Generator) -> Sample:
        height, width = sample.image.shape[:2]
        return crop(sample, self.draw_window(sample.boxes, (width, height), rng))

    def draw_window(self, boxes: np.ndarray, size: tuple[int, int], rng: Generator) -> np.ndarray:
        """Where to crop an image of this size with these boxes [N, 4]."""
        full_image = np.array([0, 0, *size])
        if len(boxes) == 0:
            return full_image
        for min_iou in self.draw_min_ious(rng):
            if min_iou is None:
                return full_image
            for _ in range(0, self.trials, self.at_once):
                windows = self.draw_windows(size, rng)                             # [T, 4]
                regions = windows / (*size, *size)
                inside = centers_inside(boxes[:, None], regions).any(axis=0)       # [N, T] -> [T]
                if not inside.any():
                    continue
                accepted = inside & self.accepts(box_ops.iou(boxes, regions), min_iou)  # [T]
                if accepted.any():
                    return windows[accepted.argmax()]
        return full_image

    def draw_min_ious(self, rng: Generator) -> Iterator[float | None]:
        """The minimal IoUs in the order in which they are tried."""
        if self.shuffled:
            yield from [self.min_ious[index] for index in rng.permutation(len(self.min_ious))]
            return
        while True:
            yield self.min_ious[rng.integers(len(self.min_ious))]

    def draw_windows(self, size: tuple[int, int], rng: Generator) -> np.ndarray:
        """Windows [T, 4] anywhere in the image, T <= at_once."""
        sides = self.draw_sides(size, rng, self.at_once) * size                    # [T, 2] pixels
        corner = rng.uniform(size=sides.shape) * (size - sides)
        windows = np.concatenate([corner, corner + sides], axis=1).astype(int)
        return windows[(windows[:, 2:] > windows[:, :2]).all(axis=1)]


@dataclass
class Expand:
    """Zooms out: with probability 1/2 puts the image at a random place of a canvas up to max_ratio times its size.

    Source: caffe ssd ExpandImage, max_expand_ratio 4 (SSD paper section 3.6).
    """
    fill: tuple[float, ...] = GREY  # RGB 0..255 of the canvas
    max_ratio: float = 4.0

    def __call__(self, sample: Sample, rng: Generator) -> Sample:
        height, width = sample.image.shape[:2]
        return crop(sample, self.draw_window((width, height), rng), self.fill)

    def draw_window(self, size: tuple[int, int], rng: Generator) -> np.ndarray:
        """The canvas, as a window around an image of this size."""
        size = np.array(size)
        canvas = size
        if rng.uniform() >= 0.5:
            canvas = (size * rng.uniform(1, self.max_ratio)).astype(int)
        corner = (rng.uniform(size=2) * (canvas - size)).astype(int)
        return np.concatenate([-corner, canvas - corner])


@dataclass
class ExpandThenCrop:
    """Expand and MinIoUCrop in one copy: what the crop cuts off the canvas is never made."""
    expand: Expand
    crop: MinIoUCrop
    distort: Transform | None = None  # colours, of a policy that begins with them: only of the pixels that stay

    def __call__(self, sample: Sample, rng: Generator) -> Sample:
        height, width = sample.image.shape[:2]
        canvas = self.expand.draw_window((width, height), rng)
        on_canvas = to_region(sample.boxes, canvas / (width, height, width, height))
        window = self.crop.draw_window(on_canvas, tuple(canvas[2:] - canvas[:2]), rng)
        window += np.tile(canvas[:2], 2)  # from the canvas to the image
        visible = np.clip(window, 0, (width, height, width, height))
        sample = crop(sample, visible)
        if self.distort:
            sample = self.distort(sample, rng)
        return crop(sample, window - np.tile(visible[:2], 2), self.expand.fill)


@dataclass
class ScaleJitter:
    """Scales the image at random: where it grows, a part of it stays; where it shrinks, `fill` surrounds it.

    The scale and the change of the aspect ratio are log-uniform: a half is as likely as the double. The window lies
    uniformly among the places that hold the centre of one of the boxes, which is drawn; without boxes among all.
    Source: large-scale jitter, https://arxiv.org/abs/2012.07177 section 3.
    """
    fill: tuple[float, ...] = GREY  # RGB 0..255 around a smaller image
    scales: tuple[float, float] = (0.5, 2.0)
    aspects: tuple[float, float] = (0.8, 1.25)  # factors of width / height

    def __call__(self, sample: Sample, rng: Generator) -> Sample:
        height, width = sample.image.shape[:2]
        return crop(sample, self.draw_window(sample.boxes, (width, height), rng), self.fill)

    def draw_window(self, boxes: np.ndarray, size: tuple[int, int], rng: Generator) -> np.ndarray:
        """The part of an image of this size with these boxes [N, 4] that is seen; it may be larger than the image."""
        scale, aspect = (np.exp(rng.uniform(*np.log(span))) for span in (self.scales, self.aspects))
        sides = np.maximum(size / (scale * np.array([aspect ** 0.5, aspect ** -0.5])), 1).round().astype(int)
        low, high = np.minimum(size - sides, 0), np.maximum(size - sides, 0)  # of x1, y1
        if len(boxes):
            box = boxes[rng.integers(len(boxes))]
            center = (box[:2] + box[2:]) / 2 * size
            low = np.clip(np.floor(center - sides).astype(int) + 1, low, high)
            high = np.clip(np.ceil(center).astype(int) - 1, low, high)
        corner = rng.integers(low, high + 1)
        return np.concatenate([corner, corner + sides])


@dataclass
class Resize:
    """Stretches to a square, aspect ratio not kept (the published SSD input)."""
    size: int  # side of the square, pixels
    interpolations: tuple[str, ...] = ("bilinear",)  # of INTERPOLATIONS; one of them is drawn

    def __call__(self, sample: Sample, rng: Generator) -> Sample:
        choice = rng.integers(len(self.interpolations)) if len(self.interpolations) > 1 else 0
        return sample._replace(image=resize(sample.image, self.size, self.interpolations[choice]))


class HorizontalFlip:
    """Mirrors image and boxes with probability 1/2."""

    def __call__(self, sample: Sample, rng: Generator) -> Sample:
        if rng.uniform() < 0.5:
            return sample
        x1, y1, x2, y2 = sample.boxes.T
        return Sample(cv2.flip(sample.image, 1), np.stack([1 - x2, y1, 1 - x1, y2], axis=1), sample.labels)


# --- what they are made of

def crop(sample: Sample, window: np.ndarray, fill: tuple[float, ...] = GREY) -> Sample:
    """What lies in a window: its pixels, `fill` where it leaves the image, and the boxes whose centre it holds."""
    image, boxes, labels = sample
    height, width = image.shape[:2]
    if window.tolist() == [0, 0, width, height]:
        return sample
    visible = np.clip(window, 0, (width, height, width, height))
    x1, y1, x2, y2 = visible
    left, top, right, bottom = np.abs(window - visible).tolist()
    image = image[y1:y2, x1:x2]
    if left or top or right or bottom:
        image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=fill)
    region = window / (width, height, width, height)
    inside = centers_inside(boxes, region)
    return Sample(image, to_region(boxes[inside], region), labels[inside])


def centers_inside(boxes: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Whether the centres of boxes [.., 4] lie within regions [.., 4] -> [..] bool."""
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    return ((center > regions[..., :2]) & (center < regions[..., 2:])).all(axis=-1)


def to_region(boxes: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Boxes [N, 4] as fractions of a region [4] of the image, what lies outside cut off."""
    corners = (boxes.reshape(-1, 2, 2) - region[:2]) / (region[2:] - region[:2])
    return corners.clip(0, 1).reshape(-1, 4).astype(np.float32)


def augment(sample: Sample, policy: list[Transform], *, size: int, rng: Generator) -> Sample:
    """Runs a policy for a network input of size x size; boxes that end up narrower than MIN_BOX_SIDE are dropped."""
    for transform in policy:
        sample = transform(sample, rng)
    image, boxes, labels = sample
    kept = ((boxes[:, 2:] - boxes[:, :2]) * size >= MIN_BOX_SIDE).all(axis=1)
    return Sample(np.ascontiguousarray(image), boxes[kept], labels[kept])
