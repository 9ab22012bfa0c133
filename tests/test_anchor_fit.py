"""Shapes for the anchors of a data set: the gain that is told is measured on the boxes, with the shapes as printed."""
import os
import re
import sys

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, os.path.join(ROOT, "scripts"))
import anchor_stats  # (found by the line above)

from src.anchor_fit import center_offsets, fit_anchors, fit_shapes, overlaps
from src.anchors import replace_shapes, split_levels, tile_anchors
from src.boxes import iou, to_centers, to_corners

ANCHORS = tile_anchors([16, 8, 4], [1 / 16, 1 / 8, 1 / 4],
                       [np.array([[s, s], [s * 1.41, s / 1.41], [s / 1.41, s * 1.41]]) for s in (0.12, 0.3, 0.6)])


def draw_boxes(count, size, aspect, seed=0):
    """Corner boxes [count, 4] around a geometric mean of the sides and an aspect ratio, inside the image."""
    rng = np.random.default_rng(seed)
    size, aspect = (value * np.exp(rng.normal(0, 0.15, count)) for value in (size, aspect))
    sides = np.stack([size * np.sqrt(aspect), size / np.sqrt(aspect)], axis=1)
    corner = rng.uniform(0, 1, (count, 2)) * (1 - sides)
    return np.concatenate([corner, corner + sides], axis=1)


LEVELS = split_levels(ANCHORS)


def suggest(boxes, threshold=0.5):
    """The text for boxes and ANCHORS at 320 pixels, and the share that the present anchors match."""
    fit = fit_anchors(boxes, ANCHORS, LEVELS, threshold=threshold, image_size=320)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * 320 ** 2
    return anchor_stats.suggestion(fit, areas, threshold=threshold), (fit.before >= threshold).mean()


def brute_share(boxes, shapes, threshold=0.5):
    """Share of boxes that some anchor of these shapes in pixels of 320 matches: every pair is compared."""
    anchors = np.concatenate([tile_anchors([side], [1 / side], [np.array(level_shapes) / 320])
                              for side, level_shapes in zip((16, 8, 4), shapes)])
    return (iou(boxes, to_corners(anchors)).max(axis=1) >= threshold).mean()


@pytest.mark.parametrize("size, aspect", [(0.2, 4.0), (0.08, 1.0), (0.42, 0.4)])
def test_better_shapes_are_found_and_their_share_is_true(size, aspect):
    boxes = draw_boxes(600, size, aspect)
    text, before = suggest(boxes)
    shares = re.match(r"fitted shapes match ([\d.]+)% .* ones ([\d.]+)%", text).groups()
    after, now = (float(share) / 100 for share in shares)
    shapes = [[[float(side) for side in shape.split("x")] for shape in line.split()]
              for line in text.splitlines() if line.startswith("  ")]
    assert [len(level) for level in shapes] == [3, 3, 3]
    assert now == pytest.approx(before, abs=6e-4) and after == pytest.approx(brute_share(boxes, shapes), abs=6e-4)
    assert after > now + 0.1
    assert re.search(rf"all {now:.1%} -> {after:.1%}", text)


def test_nothing_is_suggested_where_the_anchors_fit():
    inside = to_corners(ANCHORS.astype(np.float64))
    inside = inside[(inside >= 0).all(axis=1) & (inside <= 1).all(axis=1)]
    text, before = suggest(inside)
    assert before == 1 and "fitted" not in text
    assert text.startswith("no better shapes were found: the present anchors match 100.0%")
    assert "keep the present" in text


def test_nothing_is_suggested_where_nothing_can_match():
    # two pixels large: no level goes below the distance of its centres
    text, before = suggest(draw_boxes(200, 2 / 320, 1.0))
    assert before == 0 and "fitted" not in text


