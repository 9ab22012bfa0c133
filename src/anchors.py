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


def grid_shapes(steps, base=4.0, scales_per_octave=2, ratios=(1.0, 2.0, 0.5)):
    """Shapes of the FPN detectors: base * step * 2^(i/scales) for every aspect ratio, ratio-major. [n, 2] w, h a step.

    Source: model zoo official/cv/SSD, GridAnchorGenerator(4, 2, [1, 2, .5]); ratio is width / height.
    """
    scales = [2.0 ** (i / scales_per_octave) for i in range(scales_per_octave)]
    shape = [(scale * math.sqrt(ratio), scale / math.sqrt(ratio)) for ratio in ratios for scale in scales]
    return [base * step * np.array(shape) for step in steps]


def linear_shapes(levels, smallest=0.2, largest=0.95, ratios=(2.0, 3.0), first=0.1):
    """Shapes of SSD300, scales s_k spaced evenly from smallest to largest (SSD paper section 2.2). [n, 2] w, h a level.

    Level 0 has three (a square of `first`, ratio 2 both ways); the others 1, each ratio both ways, and the square of
    sqrt(s_k s_k+1) last. Source: model zoo official/cv/SSD and TensorFlow OD `reduce_boxes_in_lowest_layer`.
    """
    scales = [smallest + (largest - smallest) * k / (levels - 1) for k in range(levels)] + [1.0]
    wide = [(math.sqrt(ratio), 1 / math.sqrt(ratio)) for ratio in ratios]
    shapes = [np.array([(first, first), *[(scales[0] * w, scales[0] * h) for w, h in (wide[0], wide[0][::-1])]])]
    for scale, following in zip(scales[1:-1], scales[2:]):
        shape = [(scale, scale)]
        for w, h in wide:
            shape += [(scale * w, scale * h), (scale * h, scale * w)]
        shapes.append(np.array([*shape, (math.sqrt(scale * following),) * 2]))
    return shapes
