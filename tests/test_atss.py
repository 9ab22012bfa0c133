"""ATSS: candidates, thresholds and owners worked out by hand, and against the paper's algorithm written plainly."""
import numpy as np
import pytest

from src import boxes
from src.anchors import grid_shapes, split_levels, ssd_shapes, tile_anchors
from src.atss import Atss, nearest_cells, thresholds
from src.config import read_options
from src.matching import Matcher
from src.training.checks import threshold_hint

# anchors 0..15: 4 x 4 cells, squares of .25; 16..19: 2 x 2 cells, squares of .5
ANCHORS = tile_anchors([4, 2], [0.25, 0.5], [np.array([[0.25, 0.25]]), np.array([[0.5, 0.5]])])
CELL = [0.25, 0.25, 0.5, 0.5]         # anchor 5
WIDE = [0.125, 0.125, 0.625, 0.625]   # around the centre of anchor 5, twice as wide
STRIDES = [8 / 640, 16 / 640, 32 / 640, 64 / 640, 128 / 640]
GRIDS = {"fpn": tile_anchors([80, 40, 20, 10, 5], STRIDES, grid_shapes(STRIDES)),
         "ssd": tile_anchors([19, 10, 5, 3, 2, 1], [1 / 19, 0.1, 0.2, 1 / 3, 0.5, 1],
                             ssd_shapes((0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1), [(2,), *[(2, 3)] * 5])),
         "clipped": tile_anchors([30, 9], [0.04, 0.13], [np.array([[0.1, 0.2], [0.3, 0.3]])] * 2).clip(0, 1)}


def match(rows, labels=None):
    """The anchors that the boxes get: their label by anchor number."""
    labels = np.arange(1, len(rows) + 1) if labels is None else labels
    found, _ = Matcher(ANCHORS, rule="atss")(np.array(rows, np.float32).reshape(-1, 4), np.array(labels, np.int32))
    return {int(anchor): int(found[anchor]) for anchor in np.flatnonzero(found)}