@pytest.mark.parametrize("seed", range(6))
def test_no_suggestion_is_worse(seed):
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([draw_boxes(40, size, aspect, seed) for size, aspect
                            in zip(rng.uniform(0.03, 0.7, 4), rng.uniform(0.3, 3, 4))]).clip(0, 1)
    text, before = suggest(boxes, 0.6)
    if "fitted" in text:
        assert float(re.match(r"fitted shapes match ([\d.]+)%", text)[1]) / 100 >= before + 0.009


@pytest.mark.parametrize("count", [1, 2])
def test_hardly_any_boxes(count):
    shapes = fit_shapes(draw_boxes(count, 0.2, 1.0), ANCHORS, LEVELS, threshold=0.5, image_size=320)
    assert np.shape(shapes) == (3, 3, 2) and np.isfinite(shapes).all()


def means_of(shapes):
    """The geometric mean of the sides of each level."""
    return [np.exp(np.log(level).mean()) for level in shapes]


def test_shapes_keep_the_distance_of_their_centres():
    """Half of it on the first level; boxes of 0.8 of the distance there would have smaller ones elsewhere."""
    fitted = fit_shapes(draw_boxes(300, 0.05, 1.0), ANCHORS, LEVELS, threshold=0.5, image_size=320)
    limits = [320 / level.side for level in LEVELS]
    assert all(np.sqrt(shapes.prod(axis=1)).min() > 0.99 * limit for shapes, limit in zip(fitted[1:], limits[1:]))
    assert 0.5 * limits[0] < np.sqrt(fitted[0].prod(axis=1)).min() < limits[0]


@pytest.mark.parametrize("seed", range(4))
def test_sizes_rise_from_level_to_level(seed):
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([draw_boxes(60, size, aspect, seed) for size, aspect
                            in zip(rng.uniform(0.02, 0.9, 4), rng.uniform(0.2, 5, 4))]).clip(0, 1)
    means = means_of(fit_shapes(boxes, ANCHORS, LEVELS, threshold=0.5, image_size=320))
    assert means[0] < means[1] * 1.01 and means[1] < means[2] * 1.01


def test_shapes_of_one_level_are_fitted_apart():
    """Wide and high boxes, for which the level has a shape each."""
    boxes = np.concatenate([draw_boxes(200, 0.15, aspect, seed) for seed, aspect in enumerate((5.0, 0.2))]).clip(0, 1)
    shapes = np.concatenate(fit_shapes(boxes, ANCHORS, LEVELS, threshold=0.5, image_size=320))
    ratios = np.log2(shapes[:, 0] / shapes[:, 1])
    assert ratios.max() > 1.5 and ratios.min() < -1.5


def test_levels_that_no_box_needs_stay():
    fitted = fit_shapes(draw_boxes(300, 0.1, 1.0), ANCHORS, LEVELS, threshold=0.5, image_size=320)
    assert np.allclose(fitted[2], LEVELS[2].shapes * 320, atol=0.05)


def test_the_best_overlap_of_a_level_is_that_of_every_pair():
    boxes = np.concatenate([draw_boxes(50, 0.3, 2.0), [[0, 0, 0, 0], [0, 0, 1, 1]]])
    for (start, side, shapes), offset in zip(split_levels(ANCHORS), center_offsets(boxes, ANCHORS, LEVELS)):
        stop = start + side * side * len(shapes)
        every = iou(boxes, to_corners(ANCHORS[start:stop].astype(np.float64))).max(axis=1)
        found = overlaps(to_centers(boxes)[:, 2:], offset, shapes).max(axis=1)
        np.testing.assert_allclose(found, every, atol=1e-6)


def test_shapes_are_replaced_level_by_level():
    shapes = [np.full((3, 2), size) for size in (0.1, 0.2, 0.3)]
    anchors = replace_shapes(ANCHORS, LEVELS, shapes)
    assert np.array_equal(anchors[:, :2], ANCHORS[:, :2]) and anchors.dtype == np.float32
    assert all(np.allclose(level.shapes, new) for level, new in zip(split_levels(anchors), shapes))
    with pytest.raises(ValueError, match="the anchors have"):
        replace_shapes(ANCHORS, LEVELS, shapes[:2])
