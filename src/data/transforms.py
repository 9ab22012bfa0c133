"""Training geometry (numpy, cv2). An image is uint8 RGB [H, W, 3], boxes [N, 4] are corner fractions of it.

A transform is called with (image, boxes, labels, rng) and returns the first three. A window is x1, y1, x2, y2 in whole
pixels of an image and may reach beyond it.
"""
import cv2
import numpy as np
from PIL import Image

from src import boxes as box_ops

SMALLEST_PIXELS = 1.0  # a box that a crop leaves narrower than this, in network pixels, is no training target
GREY = (127.5,) * 3    # RGB, 0..255: what lies around an expanded image where a network has no mean of its own
EVERY_INTERPOLATION = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)


def not_between(overlap, minimum):
    """Refuses a crop when some box overlaps it less than the minimum while another does more than minimum + .2.

    This and the other rules: overlap [N, T] IoU of each box with each crop -> [T] bool. Source: model zoo
    official/cv/SSD, random_sample_crop.
    """
    return ~((overlap.min(axis=0) < minimum) & (overlap.max(axis=0) > minimum + 0.2))


def one_reaches(overlap, minimum):
    """Some box has the minimum. Source: caffe ssd SatisfySampleConstraint; PaddleDetection RandomCrop."""
    return overlap.max(axis=0) >= minimum


def all_reach(overlap, minimum):
    """Every box has the minimum. Source: DALI RandomBBoxCrop, all_boxes_above_threshold."""
    return overlap.min(axis=0) >= minimum


def all_exceed(overlap, minimum):
    """Every box is strictly above the minimum. Source: MLPerf v0.7 SSDCropping."""
    return overlap.min(axis=0) > minimum


def pixel_sides(height, width, rng, count):
    """Sides U(.3, 1) of the image, kept where the crop's own aspect ratio is .5..2 (model zoo)."""
    sides = rng.uniform(0.3, 1.0, (count, 2))
    aspect = sides[:, 1] * height / (sides[:, 0] * width)
    return sides[(aspect >= 0.5) & (aspect <= 2)]


def fraction_sides(height, width, rng, count):
    """Sides U(.3, 1) of the image, kept where the ratio of these fractions is .5..2 (DALI, MLPerf)."""
    sides = rng.uniform(0.3, 1.0, (count, 2))
    aspect = sides[:, 1] / sides[:, 0]
    return sides[(aspect >= 0.5) & (aspect <= 2)]


def scaled_sides(height, width, rng, count):
    """Scale U(.3, 1) and aspect ratio U(.5, 2), moved to the next one that fits into the image (caffe SampleBBox)."""
    scale = rng.uniform(0.3, 1.0, count)
    aspect = np.clip(rng.uniform(0.5, 2.0, count), scale ** 2, scale ** -2)
    return np.stack([scale * aspect ** 0.5, scale * aspect ** -0.5], axis=1)


def fitting_sides(height, width, rng, count):
    """Scale U(.3, 1) and an aspect ratio uniform over those of .5..2 that fit into the image (PaddleDetection)."""
    scale = rng.uniform(0.3, 1.0, count)
    aspect = rng.uniform(np.maximum(0.5, scale ** 2), np.minimum(2.0, scale ** -2))
    return np.stack([scale * aspect ** 0.5, scale * aspect ** -0.5], axis=1)


class MinIoUCrop:
    """Random crop that keeps an overlap with the objects; boxes stay when their centre is inside.

    A minimal IoU comes from `choices` (None keeps the whole image), then up to `trials` crops of the given `sides` are
    drawn; the first one that `accepts` and that holds the centre of a box is taken. After them the minimum is drawn
    anew, or, with `shuffled`, the next of a random order of the choices comes and after the last one the whole image.
    An image without boxes is left whole. The defaults are the model zoo's (SSD paper section 2.2 has the idea).
    at_once: crops drawn and judged together, which is faster where most are refused.
    """

    def __init__(self, choices=(None, 0.1, 0.3, 0.5, 0.7, 0.9), trials=50, accepts=not_between, sides=pixel_sides,
                 shuffled=False, at_once=1):
        self.choices, self.trials, self.accepts, self.sides = choices, trials, accepts, sides
        self.shuffled, self.at_once = shuffled, at_once

    def __call__(self, image, boxes, labels, rng):
        return look(image, boxes, labels, self.window(boxes, *image.shape[:2], rng))

    def window(self, boxes, height, width, rng):
        """Where to crop an image of this height and width."""
        if len(boxes) > 0:
            for minimum in self.minima(rng):
                if minimum is None:
                    break
                for _ in range(0, self.trials, self.at_once):
                    crops = self.draw(height, width, rng)
                    regions = crops / (width, height, width, height)
                    accepted = self.accepts(box_ops.iou(boxes, regions), minimum)
                    accepted &= centered(boxes[:, None], regions).any(axis=0)
                    if accepted.any():
                        return crops[accepted.argmax()]
        return np.array([0, 0, width, height])

    def minima(self, rng):
        """The minimal IoUs in the order in which they are tried."""
        if self.shuffled:
            yield from (self.choices[index] for index in rng.permutation(len(self.choices)))
        while not self.shuffled:
            yield self.choices[rng.integers(len(self.choices))]

    def draw(self, height, width, rng):
        """Windows [n, 4] anywhere in the image, n <= at_once."""
        sides = self.sides(height, width, rng, self.at_once) * (width, height)
        corner = rng.uniform(size=sides.shape) * ((width, height) - sides)
        crops = np.concatenate([corner, corner + sides], axis=1).astype(int)
        return crops[(crops[:, 2:] > crops[:, :2]).all(axis=1)]


