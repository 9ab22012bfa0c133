"""Tiles of large pictures, and the boxes of all tiles as one list."""
import numpy as np
import pytest

from src.errors import OptionError
from src.inference.found import Detections
from src.inference.pipeline import detect_pictures
from src.inference.predictor import Predictor
from src.inference.sources import Picture
from src.inference.tiles import batch_size, cut, merge, read_tiles, tile_windows


def found(*rows):
    """Detections of rows (x1, y1, x2, y2, score, label)."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(int))


def test_what_is_typed():
    assert read_tiles("").tolist() == [[0, 0, 1, 1]] and read_tiles("3x2").tolist() == tile_windows(3, 2).tolist()
    for text in ("2", "2x", "0x3", "2 x 2", "9x9", "-1x2", "2X2", "1e9x1"):
        with pytest.raises(OptionError, match="expected columns x rows such as 2x2"):
            read_tiles(text)


def test_tiles_overlap_by_a_fifth_and_cover_the_picture():
    assert tile_windows(1, 1).tolist() == [[0, 0, 1, 1]]
    windows = tile_windows(3, 1)
    side = 1 / 2.6  # three sides less two overlaps of a fifth
    assert windows[1:, 0] == pytest.approx([0, 0.8 * side, 1.6 * side]) and windows[1:, 2][-1] == pytest.approx(1)
    assert windows[1:, 2] - windows[1:, 0] == pytest.approx([side] * 3)
    assert windows[1:, [1, 3]].tolist() == [[0, 1]] * 3
    rows = tile_windows(2, 2)[1:]
    assert rows[:, :2] == pytest.approx(np.array([[0, 0], [4 / 9, 0], [0, 4 / 9], [4 / 9, 4 / 9]]))


@pytest.mark.parametrize("height, width", [(90, 180), (7, 5), (1, 1)])
def test_parts_are_whole_pixels(height, width):
    pixels = np.arange(height * width * 3).reshape(height, width, 3)
    parts, exact = cut(pixels, tile_windows(2, 2))
    assert parts[0].shape == pixels.shape and len(parts) == 5
    for part, window in zip(parts, exact):
        x1, y1, x2, y2 = np.rint(window * (width, height, width, height)).astype(int)
        assert part.size and np.array_equal(part, pixels[y1:y2, x1:x2])
    if height == 90:
        assert parts[4].shape == (50, 100, 3) and exact[4] == pytest.approx([80 / 180, 40 / 90, 1, 1])


WINDOWS = np.array([[0, 0, 1, 1], [0, 0, 0.6, 1], [0.4, 0, 1, 1]])  # the picture, its left and its right part


def merged(*parts, **more):
    return merge([found(*part) for part in parts], WINDOWS, {"nms_threshold": 0.5, "max_boxes": 100, **more})


def test_boxes_of_tiles_are_fractions_of_the_picture():
    boxes, scores, labels = merged([], [(0.5, 0.5, 0.75, 1, 0.8, 1)], [(0.5, 0, 0.75, 0.5, 0.9, 2)])
    assert boxes == pytest.approx(np.array([[0.7, 0, 0.85, 0.5], [0.3, 0.5, 0.45, 1]])) and boxes.dtype == np.float32
    assert scores.tolist() == pytest.approx([0.9, 0.8]) and labels.tolist() == [2, 1]


def test_an_object_in_two_tiles_is_found_once():
    # x .42 to .54 of the picture: whole in both parts; of another class it would be another object
    left, right = (0.7, 0, 0.9, 1, 0.6, 1), (0.02 / 0.6, 0, 0.14 / 0.6, 1, 0.7, 1)
    assert merged([], [left], [right]).scores.tolist() == pytest.approx([0.7])
    assert len(merged([], [left], [(*right[:5], 2)]).scores) == 2


def test_what_a_border_cuts_off_gives_way_to_the_whole_object():
    whole, left = (0.3, 0.2, 0.9, 0.8, 0.5, 1), (0.5, 0.2, 1, 0.8, 0.95, 1)  # the latter is x .3 to .6: half of it
    assert merged([whole], [left], []).scores.tolist() == pytest.approx([0.5])
    inner = (0.5, 0.2, 0.7, 0.8, 0.95, 1)  # x .3 to .42: not at the border, so it may be an object of its own
    assert merged([whole], [inner], []).scores.tolist() == pytest.approx([0.95, 0.5])
    alone = merged([], [left], [])  # better than nothing
    assert alone.scores.tolist() == pytest.approx([0.95])
    edge = (0, 0.2, 0.2, 0.8, 0.95, 1)  # x 0 to .12, at the border of the picture, where nothing is cut off
    assert len(merged([(0, 0.2, 0.6, 0.8, 0.5, 1)], [edge], [(0, 0, 0.1, 0.1, 0.3, 2)]).scores) == 3


def test_a_tight_and_a_loose_box_of_one_object_are_one():
    # in the picture 20 x 20 of 100 x 100, in the tile 14 x 14 in the middle of that: an IoU of .49, all of it inside
    loose, tight = (0.2, 0.2, 0.4, 0.4, 0.6, 1), (0.23 / 0.6, 0.23, 0.37 / 0.6, 0.37, 0.9, 1)
    assert merged([loose], [tight], []).scores.tolist() == pytest.approx([0.9])
    assert merged([(*loose[:4], 0.95, 1)], [tight], []).scores.tolist() == pytest.approx([0.95])
    assert len(merged([loose], [(*tight[:5], 2)], []).scores) == 2, "another class is another object"
    assert len(merged([], [loose, (0.23, 0.23, 0.37, 0.37, 0.9, 1)], []).scores) == 2, "one window has its own NMS"
    small = (0.25 / 0.6, 0.25, 0.34 / 0.6, 0.34, 0.9, 1)  # a fifth of the area: a face in front of a face
    assert len(merged([loose], [small], []).scores) == 2
    beside = (0.25 / 0.6, 0.25, 0.43 / 0.6, 0.43, 0.9, 1)  # .18 x .18, of which .15 x .15 lies inside: 69 %, IoU .46
    assert len(merged([loose], [beside], []).scores) == 2


def test_no_more_than_max_boxes_and_none_at_all():
    rows = [(0.1 * number, 0, 0.1 * number + 0.05, 0.1, 0.1 * number + 0.05, 1) for number in range(9)]
    assert merged(rows, [], [], max_boxes=2).scores.tolist() == pytest.approx([0.85, 0.75])
    assert merged([], [], []).boxes.shape == (0, 4)


def detect_batch(images):
    """Finds in each square one box of class 1, left half, with the brightness of its first pixel / 100 as score."""
    count = len(images)
    return (np.tile(np.float32([0.1, 0.1, 0.5, 0.9]), (count, 1, 1)), images[:, 0, 0, :1] / np.float32(100),
            np.ones((count, 1), int), np.ones(count, int))


@pytest.mark.parametrize("batch, sizes", [(8, [5, 5]), (5, [5, 5]), (3, [3, 2, 3, 2]), (11, [10])])
def test_the_network_sees_every_tile(batch, sizes):
    sizes_seen = []
    predict = Predictor(lambda images: sizes_seen.append(int(images.any(axis=(1, 2, 3)).sum())) or detect_batch(images),
                        batch, {"image_size": 4, "classes": ["cat"], "nms_threshold": 0.5, "max_boxes": 100})
    pictures = [Picture(np.full((20, 30, 3), value, np.uint8), {"file": str(value)}) for value in (50, 60)]
    results = list(detect_pictures(predict, pictures, windows=tile_windows(2, 2)))
    assert [picture.row["file"] for picture, _ in results] == ["50", "60"] and sizes_seen == sizes
    for (_, detections), value in zip(results, (0.5, 0.6)):
        assert len(detections.scores) == 5 and set(np.round(detections.scores, 4)) == {np.float32(value)}
        alone = predict.detect(pictures[int(value > 0.5)].pixels, tile_windows(2, 2))
        assert np.array_equal(alone.boxes, detections.boxes)


@pytest.mark.parametrize("limit, windows, pictures, expected", [
    (8, 1, None, 8), (8, 1, 3, 3), (8, 1, 100, 8), (8, 5, None, 5), (8, 5, 1, 5), (16, 5, 9, 15), (2, 5, 9, 2)])
def test_how_many_at_a_time(limit, windows, pictures, expected):
    assert batch_size(limit, windows, pictures) == expected
