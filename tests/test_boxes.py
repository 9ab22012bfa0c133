"""Box arithmetic and matching against numbers worked out by hand."""
import numpy as np
import pytest

from src import boxes
from src.anchors import grid_shapes, ssd_shapes, tile_anchors
from src.matching import Matcher, Overlaps

ANCHORS = np.array([[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5], [0.5, 0.5, 0.2, 0.4]], np.float32)


def test_corner_and_centre_boxes_are_inverse():
    corners = np.array([[0.1, 0.2, 0.5, 0.8], [0, 0, 1, 1]], np.float32)
    assert np.allclose(boxes.to_centers(corners), [[0.3, 0.5, 0.4, 0.6], [0.5, 0.5, 1, 1]])
    assert np.allclose(boxes.to_corners(boxes.to_centers(corners)), corners)


def test_iou_by_hand():
    first = np.array([[0, 0, 2, 2], [0, 0, 1, 1]], np.float32)
    second = np.array([[1, 1, 3, 3], [0, 0, 2, 1], [5, 5, 6, 6], [1, 1, 1, 1]], np.float32)
    assert np.allclose(boxes.iou(first, second), [[1 / 7, 0.5, 0, 0], [0, 0.5, 0, 0]])


def test_iou_of_empty_boxes_is_zero_not_nan():
    empty = np.zeros((1, 4), np.float32)
    assert boxes.iou(empty, empty) == 0
    assert boxes.iou(np.zeros((0, 4), np.float32), ANCHORS).shape == (0, 3)


def test_encode_by_hand():
    # anchor centre .25 size .5; box centre .3, .2, size .25, 1:
    # dx = .05 / (.5 * .1) = 1, dy = -1, dw = ln(.5) / .2, dh = ln(2) / .2
    box = boxes.to_corners(np.array([[0.3, 0.2, 0.25, 1.0]], np.float32))
    assert np.allclose(boxes.encode(box, ANCHORS[:1]), [[1, -1, np.log(0.5) / 0.2, np.log(2) / 0.2]], atol=1e-5)


def test_encode_and_decode_are_inverse():
    rng = np.random.default_rng(0)
    box = np.sort(rng.random((3, 2, 2)), axis=1).reshape(3, 4).astype(np.float32)
    assert np.allclose(boxes.decode(boxes.encode(box, ANCHORS), ANCHORS), box, atol=1e-6)


def test_a_box_without_extent_has_finite_targets():
    assert np.isfinite(boxes.encode(np.array([[0.5, 0.5, 0.5, 0.5]], np.float32), ANCHORS[:1])).all()


def test_every_ground_truth_gets_its_best_anchor():
    # IoU with anchor 0 is .01 / .25 = .04: far below the threshold, but the best there is
    labels, targets = Matcher(ANCHORS)(np.array([[0.1, 0.1, 0.2, 0.2]], np.float32), np.array([7], np.int32))
    assert labels.tolist() == [7, 0, 0]
    assert np.allclose(boxes.decode(targets, ANCHORS)[0], [0.1, 0.1, 0.2, 0.2], atol=1e-6)
    assert (targets[1:] == 0).all()


def test_of_two_ground_truths_with_one_best_anchor_the_first_keeps_it():
    both = np.array([[0, 0, 0.5, 0.4], [0, 0, 0.5, 0.5]], np.float32)  # IoU with anchor 0: .8 and 1
    assert Matcher(ANCHORS)(both, np.array([3, 4], np.int32))[0].tolist() == [3, 0, 0]


def test_above_the_threshold_the_highest_iou_owns_the_anchor():
    anchors = np.array([[0.25, 0.25, 0.5, 0.5], [0.25, 0.25, 0.5, 0.45], [0.25, 0.25, 0.5, 0.44]], np.float32)
    # best anchors 0 and 1; 2 overlaps the second more
    both = np.array([[0, 0, 0.5, 0.5], [0, 0.0275, 0.5, 0.4725]], np.float32)
    assert Matcher(anchors)(both, np.array([3, 4], np.int32))[0].tolist() == [3, 4, 4]


def test_iou_at_the_threshold_is_background():
    anchors = np.array([[0.5, 0.5, 1, 1], [0.25, 0.5, 0.5, 1]], np.float32)
    labels, _ = Matcher(anchors, threshold=0.5)(np.array([[0, 0, 0.5, 1]], np.float32), np.array([1], np.int32))
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize("count", [0, 1, 50])
def test_shapes_and_types_for_any_number_of_boxes(count):
    rng = np.random.default_rng(count)
    box = np.sort(rng.random((count, 2, 2)), axis=1).reshape(count, 4).astype(np.float32)
    labels, targets = Matcher(ANCHORS)(box, np.ones(count, np.int32))
    assert labels.shape == (3,) and labels.dtype == np.int32
    assert targets.shape == (3, 4) and targets.dtype == np.float32 and np.isfinite(targets).all()


STEPS = [8 / 640, 16 / 640, 32 / 640, 64 / 640, 128 / 640]
GRIDS = {"fpn": tile_anchors([80, 40, 20, 10, 5], STEPS, grid_shapes(STEPS)),
         "one cell a level": tile_anchors([3, 1], [1 / 3, 1], [np.array([[0.2, 0.4], [0.5, 0.5]])] * 2),
         "clipped": np.clip(tile_anchors([10, 3], [0.1, 1 / 3], ssd_shapes((0.2, 0.6, 1.1), [(2, 3)] * 2)), 0, 1),
         "moved inside": np.clip(tile_anchors([10, 1], [0.107, 1], [np.array([[0.2, 0.4], [0.5, 0.5]])] * 2), 0, 1),
         "no grid": np.random.default_rng(0).uniform(0.1, 0.6, (200, 4)).astype(np.float32)}


def test_only_anchors_that_are_on_no_grid_are_compared_one_by_one():
    assert [Overlaps(anchors).shapes is None for anchors in GRIDS.values()] == [False] * 4 + [True]


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("min_iou", [0.7, 0.5, 0.02, 0.0])
def test_overlaps_are_those_of_comparing_every_pair(name, min_iou):
    rng, anchors = np.random.default_rng(3), GRIDS[name]
    center, size = rng.random((30, 2)), rng.random((30, 2)) ** 3 + 0.002  # from a pixel to more than the image
    box = np.clip(np.concatenate([center - size / 2, center + size / 2], axis=1), 0, 1).astype(np.float32)
    expected = boxes.iou(box, boxes.to_corners(anchors))
    number, anchor, overlap = Overlaps(anchors).find(box, min_iou)
    found = np.zeros_like(expected)
    found[number, anchor] = overlap
    assert len(number) == (expected >= min_iou).sum()
    assert np.array_equal(found, np.where(expected >= min_iou, expected, 0))


@pytest.mark.parametrize("name", GRIDS)
def test_a_box_that_reaches_no_anchor_gets_the_first_of_the_best(name):
    thin = np.array([[0.1, 0.2, 0.9, 0.2015], [0.5, 0.5, 0.501, 0.501], [0, 0, 0, 0]], np.float32)
    expected = boxes.iou(thin, boxes.to_corners(GRIDS[name])).argmax(axis=1)
    for row, best in zip(thin, expected):
        labels, _ = Matcher(GRIDS[name])(row[None], np.array([5], np.int32))
        assert labels[best] == 5 and (labels > 0).sum() == 1