def test_candidates_are_all_shapes_of_the_nine_nearest_cells_of_a_level():
    two_shapes = tile_anchors([4, 2], [0.25, 0.5], [np.array([[0.25, 0.25], [0.1, 0.3]])] * 2)
    found = Atss(two_shapes).candidates(np.array([[0.375, 0.375]], np.float32))[0]
    cells = [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert sorted(found) == [2 * cell + shape for cell in cells for shape in (0, 1)] + list(range(32, 40))
    assert found[:2].tolist() == [10, 11]  # cell 5, the nearest, comes first


def test_nearest_cells_at_a_corner_and_on_a_small_level():
    places = np.array([0.125, 0.375, 0.625, 0.875])
    corner = nearest_cells(np.array([[0.0, 0.0]]), places, places)[0]
    # in units of .125, squared: cell 0 has 1 + 1; 1 and 4: 9 + 1; 5: 18; 2 and 8: 26; 6 and 9: 34; 3, 10, 12: 50
    assert corner.tolist() == [0, 1, 4, 5, 2, 8, 6, 9, 3]
    assert nearest_cells(np.array([[0.9, 0.9]]), places[1:3], places[1:3]).tolist() == [[3, 1, 2, 0]]


def test_the_threshold_is_mean_plus_deviation():
    # IoUs 0 0 .6: mean .2, squares .04 .04 .16 over 2 = .12
    assert np.allclose(thresholds(np.array([[0, 0, 0.6], [0.3, 0.3, 0.3]])), [0.2 + 0.12 ** 0.5, 0.3])
    assert thresholds(np.array([[0.4]])) == 0.4  # one anchor alone has no deviation


def test_a_box_like_an_anchor_takes_it_alone():
    # 13 candidates: IoU 1 with anchor 5, .25 with 16, 0 with the others: threshold .096 + .280 = .376
    assert match([CELL]) == {5: 1}


def test_a_box_between_two_sizes_takes_both():
    # anchor 5: .25; its four neighbours .111, the four at corners .053; anchor 16: .391, 17 and 18: .103, 19: .032;
    # mean .118, deviation .099: threshold .217
    assert match([WIDE]) == {5: 1, 16: 1}


def test_the_centre_must_lie_inside_but_no_box_is_left_out():
    # IoU .32 with anchor 5 is far above the threshold of .12, but its centre, x .375, is outside: it is only the best
    thin = [0.26, 0.25, 0.34, 0.5]
    assert match([thin]) == {5: 1}
    # WIDE keeps anchor 16, so that the thin one gets anchor 5; that of equal size has more IoU with it and keeps it
    assert match([WIDE, thin]) == {16: 1, 5: 2}
    assert match([CELL, thin]) == {5: 1, 16: 2}  # the only anchor of CELL stays: IoU .08 with 16 is the next


def test_nested_boxes_share_by_the_highest_iou():
    assert match([WIDE, CELL]) == {16: 1, 5: 2} and match([CELL, WIDE]) == {5: 1, 16: 2}


def test_touching_boxes_take_their_own_anchors():
    assert match([CELL, [0.5, 0.25, 0.75, 0.5]]) == {5: 1, 6: 2}


def test_identical_boxes_take_an_anchor_each_the_best_first():
    # both claim 5 and 16, the first gets them and gives 16, the best, to the second; the third gets a neighbour of 5
    assert match([WIDE, WIDE]) == {5: 1, 16: 2}
    assert match([WIDE, WIDE, WIDE]) == {5: 1, 16: 2, 1: 3}


def test_more_boxes_than_anchors():
    found = match([CELL] * 30)
    assert len(found) == 13 and set(found.values()) == set(range(1, 14))


@pytest.mark.parametrize("box", [[0.3, 0.3, 0.301, 0.301], [0.3, 0.3, 0.3, 0.3], [0.3, 0.4, 0.3, 0.45]])
def test_a_tiny_or_empty_box_gets_the_nearest_anchor(box):
    labels, targets = Matcher(ANCHORS, rule="atss")(np.array([box], np.float32), np.array([7], np.int32))
    assert np.flatnonzero(labels).tolist() == [5] and np.isfinite(targets).all()


def random_boxes(count):
    rng = np.random.default_rng(count)
    center, size = rng.random((count, 2)), rng.random((count, 2)) ** 3 * 0.8 + 0.002  # many small ones
    return np.clip(np.concatenate([center - size / 2, center + size / 2], axis=1), 0, 1).astype(np.float32)


def by_the_paper(anchors, gt_boxes):
    """Claims [N, A] and IoUs [N, A]: algorithm 1, box by box, with distances to all anchors."""
    overlap, claims = boxes.iou(gt_boxes, boxes.to_corners(anchors)), np.zeros((len(gt_boxes), len(anchors)), bool)
    for number, box in enumerate(gt_boxes):
        away = ((boxes.to_centers(box)[:2] - anchors[:, :2]) ** 2).sum(axis=1)
        candidates = []
        for start, side, shapes in split_levels(anchors):
            level = away[start:start + side * side * len(shapes)]
            candidates.extend(start + np.argsort(level, kind="stable")[:9 * len(shapes)])
        own = overlap[number, candidates]
        threshold = own.mean() + (own.std(ddof=1) if len(own) > 1 else 0)
        center = anchors[candidates, :2]
        inside = ((center > box[:2]) & (center < box[2:])).all(axis=1)
        claims[number, np.array(candidates)[(own >= threshold) & inside]] = True
    return claims, overlap


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("count", [0, 1, 7, 60, 200])
def test_owners_are_those_of_the_paper_and_no_box_is_lost(name, count):
    anchors, gt_boxes = GRIDS[name], random_boxes(count)
    owner = Atss(anchors).owners(gt_boxes)
    assert owner.shape == (len(anchors),) and owner.min() >= -1 and owner.max(initial=-1) < count
    held = np.bincount(owner[owner >= 0], minlength=count)
    assert (held > 0).all()
    if count == 0:
        return
    claims, overlap = by_the_paper(anchors, gt_boxes)
    expected = np.where(claims.any(axis=0), np.where(claims, overlap, -1).argmax(axis=0), -1)
    kept = np.isin(np.arange(count), expected)
    changed = owner[owner != expected]
    assert len(changed) == (~kept).sum() and set(changed) == set(np.flatnonzero(~kept))  # one anchor for each lost box


def test_labels_and_targets_of_the_matcher():
    gt_boxes, labels = random_boxes(60), np.arange(60, dtype=np.int32) % 5 + 1
    found, targets = Matcher(GRIDS["ssd"], rule="atss")(gt_boxes, labels)
    assert found.dtype == np.int32 and targets.dtype == np.float32 and set(np.unique(found)) <= set(range(6))
    positive = found > 0
    decoded = boxes.decode(targets, GRIDS["ssd"])[positive]
    nearest = np.abs(decoded[:, None] - gt_boxes).sum(axis=2).argmin(axis=1)
    assert np.allclose(decoded, gt_boxes[nearest], atol=1e-5) and (found[positive] == labels[nearest]).all()
    assert (targets[~positive] == 0).all()


def test_a_typed_threshold_that_has_no_effect_is_named():
    assert threshold_hint(read_options(["--matching=atss"])) == ""
    assert threshold_hint(read_options(["--match_threshold=0.4"])) == ""
    assert "--match_threshold is not used" in threshold_hint(read_options(["--matching=atss", "--match_threshold=0.4"]))
