"""Named augmentation policies and their colours: formulae by hand, published numbers, probabilities, geometry."""
import numpy as np
import pytest

from src.data.loader import TrainLoader
from src.data.photometric import (
    ColorJitter,
    ColorTwist,
    PhotometricDistort,
    add_brightness,
    adjust_brightness,
    adjust_hsv_saturation,
    adjust_hue,
    twist_matrix,
)
from src.data.policies import build_policy
from src.data.resize import INTERPOLATIONS
from src.data.transforms import (
    Expand,
    ExpandThenCrop,
    HorizontalFlip,
    Resize,
    Sample,
    ScaleJitter,
    augment,
    large_sides,
)

NAMES = ("zoo", "ssd", "paddle", "mlperf", "nvidia", "tensorflow", "jitter", "flip", "plain")
NOTHING = np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
NO_IMAGE = Sample(None, *NOTHING)


def pixels(*colors):
    return np.array([colors], np.uint8)


def near(image, expected, levels):
    """Whether no pixel is further from the expected one; 8-bit HSV moves colours by some levels."""
    return abs(image - np.array(expected, float)).max() <= levels


def sigmas(count, total, probability):
    """How far a count is from what the probability promises."""
    return abs(count - total * probability) / (total * probability * (1 - probability)) ** 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50, 3), (90, 2, 3), (60, 90, 3)])
def test_any_image_gives_network_input_with_sound_boxes(name, shape):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, shape, np.uint8)
    corners = np.sort(rng.uniform(size=(6, 2, 2)), axis=1)
    boxes = np.concatenate([corners.reshape(6, 4), [[0, 0, 1, 1], [0, 0, 1e-5, 1]]]).astype(np.float32)
    for seed in range(25):
        sample = Sample(image, boxes, np.arange(8, dtype=np.int32))
        first, again = (augment(sample, build_policy(name, 64), size=64, rng=np.random.default_rng(seed))
                        for _ in range(2))
        assert all(np.array_equal(part, other) for part, other in zip(first, again))
        result, kept, labels = first
        assert result.shape == (64, 64, 3) and result.dtype == np.uint8 and result.flags.c_contiguous
        assert kept.dtype == np.float32 and len(kept) == len(labels) and labels.dtype == np.int32
        assert (kept >= 0).all() and (kept <= 1).all() and (kept[:, :2] < kept[:, 2:]).all() and 7 not in labels


@pytest.mark.parametrize("name", NAMES)
def test_an_image_without_boxes_is_augmented_too(name):
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    for seed in range(10):
        result, boxes, labels = augment(Sample(image, *NOTHING), build_policy(name, 64), size=64,
                                        rng=np.random.default_rng(seed))
        assert result.shape == (64, 64, 3) and boxes.shape == (0, 4) and labels.shape == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_grey_stays_grey(name):
    """Hue and saturation have nothing to act on; one level for the rounding of a matrix."""
    image = np.repeat(np.random.default_rng(0).integers(0, 256, (60, 90, 1), np.uint8), 3, axis=2)
    for seed in range(20):
        result = augment(Sample(image, *NOTHING), build_policy(name, 64), size=64, rng=np.random.default_rng(seed))
        assert np.ptp(result.image.astype(int), axis=2).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_box_stays_on_its_object(name):
    """A red rectangle on blue: where the image is still red after everything is where the box is, within 2 pixels."""
    image, policy = np.zeros((400, 600, 3), np.uint8), build_policy(name, 300)
    image[:], box = (20, 20, 230), np.array([[0.3, 0.25, 0.65, 0.7]], np.float32)
    image[100:280, 180:390] = (230, 20, 20)
    for seed in range(500 if name == "jitter" else 50):
        result, boxes, labels = augment(Sample(image, box, np.array([5], np.int32)), policy, size=300,
                                        rng=np.random.default_rng(seed))
        redness = result[..., 0].astype(int) - result[..., 2]
        rows, columns = np.nonzero(redness > redness.max() / 2)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert labels.tolist() == [5] and abs(boxes[0] * 300 - found).max() <= 2, (seed, boxes * 300, found)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "plain"])
