"""Anchors (numpy): [A, 4] cx, cy, w, h as fractions of the image, ordered level, row, column, shape."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LINEAR_SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)  # evenly from .2 to .95 (SSD paper section 2.2)


class Level(NamedTuple):
    """The anchors of one feature map."""
    start: int          # number of its first anchor
    side: int           # of the square map, in cells
    shapes: np.ndarray  # [n, 2] w, h of the anchors of every cell, fractions


def tile_anchors(maps: Sequence[int], strides: Sequence[float], shapes: Sequence[np.ndarray], *,
                 offsets: Sequence[float] | None = None) -> np.ndarray:
    """Repeats the shapes of each level over its grid -> [sum(maps^2 * n), 4] float32.

    maps: side of each square feature map in cells. strides: distance of two cell centres as a fraction of the image.
    shapes: one [n, 2] array of w, h (fractions) per level. The centre of cell (row, column) is
    (column + offset, row + offset) * stride. offsets: of each level in strides, by default 0.5.
    """
    levels = []
    for side, stride, level_shapes, offset in zip(maps, strides, shapes, offsets or [0.5] * len(maps)):
        center = (np.arange(side, dtype=np.float64) + offset) * stride
        cells = np.empty((side, side, len(level_shapes), 4))  # row, column, shape
        cells[..., 0] = center[None, :, None]
        cells[..., 1] = center[:, None, None]
        cells[..., 2:] = level_shapes
        levels.append(cells.reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def split_levels(anchors: np.ndarray, anchors_per_cell: Sequence[int] = ()) -> list[Level]:
    """The levels of anchors [A, 4] that tile_anchors made, the first level first.

    The anchors of a cell share their centre, those of a row of cells their cy. anchors_per_cell: of each level; without
    it levels of a single cell, which share their centre too, count as one.
    """
    levels, start = [], 0
    while start < len(anchors):
        centers = anchors[start:, :2]
        equal = count_equal(centers)
        count = anchors_per_cell[len(levels)] if anchors_per_cell else equal
        side = 1 if equal > count else count_equal(centers[:, 1:]) // count
        levels.append(Level(start, side, anchors[start:start + count, 2:]))
        start += side * side * count
    return levels


def count_equal(rows: np.ndarray) -> int:
    """How many of the first rows equal the first one."""
    different = (rows != rows[0]).any(axis=1)
    return int(different.argmax()) if different.any() else len(rows)


def replace_shapes(anchors: np.ndarray, levels: Sequence[Level], shapes: Sequence[np.ndarray]) -> np.ndarray:
    """Anchors [A, 4] with the same centres and other shapes: per level w, h [n, 2] (fractions), as many as before.

    levels: of the anchors, as of split_levels. Raises ValueError where the number of shapes differs.
    """
    present, given = [len(level.shapes) for level in levels], [len(level_shapes) for level_shapes in shapes]
    if present != given:
        raise ValueError(f"{given} shapes a level, the anchors have {present}")
    sizes = [np.tile(level_shapes, (level.side ** 2, 1)) for level, level_shapes in zip(levels, shapes)]
    return np.concatenate([anchors[:, :2], np.concatenate(sizes)], axis=1).astype(np.float32)


def grid_shapes(strides: Sequence[float]) -> list[np.ndarray]:
    """Shapes of the FPN detectors: 4 * stride * (1 or sqrt(2)), aspect ratios 1, 2 and 1/2. [6, 2] w, h per stride.

    Source: model zoo official/cv/SSD, GridAnchorGenerator(4, 2, [1, 2, .5]); a ratio is width / height.
    """
    shapes = np.array([(scale * math.sqrt(ratio), scale / math.sqrt(ratio))
                       for ratio in (1.0, 2.0, 0.5) for scale in (1.0, 2.0 ** 0.5)])
    return [4.0 * stride * shapes for stride in strides]


def grid_anchors(image_size: int, strides: Sequence[int]) -> np.ndarray:
    """Anchors [A, 4] of the FPN detectors, six a cell (grid_shapes), on a square image. image_size, strides: pixels.

    Where a stride does not divide the image its first centre is at 0, not at half a stride: TensorFlow Object
    Detection, multiscale_grid_anchor_generator.py.
    """
    fractions = [stride / image_size for stride in strides]
    maps = [-(-image_size // stride) for stride in strides]  # padding rounds up
    offsets = [0.0 if image_size % stride else 0.5 for stride in strides]
    return tile_anchors(maps, fractions, grid_shapes(fractions), offsets=offsets)


def ssd_shapes(scales: Sequence[float], aspect_ratios: Sequence[Sequence[float]], *,
               between_first: bool = True) -> list[np.ndarray]:
    """Shapes of the SSD paper (section 2.2). [n, 2] w, h per level.

    scales: s_k of each level, and one behind the last. A level has the square of s_k, the square of sqrt(s_k s_k+1)
    (last with between_first=False) and each of its aspect ratios both ways: (s_k sqrt(r), s_k / sqrt(r)), transposed.
    """
    levels = []
    for scale, next_scale, ratios in zip(scales, scales[1:], aspect_ratios):
        shapes = [(scale, scale)]
        for ratio in ratios:
            w, h = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            shapes += [(w, h), (h, w)]
        between = math.sqrt(scale * next_scale)
        shapes.insert(1 if between_first else len(shapes), (between, between))
        levels.append(np.array(shapes))
    return levels


class AnchorTable(NamedTuple):
    """The anchors of an SSD as its paper or configuration lists them, in pixels of its input."""
    image_size: int
    maps: tuple[int, ...]                         # side of each feature map, in cells
    strides: tuple[float, ...]                    # between two cell centres
    sizes: tuple[float, ...]                      # s_k of each level, and one behind the last
    aspect_ratios: tuple[tuple[float, ...], ...]  # of each level; each is taken both ways

    def anchors_per_cell(self) -> list[int]:
        """Shapes on each level: two squares and two for each aspect ratio."""
        return [2 + 2 * len(ratios) for ratios in self.aspect_ratios]

    def tile(self) -> np.ndarray:
        """The anchors [A, 4], not clipped to the image."""
        strides = [stride / self.image_size for stride in self.strides]
        scales = [size / self.image_size for size in self.sizes]
        return tile_anchors(self.maps, strides, ssd_shapes(scales, self.aspect_ratios))


def reduced_shapes(first: float, scales: Sequence[float], *, third: float | None = None) -> list[np.ndarray]:
    """Shapes of the SSDs with 1917 anchors: on the first level a square of `first` and ratio 2 both ways, then six.

    Reduced is the number of shapes on the first level, to 3. scales: as of ssd_shapes. third: what stands for the ratio
    of 1 / 3. Source: TensorFlow OD `reduce_boxes_in_lowest_layer`, model zoo official/cv/SSD, Paddle.
    """
    shapes = ssd_shapes(scales, [(2.0, 3.0)] * (len(scales) - 1), between_first=False)
    if third:
        for scale, level in zip(scales, shapes):
            level[4] = scale * math.sqrt(third), scale / math.sqrt(third)
    return [np.concatenate([[(first, first)], shapes[0][1:3]]), *shapes[1:]]


def reduced_anchors(image_size: int, shapes: Sequence[np.ndarray], *, zoo_strides: bool = False) -> np.ndarray:
    """Anchors [A, 4] of six levels of strides 16 to 512 with reduced_shapes, three on the first level; 1917 at 300.

    They sit in the middle of their cells; the model zoo instead has strides of 16, 32, 64 pixels on the first levels.
    """
    maps = [-(-image_size // stride) for stride in (16, 32, 64, 128, 256, 512)]  # padding rounds up
    strides = [1 / side for side in maps]
    if zoo_strides:
        strides[:3] = [16 / image_size, 32 / image_size, 64 / image_size]
    return tile_anchors(maps, strides, shapes)
