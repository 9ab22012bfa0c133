"""Mosaic: four training images make one, so that objects are smaller and stand in other surroundings.

Source: YOLOv4, https://arxiv.org/abs/2004.10934 section 3.4, which does not say how the images are scaled: the rule of
fill_tile() is ours.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from src.data.transforms import Resize, Sample, Transform, augment, crop

CENTERS = (0.25, 0.75)  # of the canvas, where the four images may meet: YOLOv5's load_mosaic; YOLOv4's code has .2, .8


def augment_mosaic(samples: list[Sample], policy: list[Transform], *, size: int, rng: Generator) -> Sample:
    """Puts four Samples side by side into a network input of size x size, as augment() does with one.

    Up to its Resize the policy runs on each of them, and what follows, such as the flip, on the mosaic.
    """
    step = next(step for step, transform in enumerate(policy) if isinstance(transform, Resize))
    canvas, boxes, labels = np.empty((size, size, 3), np.uint8), [], []
    for sample, (x1, y1, x2, y2) in zip(samples, draw_tiles(size, rng)):
        for transform in policy[:step]:
            sample = transform(sample, rng)
        part = fill_tile(sample, (x2 - x1, y2 - y1), policy[step], rng=rng)
        canvas[y1:y2, x1:x2] = part.image
        boxes.append((part.boxes * np.tile([x2 - x1, y2 - y1], 2) + [x1, y1, x1, y1]) / size)
        labels.append(part.labels)
    mosaic = Sample(canvas, np.concatenate(boxes).astype(np.float32), np.concatenate(labels))
    return augment(mosaic, policy[step + 1:], size=size, rng=rng)


def draw_tiles(size: int, rng: Generator) -> Iterator[tuple[int, int, int, int]]:
    """The four parts x1, y1, x2, y2 of a canvas of size x size, row by row, in pixels; where they meet is random."""
    x, y = (rng.uniform(*CENTERS, 2) * size).astype(int).tolist()
    for top, bottom in ((0, y), (y, size)):
        for left, right in ((0, x), (x, size)):
            yield left, top, right, bottom


def fill_tile(sample: Sample, tile: tuple[int, int], resize: Resize, *, rng: Generator) -> Sample:
    """The Sample shrunk to the square that just covers a tile (width, height), and cut to the tile at a random place.

    As in the network's input the image becomes a square, so objects keep the shape they have there. A box stays when
    its centre is in the tile.
    """
    side = max(tile)
    square = replace(resize, size=side)(sample, rng)
    corner = rng.integers(0, np.subtract(side, tile) + 1)
    return crop(square, np.concatenate([corner, corner + tile]))