def test_half_of_the_images_are_mirrored(name):
    """White stands left in a grey image; wherever an expansion puts it, white is left of black unless mirrored."""
    image, policy, rng = np.full((8, 24, 3), 128, np.uint8), build_policy(name, 48), np.random.default_rng(0)
    image[:, :8], image[:, 16:], mirrored = 250, 5, 0
    for _ in range(1500):
        row = augment(Sample(image, *NOTHING), policy, size=48, rng=rng).image.sum(axis=(0, 2), dtype=int)
        mirrored += row.argmax() > row.argmin()
    assert sigmas(mirrored, 1500, 0.5) < 5


def test_half_of_the_images_are_expanded_up_to_four_times():
    rng, widths = np.random.default_rng(0), []
    for _ in range(4000):
        x1, y1, x2, y2 = Expand().draw_window((5000, 3000), rng)
        assert x1 <= 0 and y1 <= 0 and x2 >= 5000 and y2 >= 3000
        assert abs((x2 - x1) / 5000 - (y2 - y1) / 3000) < 1e-3
        widths.append((x2 - x1) / 5000)
    widths = np.array(widths)
    assert sigmas((widths > 1).sum(), 4000, 0.5) < 5 and 3.98 < widths.max() <= 4
    assert sigmas((widths > 2.5).sum(), 4000, 0.25) < 5


@pytest.mark.parametrize("boxes", [[], [[0.1, 0.2, 0.3, 0.4], [0.9, 0.9, 1, 1], [0, 0, 0, 1]]])
def test_scale_jitter_halves_as_often_as_it_doubles(boxes):
    """The median scale is 1, a quarter of the images is larger than sqrt(2); aspect ratios change by .8..1.25."""
    rng, boxes, sides = np.random.default_rng(0), np.array(boxes).reshape(-1, 4), []
    for _ in range(4000):
        x1, y1, x2, y2 = ScaleJitter().draw_window(boxes, (5000, 3000), rng)
        assert min(0, 5000 - x2 + x1) <= x1 <= max(0, 5000 - x2 + x1), "it covers the image, or lies within"
        assert min(0, 3000 - y2 + y1) <= y1 <= max(0, 3000 - y2 + y1)
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2 * (5000, 3000)
        assert not len(boxes) or ((centers >= (x1, y1)) & (centers <= (x2, y2))).all(axis=1).any()
        sides.append((5000 / (x2 - x1), 3000 / (y2 - y1)))
    scale, aspect = np.prod(sides, axis=1) ** 0.5, np.divide(*np.transpose(sides))
    assert 0.499 < scale.min() < 0.51 and 1.98 < scale.max() < 2.01
    assert 0.799 < aspect.min() < 0.802 and 1.24 < aspect.max() < 1.251
    assert sigmas((scale > 1).sum(), 4000, 0.5) < 5 and sigmas((scale > 2 ** 0.5).sum(), 4000, 0.25) < 5


def test_large_crops_keep_three_quarters_of_the_image():
    """Of 600 x 400 pixels an aspect ratio of 1.125 to 2 fits: wider ones of 3/4 of the area are wider than it."""
    rng, boxes = np.random.default_rng(0), np.array([[0.4, 0.4, 0.6, 0.6]], np.float32)
    sides = large_sides((600, 400), rng, 4000)
    area, aspect = sides.prod(axis=1), sides[:, 0] * 600 / (sides[:, 1] * 400)
    assert 0.75 <= area.min() < 0.751 and 0.99 < area.max() <= 1 and sides.max() <= 1
    assert 1.125 <= aspect.min() < 1.13 and 1.99 < aspect.max() <= 2
    assert sigmas(len(sides), 4000, (2 - 1.125) / (3 - 0.75)) < 5
    crop = build_policy("tensorflow", 320)[0]
    areas = [np.prod(window[2:] - window[:2]) for window in (crop.draw_window(boxes, (600, 400), rng)
                                                             for _ in range(200))]
    assert 0.74 < min(areas) / 240000 and max(areas) < 240000, "every image is cropped"


def test_scale_jitter_shows_each_object_as_often():
    """Half the sides show one of two small boxes in opposite corners; an image without boxes is cut too."""
    rng, jitter = np.random.default_rng(0), ScaleJitter(scales=(2, 2), aspects=(1, 1))
    boxes = np.array([[0.01, 0.01, 0.03, 0.03], [0.97, 0.97, 0.99, 0.99]])
    left = sum(jitter.draw_window(boxes, (100, 60), rng)[0] < 25 for _ in range(2000))
    assert sigmas(left, 2000, 0.5) < 5
    image = np.zeros((60, 100, 3), np.uint8)
    assert all(jitter(Sample(image, *NOTHING), rng).image.shape == (30, 50, 3) for _ in range(20))


