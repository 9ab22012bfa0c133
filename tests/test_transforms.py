"""Augmentation: exact pixels where they can be said, invariants over many draws elsewhere."""
from types import SimpleNamespace

import numpy as np
import pytest

from src import boxes as box_ops
from src.data import transforms
from src.data.photometric import (
    add_brightness,
    adjust_brightness,
    adjust_contrast,
    adjust_hsv,
    adjust_hsv_saturation,
    adjust_hue,
    adjust_saturation,
)
from src.data.policies import build_policy
from src.data.resize import resize
from src.data.transforms import Expand, ExpandThenCrop, HorizontalFlip, MinIoUCrop, Resize, Sample, augment

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
BOXES = np.array([[0.1, 0.2, 0.4, 0.9], [0.5, 0.5, 0.6, 0.6]], np.float32)
LABELS = np.array([1, 2], np.int32)
SAMPLE = Sample(IMAGE, BOXES, LABELS)
EMPTY = Sample(IMAGE, BOXES[:0], LABELS[:0])


class Fixed:
    """A generator whose uniform() is known."""

    def __init__(self, value):
        self.value = value

    def uniform(self, *_):
        return self.value


class Script:
    """A generator that answers with the given values: shares of the range for uniform(), numbers for integers()."""

    def __init__(self, *values):
        self.values = list(values)

    def uniform(self, low=0.0, high=1.0, size=None):
        return low + (high - low) * np.array(self.values.pop(0))

    def integers(self, _):
        return self.values.pop(0)


def test_flip_mirrors_image_and_boxes():
    image, boxes, labels = HorizontalFlip()(SAMPLE, Fixed(0.9))
    assert np.array_equal(image, IMAGE[:, ::-1])
    assert np.allclose(boxes, [[0.6, 0.2, 0.9, 0.9], [0.4, 0.5, 0.5, 0.6]]) and labels is LABELS
    assert HorizontalFlip()(SAMPLE, Fixed(0.1))[0] is IMAGE
    assert HorizontalFlip()(EMPTY, Fixed(0.9))[1].shape == (0, 4)


def test_resize_keeps_fractions():
    image, boxes, _ = Resize(32)(SAMPLE, None)
    assert image.shape == (32, 32, 3) and boxes is BOXES


def test_brightness_contrast_saturation_by_hand():
    grey = np.full((2, 2, 3), 100, np.uint8)
    assert (adjust_brightness(grey, 1.4) == 140).all() and (adjust_brightness(grey, 3) == 255).all()
    assert (adjust_contrast(grey, 0.6) == 100).all() and (adjust_saturation(grey, 0.6) == 100).all()
    pair = np.array([[[50] * 3, [150] * 3]], np.uint8)
    assert adjust_contrast(pair, 1.4)[0, :, 0].tolist() == [30, 170]
    red = np.array([[[200, 0, 0]]], np.uint8)  # its grey is .299 * 200 = 60
    assert adjust_saturation(red, 0.5)[0, 0].tolist() == [130, 30, 30]


def test_saturation_and_hue_share_one_way_to_hsv_and_back():
    """The steps of policy ssd, all with the lowest amount: brightness, saturation, hue, contrast."""
    lowest = SimpleNamespace(integers=lambda _: 1, uniform=lambda low=0.0, high=1.0: low)
    darker = add_brightness(IMAGE, -32)
    expected = adjust_brightness(adjust_hsv(darker, turns=-0.05, factor=0.5), 0.5)
    distorted = build_policy("ssd", 32)[0].distort(SAMPLE, lowest).image
    assert np.array_equal(distorted, expected)
    apart = adjust_brightness(adjust_hue(adjust_hsv_saturation(darker, 0.5), -0.05), 0.5)
    assert abs(apart.astype(int) - expected).max() <= 4, "it is rounded less often, else the same"


@pytest.mark.parametrize("seed", range(30))
def test_crop_is_exact(seed):
    """The pixels in a kept box are those of the box before: colours mark the two boxes."""
    image = np.zeros((200, 300, 3), np.uint8)
    image[40:180, 30:120] = 100
    image[100:120, 150:180] = 200
    cropped, boxes, labels = MinIoUCrop()(Sample(image, BOXES, LABELS), np.random.default_rng(seed))
    assert len(boxes) == len(labels) >= 1 and (boxes >= 0).all() and (boxes <= 1).all()
    assert 0.5 <= cropped.shape[0] / cropped.shape[1] <= 2.02 or cropped.shape == image.shape
    for box, label in zip(boxes, labels):
        rows, columns = np.nonzero(cropped[..., 0] == 100 * label)
        height, width = cropped.shape[:2]
        found = [columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height]
        assert np.allclose(box, found, atol=1e-5)


def test_the_zoo_crop_draws_what_it_always_drew():
    """Windows, and the number drawn after each, of the first release: results of trained networks depend on them."""
    expected = [66, 133, 427, 371, 448], [318, 61, 507, 369, 921], [8, 3, 370, 382, 868], [132, 96, 359, 359, 670]
    for seed, numbers in enumerate(expected):
        rng = np.random.default_rng((1, 2, seed))
        assert [*MinIoUCrop().draw_window(BOXES, (600, 400), rng).tolist(), rng.integers(1000)] == numbers