class Expand:
    """With probability 1/2 puts the image at a random place of a canvas 1..ratio times as wide and as high.

    fill: RGB 0..255 of the canvas. Source: caffe ssd ExpandImage, max_expand_ratio 4 (SSD paper section 3.6).
    """

    def __init__(self, fill=GREY, ratio=4.0):
        self.fill, self.ratio = fill, ratio

    def __call__(self, image, boxes, labels, rng):
        return look(image, boxes, labels, self.window(*image.shape[:2], rng), self.fill)

    def window(self, height, width, rng):
        """The canvas, seen from an image of this height and width."""
        size = np.array([width, height])
        canvas = size if rng.uniform() < 0.5 else (size * rng.uniform(1, self.ratio)).astype(int)
        corner = (rng.uniform(size=2) * (canvas - size)).astype(int)
        return np.concatenate([-corner, canvas - corner])


class ExpandThenCrop:
    """Expand and a crop out of its canvas in one copy: the canvas, up to 16 times the image, is never made.

    distort: a transform of single pixels that a policy has before both; here it costs only the pixels that stay.
    """

    def __init__(self, expand, crop, distort=None):
        self.expand, self.crop, self.distort = expand, crop, distort

    def __call__(self, image, boxes, labels, rng):
        height, width = image.shape[:2]
        canvas = self.expand.window(height, width, rng)
        across, down = canvas[2:] - canvas[:2]
        on_canvas = seen_from(boxes, canvas / (width, height, width, height))
        window = self.crop.window(on_canvas, down, across, rng) + np.tile(canvas[:2], 2)
        visible = np.clip(window, 0, (width, height, width, height))
        sample = look(image, boxes, labels, visible)
        if self.distort:
            sample = self.distort(*sample, rng)
        return look(*sample, window - np.tile(visible[:2], 2), self.expand.fill)


class Resize:
    """Stretches to a square of `size` pixels, aspect ratio not kept (the published SSD input).

    interpolations: of OpenCV; of several one is drawn (caffe's ssd trains with EVERY_INTERPOLATION).
    """

    def __init__(self, size, interpolations=(cv2.INTER_LINEAR,)):
        self.size, self.interpolations = size, interpolations

    def __call__(self, image, boxes, labels, rng):
        drawn = rng.integers(len(self.interpolations)) if len(self.interpolations) > 1 else 0
        return resize(image, self.size, self.interpolations[drawn]), boxes, labels


class HorizontalFlip:
    """Mirrors image and boxes with probability 1/2."""

    def __call__(self, image, boxes, labels, rng):
        if rng.uniform() < 0.5:
            return image, boxes, labels
        x1, y1, x2, y2 = boxes.T
        return cv2.flip(image, 1), np.stack([1 - x2, y1, 1 - x1, y2], axis=1), labels


def look(image, boxes, labels, window, fill=GREY):
    """What a window shows: its pixels, `fill` where there is no image, and the boxes whose centre it holds."""
    height, width = image.shape[:2]
    if (window == (0, 0, width, height)).all():
        return image, boxes, labels
    x1, y1, x2, y2 = visible = np.clip(window, 0, (width, height, width, height))
    left, top, right, bottom = np.abs(window - visible).tolist()
    image = image[y1:y2, x1:x2]
    if left or top or right or bottom:
        image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=fill)
    region = window / (width, height, width, height)
    inside = centered(boxes, region)
    return image, seen_from(boxes[inside], region), labels[inside]


def centered(boxes, regions):
    """Whether the centres of boxes [.., 4] lie within regions [.., 4] -> [..] bool."""
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    return ((center > regions[..., :2]) & (center < regions[..., 2:])).all(axis=-1)


def seen_from(boxes, region):
    """Boxes [N, 4] as fractions of a region [4] of the image, what lies outside cut off."""
    origin, extent = np.tile(region[:2], 2), np.tile(region[2:] - region[:2], 2)
    return np.clip((boxes - origin) / extent, 0, 1).astype(np.float32)


def resize(image, size, interpolation=cv2.INTER_LINEAR):
    """uint8 [H, W, 3] -> [size, size, 3]: the one resize of training, evaluation and prediction.

    interpolation: OpenCV's, or "bilinear" (OpenCV's too), or "antialias", which when it shrinks an image means over all
    pixels that fall together (Pillow's bilinear, as in torchvision's transforms).
    """
    if interpolation == "antialias":
        return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    interpolation = cv2.INTER_LINEAR if interpolation == "bilinear" else interpolation
    return cv2.resize(image, (size, size), interpolation=interpolation)


def augment(image, boxes, labels, policy, size, rng):
    """Runs a policy; boxes that end up under one network pixel are dropped. Returns image, boxes, labels."""
    for transform in policy:
        image, boxes, labels = transform(image, boxes, labels, rng)
    kept = ((boxes[:, 2:] - boxes[:, :2]) * size >= SMALLEST_PIXELS).all(axis=1)
    return np.ascontiguousarray(image), boxes[kept], labels[kept]