def test_each_distortion_is_as_likely_as_not_and_contrast_comes_second_or_last():
    seen, together, early = [], 0, 0

    def step(name):
        return lambda image, amount: (seen.append((name, amount)), image)[1]

    parts = enumerate(("brightness", "contrast", "saturation", "hue"))
    distort = PhotometricDistort(**{name: (step(name[0]), low, low + 1) for low, name in parts})
    rng, counts = np.random.default_rng(0), dict.fromkeys("bcsh", 0)
    for _ in range(4000):
        seen.clear()
        distort(NO_IMAGE, rng)
        order = "".join(name for name, _ in seen)
        for name, amount in seen:
            counts[name] += 1
            assert 0 <= amount - "bcsh".index(name) <= 1
        together += {"c", "s"} <= set(order)
        early += "cs" in order
        assert order in "bcsh bcs bch bc bsh bs bh b csh cs ch c sh s h bshc bsc bhc shc sc hc".split() + [""]
    assert all(sigmas(count, 4000, 0.5) < 5 for count in counts.values())
    assert sigmas(early, together, 0.5) < 5


def test_every_interpolation_is_as_likely(monkeypatch):
    used = dict.fromkeys(INTERPOLATIONS.values(), 0)

    def count(image, size, interpolation):
        used[interpolation] += 1
        return image

    monkeypatch.setattr("src.data.resize.cv2.resize", count)
    rng = np.random.default_rng(0)
    for _ in range(3000):
        Resize(8, tuple(INTERPOLATIONS))(NO_IMAGE, rng)
    assert len(used) == 5 and all(sigmas(count, 3000, 0.2) < 5 for count in used.values())


def test_published_numbers():
    """What the policies are made of; the sources are named where they are built."""
    window, _, flip = build_policy("ssd", 300, (1, 2, 3))
    assert isinstance(window, ExpandThenCrop) and isinstance(flip, HorizontalFlip)
    assert window.expand.fill == (1, 2, 3) and window.expand.max_ratio == 4
    assert window.crop.min_ious == (None, 0.1, 0.3, 0.5, 0.7, 0.9, 0) and window.crop.trials == 50
    assert window.distort.orders[0] == ((add_brightness, -32, 32), (adjust_brightness, 0.5, 1.5),
                                        (adjust_hsv_saturation, 0.5, 1.5), (adjust_hue, -0.05, 0.05))
    distort, window, *_ = build_policy("paddle", 300)
    assert distort.orders[0][0] == (adjust_brightness, 0.875, 1.125) and window.expand.fill == (127.5,) * 3
    assert window.crop.min_ious == (0, 0.1, 0.3, 0.5, 0.7, 0.9) and window.distort is None
    crop, *_, jitter = build_policy("mlperf", 300)
    assert crop.min_ious == (None, 0.1, 0.3, 0.5, 0.7, 0.9, -1) and crop.trials == 1
    assert [step[1:] for step in jitter.steps] == [(0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05)]
    scale, _, _, jitter = build_policy("jitter", 300, (1, 2, 3))
    assert (scale.fill, scale.scales, scale.aspects) == ((1, 2, 3), (0.5, 2), (0.8, 1.25))
    assert [step[1:] for step in jitter.steps] == [(0.8, 1.2)] * 3
    crop, *_, twist = build_policy("nvidia", 300)
    assert crop.min_ious == (None, 0, 0.1, 0.3, 0.5, 0.7, 0.9) and crop.trials == 1
    assert twist.ranges == {"hue": (-0.5, 0.5), "saturation": (0.5, 1.5), "brightness": (0.875, 1.125),
                            "contrast": (0.5, 1.5)}


def test_the_loader_fills_with_the_mean_it_is_given():
    default, given = (TrainLoader([], None, rows=8, policy="ssd", image_size=300, batch_size=4, **options)
                      for options in ({}, {"fill": (1, 2, 3)}))
    assert default.policy[0].expand.fill == (127.5,) * 3 and given.policy[0].expand.fill == (1, 2, 3)