def test_crop_leaves_an_image_without_boxes_alone():
    image, boxes, _ = MinIoUCrop()(EMPTY, np.random.default_rng(0))
    assert image is IMAGE and boxes.shape == (0, 4)


@pytest.mark.parametrize("name", ["zoo", "plain"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50, 3), (40, 60, 3)])
def test_policies_give_network_input_for_any_image(name, shape):
    for seed in range(10):
        sample = Sample(np.zeros(shape, np.uint8), BOXES, LABELS)
        image, boxes, labels = augment(sample, build_policy(name, 64), size=64, rng=np.random.default_rng(seed))
        assert image.shape == (64, 64, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
        assert len(boxes) == len(labels) and boxes.dtype == np.float32


def test_the_same_generator_gives_the_same_sample():
    first, second = (augment(SAMPLE, build_policy("zoo", 64), size=64, rng=np.random.default_rng((1, 2, 3)))
                     for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second))


def test_boxes_under_a_network_pixel_are_dropped():
    tiny = np.array([[0.5, 0.5, 0.51, 0.9], [0.1, 0.1, 0.5, 0.5]], np.float32)
    _, boxes, labels = augment(Sample(IMAGE, tiny, LABELS), build_policy("plain", 64), size=64,
                               rng=np.random.default_rng(0))
    assert np.array_equal(boxes, tiny[1:]) and labels.tolist() == [2]


def test_expand_places_image_and_boxes_by_hand():
    """40 x 60 pixels, ratio 2: a canvas of 80 x 120, half of the 60 free columns at the left, 1/4 of 40 rows above."""
    image, boxes, labels = Expand((1, 2, 3))(SAMPLE, Script(0.9, 1 / 3, (0.5, 0.25)))
    assert image.shape == (80, 120, 3) and np.array_equal(image[10:50, 30:90], IMAGE)
    image[10:50, 30:90] = (1, 2, 3)
    assert (image == (1, 2, 3)).all()
    assert np.allclose(boxes, [[0.3, 0.225, 0.45, 0.575], [0.5, 0.375, 0.55, 0.425]]) and np.array_equal(labels, LABELS)
    assert boxes.dtype == np.float32
    assert Expand()(SAMPLE, Script(0.1, (0.5, 0.5)))[0] is IMAGE


def test_half_a_grey_level_fills_as_opencv_rounds():
    image, *_ = Expand()(SAMPLE, Script(0.9, 1 / 3, (0, 0)))
    assert (image[-1, -1] == 128).all()


@pytest.mark.parametrize("seed", range(40))
def test_expand_then_crop_in_one_copy_equals_the_three_steps(seed):
    """The same draws, made one after the other on a real canvas; 255 - pixel stands for the distortion."""
    def invert(sample, rng):
        return sample._replace(image=255 - sample.image)

    expand = Expand((7, 8, 9))
    crop = MinIoUCrop(min_ious=(None, 0.1, 0.3, 0), accepts=transforms.any_reaches, draw_sides=transforms.scaled_sides,
                      shuffled=True, at_once=50)
    rng = np.random.default_rng(seed)
    expected = crop(expand(invert(SAMPLE, rng), rng), rng)
    image, boxes, labels = ExpandThenCrop(expand, crop, invert)(SAMPLE, np.random.default_rng(seed))
    assert np.array_equal(image, expected[0]) and np.array_equal(labels, expected[2])
    assert boxes.shape == expected[1].shape and np.allclose(boxes, expected[1], atol=1e-5)


@pytest.mark.parametrize("rule, minimum, expected", [
    # by the left half, the whole image, the right half
    ("not_between", 0.1, [False, True, False]), ("not_between", 0.5, [False, True, True]),
    ("not_between", 0.9, [True, True, True]),
    ("any_reaches", 0, [True, True, True]), ("any_reaches", 0.5, [True, False, True]),
    ("any_reaches", 0.7, [True, False, False]),
    ("all_reach", 0, [True, True, True]), ("all_reach", 0.25, [False, True, False]),
    ("all_exceed", 0, [False, True, False]), ("all_exceed", 0.25, [False, False, False]),
    ("all_exceed", -1, [True, True, True]),
])
def test_acceptance_rules_by_hand(rule, minimum, expected):
    """One box is the left half without its lowest quarter, the other the lower right quarter of the image."""
    boxes = np.array([[0, 0, 0.5, 0.75], [0.5, 0.5, 1, 1]])
    overlap = box_ops.iou(boxes, np.array([[0, 0, 0.5, 1], [0, 0, 1, 1], [0.5, 0, 1, 1]]))
    assert overlap.tolist() == [[0.75, 0.375, 0], [0, 0.25, 0.5]]
    assert getattr(transforms, rule)(overlap, minimum).tolist() == expected


