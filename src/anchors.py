"""Anchors (numpy): [A, 4] cx, cy, w, h as fractions of the image, ordered level, row, column, shape."""
import math

import numpy as np


def tile_anchors(maps, steps, shapes):
    """Repeats the shapes of each level over its grid.

    maps: side of each square feature map in cells. steps: distance of two cell centres as a fraction of the image.
    shapes: one [n, 2] array of w, h (fractions) a level. The centre of cell (row, column) is (column + .5, row + .5) *
    step. Returns [sum(maps^2 * n), 4] float32.
    """
    levels = []
    for side, step, shape in zip(maps, steps, shapes):
        center = (np.arange(side, dtype=np.float64) + 0.5) * step
        cy, cx = np.meshgrid(center, center, indexing="ij")
        grid = np.stack([cx, cy], axis=-1)[:, :, None].repeat(len(shape), axis=2)
        size = np.broadcast_to(np.asarray(shape, np.float64), (side, side, len(shape), 2))
        levels.append(np.concatenate([grid, size], axis=-1).reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def split_levels(anchors):
    """The levels that tile_anchors made -> [(side in cells, [n, 2] shapes w, h)], the first level first.

    anchors: [A, 4]. The anchors of a cell share their centre, those of a row of cells their cy.
    """
    levels, start = [], 0
    while start < len(anchors):
        rest = anchors[start:, :2]
        shapes = count_equal(rest)
        side = count_equal(rest[:, 1:]) // shapes
        levels.append((side, anchors[start:start + shapes, 2:]))
        start += side * side * shapes
    return levels


def replace_shapes(anchors: np.ndarray, shapes: list) -> np.ndarray:
    """Anchors [A, 4] with the same centres and other shapes: one [n, 2] of w, h (fractions) a level, as many as before.

    Raises ValueError where their number differs.
    """
    levels = split_levels(anchors)
    if [len(old) for _, old in levels] != [len(new) for new in shapes]:
        raise ValueError(f"{[len(new) for new in shapes]} shapes a level, the anchors have "
                         f"{[len(old) for _, old in levels]}")
    sizes = [np.tile(np.asarray(new, np.float64), (side * side, 1)) for (side, _), new in zip(levels, shapes)]
    return np.concatenate([anchors[:, :2], np.concatenate(sizes)], axis=1).astype(np.float32)


def count_equal(rows):
    """How many of the first rows equal the first one."""
    different = (rows != rows[0]).any(axis=1)
    return int(different.argmax()) if different.any() else len(rows)


def grid_shapes(steps, base=4.0, scales_per_octave=2, ratios=(1.0, 2.0, 0.5)):
    """Shapes of the FPN detectors: base * step * 2^(i/scales) for every aspect ratio, ratio-major. [n, 2] w, h a step.

    Source: model zoo official/cv/SSD, GridAnchorGenerator(4, 2, [1, 2, .5]); ratio is width / height.
    """
    scales = [2.0 ** (i / scales_per_octave) for i in range(scales_per_octave)]
    shape = [(scale * math.sqrt(ratio), scale / math.sqrt(ratio)) for ratio in ratios for scale in scales]
    return [base * step * np.array(shape) for step in steps]


def ssd_shapes(scales, ratios, between_first=True):
    """Shapes of a classic SSD (paper section 2.2), a scale a level and the one behind the last. [n, 2] w, h a level.

    A level has the square of its scale s_k, the square of sqrt(s_k s_k+1) (last with between_first=False) and each of
    its ratios both ways: (s_k sqrt(r), s_k / sqrt(r)), then transposed. ratios: a tuple a level.
    """
    shapes = []
    for scale, following, wide in zip(scales, scales[1:], ratios):
        own, between = [(scale, scale)], [(math.sqrt(scale * following),) * 2]
        pairs = [(scale * math.sqrt(ratio), scale / math.sqrt(ratio)) for ratio in wide]
        ratio_shapes = [shape for w, h in pairs for shape in ((w, h), (h, w))]
        shapes.append(np.array(own + between + ratio_shapes if between_first else own + ratio_shapes + between))
    return shapes


def reduced_shapes(first, scales, ratios=(2.0, 3.0)):
    """Shapes of the SSDs with 1917 anchors: three on the first level (a square of `first`, ratio 2 both ways).

    scales: as of ssd_shapes. Source: TensorFlow OD `reduce_boxes_in_lowest_layer`, model zoo official/cv/SSD, Paddle.
    """
    shapes = ssd_shapes(scales, [ratios] * (len(scales) - 1), between_first=False)
    return [np.concatenate([[(first, first)], shapes[0][1:3]]), *shapes[1:]]