def test_shift_by_hand():
    assert add_brightness(pixels((0, 100, 240)), 32).tolist() == [[[32, 132, 255]]]
    assert add_brightness(pixels((0, 100, 240)), -32).tolist() == [[[0, 68, 208]]]


def test_hue_by_hand():
    """A third of the circle turns red to green to blue, half of it gives the complement; grey has no hue."""
    colors = pixels((255, 0, 0), (0, 255, 0), (0, 0, 255), (80, 80, 80))
    assert near(adjust_hue(colors, 1 / 3), [[(0, 255, 0), (0, 0, 255), (255, 0, 0), (80, 80, 80)]], 3)
    assert near(adjust_hue(colors, -0.5), [[(0, 255, 255), (255, 0, 255), (255, 255, 0), (80, 80, 80)]], 3)
    # the circle goes on below 0: 18 degrees from red, 18 / 60 of the way to magenta
    assert near(adjust_hue(colors[:, :1], -18 / 360), [[(255, 0, 0.3 * 255)]], 3)


def test_hue_and_saturation_leave_a_colour_where_it_is_when_asked_for_nothing():
    image = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    same = adjust_hue(image, 0)
    assert near(same, image, 6) and abs(same.mean((0, 1)) - image.mean((0, 1))).max() < 0.5


def test_saturation_in_hsv_by_hand():
    """V = 200 stays, S = 150 / 200 is halved or limited to 1: the smallest colour is V (1 - S), the others follow."""
    assert near(adjust_hsv_saturation(pixels((200, 100, 50)), 0.5), [[(200, 150, 125)]], 2)
    assert near(adjust_hsv_saturation(pixels((200, 100, 50)), 1.5), [[(200, 67, 0)]], 2)


def test_color_twist_by_hand():
    def twist(color, *amounts):
        return (matrix(*amounts) @ [*color, 1]).tolist()

    def matrix(hue, saturation, brightness, contrast):
        return twist_matrix(hue=hue, saturation=saturation, brightness=brightness, contrast=contrast)

    assert twist((10, 100, 200), 0, 1, 1, 1) == pytest.approx([10, 100, 200])
    assert twist((100, 100, 100), 0.4, 1.3, 1.1, 0.5) == pytest.approx([1.1 * (128 - 0.5 * 28)] * 3, abs=0.1)
    assert twist((200, 0, 0), 0, 0, 1, 1) == pytest.approx([59.8] * 3, abs=0.2)  # luma .299
    assert twist((200, 0, 0), 0, 0.5, 1, 1) == pytest.approx([129.9, 29.9, 29.9], abs=0.2)
    angles = [matrix(angle, 1, 1, 1)[:, :3] for angle in (30, 60, 90)]
    assert np.allclose(angles[0] @ angles[1], angles[2])
    turned = twist((200, 100, 100), 0.5, 1, 1, 1)
    assert 0.1 < abs(np.array(turned) - (200, 100, 100)).max() < 2  # half a degree is next to nothing


def test_color_twist_rounds_once():
    """OpenCV's matrix in integers stays within a level of the exact one."""
    image = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    for seed in range(20):
        amounts = np.random.default_rng(seed)
        matrix = twist_matrix(**{name: amounts.uniform(*span) for name, span in ColorTwist().ranges.items()})
        exact = np.clip(image @ matrix[:, :3].T + matrix[:, 3], 0, 255)
        result = ColorTwist()(Sample(image, *NOTHING), np.random.default_rng(seed)).image
        assert result.dtype == np.uint8 and abs(result - exact).max() <= 1


def test_color_jitter_with_hue_takes_every_step_once():
    """All four orders of the first step come about as often."""
    first, rng = [], np.random.default_rng(0)
    jitter = ColorJitter(brightness=0.125, contrast=0.5, saturation=0.5, hue=0.05)
    for index in range(4):
        jitter.steps[index] = (lambda image, amount, index=index: image + [(index, amount)], *jitter.steps[index][1:])
    for _ in range(2000):
        taken = jitter(Sample([], *NOTHING), rng).image
        assert sorted(index for index, _ in taken) == [0, 1, 2, 3]
        assert all(low <= amount <= high for index, amount in taken for _, low, high in [jitter.steps[index]])
        first.append(taken[0][0])
    assert all(sigmas(count, 2000, 0.25) < 5 for count in np.bincount(first))