@pytest.mark.parametrize("options, draws, asked", [
    ({}, [1, *[0.0] * 50, 1, *[0.0] * 50, 0], [1] * 100),  # zoo: 50 trials, then another minimum
    ({"trials": 1, "accepts": transforms.all_exceed}, [1, 0.0, 1, 0.0, 0], [1, 1]),  # MLPerf, DALI: one
])
def test_a_minimum_that_cannot_be_had_is_drawn_again(options, draws, asked):
    """The crop is always the upper left quarter, the box lies in the lower right one."""
    window, found = window_of(MinIoUCrop(min_ious=(None, 0.9), **options), Script(*draws))
    assert window == [0, 0, 60, 40] and found == asked


def test_shuffled_minima_come_once_each_and_end_with_the_whole_image():
    """Crops of less than a pixel are never taken."""
    crop = MinIoUCrop(min_ious=(0, 0.5, 0.9), accepts=transforms.any_reaches, shuffled=True, at_once=50)
    assert window_of(crop, np.random.default_rng(0), side=1e-3) == ([0, 0, 60, 40], [50, 50, 50])


def window_of(crop, rng, side=0.5):
    """The window for one box at the lower right, and how many crops, with this share of the sides, each draw is."""
    asked = []

    def sides(size, rng, count):
        asked.append(count)
        return np.full((count, 2), side)

    crop.draw_sides = sides
    return crop.draw_window(np.array([[0.75, 0.75, 1, 1]]), (60, 40), rng).tolist(), asked


@pytest.mark.parametrize("rule, minimum", [("any_reaches", 0.3), ("all_reach", 0.1), ("all_exceed", 0.1)])
def test_a_crop_keeps_its_rule_and_the_centre_of_a_box(rule, minimum):
    boxes, cropped = np.array([[0.1, 0.1, 0.6, 0.8], [0.3, 0.2, 0.9, 0.9]]), 0
    accepts = getattr(transforms, rule)
    crop = MinIoUCrop(min_ious=(None, minimum), accepts=accepts, draw_sides=transforms.fraction_sides)
    for seed in range(200):
        region = crop.draw_window(boxes, (300, 200), np.random.default_rng(seed)) / (300, 200, 300, 200)
        uncropped = region.tolist() == [0, 0, 1, 1]
        assert uncropped or accepts(box_ops.iou(boxes, region[None]), minimum)[0]
        assert transforms.centers_inside(boxes, region).any()
        cropped += not uncropped
    assert cropped > 60


def test_every_choice_is_as_likely():
    """caffe's seven samplers where each finds a crop: one in seven images stays whole; 5 sigma of 3000 draws."""
    crop = MinIoUCrop(min_ious=(None, *[0] * 6), accepts=transforms.any_reaches, draw_sides=transforms.scaled_sides,
                      shuffled=True, at_once=50)
    rng, box = np.random.default_rng(0), np.array([[0.0, 0, 1, 1]])
    uncropped = sum(crop.draw_window(box, (900, 900), rng).tolist() == [0, 0, 900, 900] for _ in range(3000))
    assert abs(uncropped - 3000 / 7) < 5 * (3000 * 6 / 49) ** 0.5


@pytest.mark.parametrize("name", ["pixel_sides", "fraction_sides", "scaled_sides", "fitting_sides"])
def test_sides_of_crops(name):
    """On an image wider by 4 to 3; .5..2 is the ratio of pixels for the model zoo, of fractions elsewhere."""
    sides = getattr(transforms, name)((400, 300), np.random.default_rng(0), 4000)
    aspect, scale = sides[:, 0] / sides[:, 1], sides.prod(axis=1) ** 0.5
    assert sides.max() <= 1 + 1e-9 and scale.min() >= 0.3 and abs(scale.min() - 0.3) < 0.01
    if name == "pixel_sides":
        aspect *= 4 / 3
    assert 0.5 - 1e-9 <= aspect.min() < 0.52 and 1.95 < aspect.max() <= 2 + 1e-9
    touching = (abs(sides.max(axis=1) - 1) < 1e-9).mean()
    assert (touching > 0.1) == (name == "scaled_sides")  # caffe moves an aspect ratio that does not fit to the edge


def test_antialias_means_over_the_pixels_that_fall_together():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 1::2] = 200  # stripes of one pixel
    small = resize(image, 2, "antialias")
    assert np.ptp(small[..., 0]) <= 20 and abs(small.mean() - 100) < 5
    assert np.array_equal(resize(image, 2, "bilinear"), resize(image, 2))


def test_tensorflow_takes_the_pixels_that_its_rule_names():
    """Place in the image = place in the result * 4 / 2, or * 2 / 4; behind the last pixel there is none."""
    image = np.arange(0, 160, 10, dtype=np.uint8).reshape(4, 4, 1).repeat(3, axis=2)
    assert resize(image, 2, "tensorflow")[..., 0].tolist() == [[0, 20], [80, 100]]
    assert resize(image[:2, :2], 4, "tensorflow")[..., 1].tolist() == [[0, 5, 10, 10], [20, 25, 30, 30],
                                                                        [40, 45, 50, 50], [40, 45, 50, 50]]
