"""Augmentation: exact pixels where they can be said, invariants over many draws elsewhere."""
import numpy as np
import pytest

from src.data.transforms import ColorJitter, HorizontalFlip, MinIoUCrop, Resize, augment, build_policy

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
BOXES = np.array([[0.1, 0.2, 0.4, 0.9], [0.5, 0.5, 0.6, 0.6]], np.float32)
LABELS = np.array([1, 2], np.int32)


class Fixed:
    """A generator whose uniform() is known."""

    def __init__(self, value):
        self.value = value

    def uniform(self, *_):
        return self.value


def test_flip_mirrors_image_and_boxes():
    image, boxes, labels = HorizontalFlip()(IMAGE, BOXES, LABELS, Fixed(0.9))
    assert np.array_equal(image, IMAGE[:, ::-1])
    assert np.allclose(boxes, [[0.6, 0.2, 0.9, 0.9], [0.4, 0.5, 0.5, 0.6]]) and labels is LABELS
    assert HorizontalFlip()(IMAGE, BOXES, LABELS, Fixed(0.1))[0] is IMAGE
    assert HorizontalFlip()(IMAGE, BOXES[:0], LABELS[:0], Fixed(0.9))[1].shape == (0, 4)


def test_resize_keeps_fractions():
    image, boxes, _ = Resize(32)(IMAGE, BOXES, LABELS, None)
    assert image.shape == (32, 32, 3) and boxes is BOXES


def test_brightness_contrast_saturation_by_hand():
    grey = np.full((2, 2, 3), 100, np.uint8)
    assert (ColorJitter.brighten(grey, 1.4) == 140).all() and (ColorJitter.brighten(grey, 3) == 255).all()
    assert (ColorJitter.stretch(grey, 0.6) == 100).all() and (ColorJitter.saturate(grey, 0.6) == 100).all()
    pair = np.array([[[50] * 3, [150] * 3]], np.uint8)
    assert ColorJitter.stretch(pair, 1.4)[0, :, 0].tolist() == [30, 170]
    red = np.array([[[200, 0, 0]]], np.uint8)  # its grey is .299 * 200 = 60
    assert ColorJitter.saturate(red, 0.5)[0, 0].tolist() == [130, 30, 30]


@pytest.mark.parametrize("seed", range(30))
def test_crop_is_exact(seed):
    """The pixels in a kept box are those of the box before: colours mark the two boxes."""
    image = np.zeros((200, 300, 3), np.uint8)
    image[40:180, 30:120] = 100
    image[100:120, 150:180] = 200
    cropped, boxes, labels = MinIoUCrop()(image, BOXES, LABELS, np.random.default_rng(seed))
    assert len(boxes) == len(labels) >= 1 and (boxes >= 0).all() and (boxes <= 1).all()
    assert 0.5 <= cropped.shape[0] / cropped.shape[1] <= 2.02 or cropped.shape == image.shape
    for box, label in zip(boxes, labels):
        rows, columns = np.nonzero(cropped[..., 0] == 100 * label)
        height, width = cropped.shape[:2]
        found = [columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height]
        assert np.allclose(box, found, atol=1e-5)


def test_crop_leaves_an_image_without_boxes_alone():
    image, boxes, _ = MinIoUCrop()(IMAGE, BOXES[:0], LABELS[:0], np.random.default_rng(0))
    assert image is IMAGE and boxes.shape == (0, 4)


@pytest.mark.parametrize("name", ["zoo", "plain"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50, 3), (40, 60, 3)])
def test_policies_give_network_input_for_any_image(name, shape):
    for seed in range(10):
        image, boxes, labels = augment(np.zeros(shape, np.uint8), BOXES, LABELS, build_policy(name, 64), 64,
                                       np.random.default_rng(seed))
        assert image.shape == (64, 64, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
        assert len(boxes) == len(labels) and boxes.dtype == np.float32


def test_the_same_generator_gives_the_same_sample():
    first, second = (augment(IMAGE, BOXES, LABELS, build_policy("zoo", 64), 64, np.random.default_rng((1, 2, 3)))
                     for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second))


def test_boxes_under_a_network_pixel_are_dropped():
    tiny = np.array([[0.5, 0.5, 0.51, 0.9], [0.1, 0.1, 0.5, 0.5]], np.float32)
    _, boxes, labels = augment(IMAGE, tiny, LABELS, build_policy("plain", 64), 64, np.random.default_rng(0))
    assert np.array_equal(boxes, tiny[1:]) and labels.tolist() == [2]
