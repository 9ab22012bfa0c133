"""Mosaics of four images: pixels and boxes by hand, boxes on their objects in many draws, partners, ranks, resume."""
import numpy as np
import pytest
from test_sampling import equal, joined, loader_of, split_of
from test_transforms import Script

from src.config import read_options
from src.data.mosaic import augment_mosaic, draw_tiles, fill_tile
from src.data.policies import build_policy
from src.data.sampling import Sampler
from src.data.transforms import HorizontalFlip, MinIoUCrop, Resize, Sample, ScaleJitter
from src.training.build import choose_overfit

NOTHING = np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
CODES = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8)  # a colour for each of the images
PARTS = {"plain": [], "crop": [MinIoUCrop()], "jitter": [ScaleJitter((0, 0, 0))]}


def rectangles(rng):
    """Four Samples of any size, black, each with a rectangle of its colour under its box; labels 1..4."""
    for number, color in enumerate(CODES):
        height, width = rng.integers(40, 500, 2)
        x1, y1 = (rng.uniform(0, 0.7, 2) * (width, height)).astype(int)
        x2, y2 = (np.array([x1, y1]) + rng.uniform(0.1, 0.3, 2) * (width, height)).astype(int) + 1
        image = np.zeros((height, width, 3), np.uint8)
        image[y1:y2, x1:x2] = color
        box = np.array([[x1, y1, x2, y2]]) / (width, height, width, height)
        yield Sample(image, box.astype(np.float32), np.array([number + 1], np.int32))


def test_tiles_by_hand():
    """They meet at a quarter plus a share of the half of 100 pixels."""
    assert list(draw_tiles(100, Script((0.5, 0.1)))) == [(0, 0, 50, 30), (50, 0, 100, 30), (0, 30, 50, 100),
                                                         (50, 30, 100, 100)]
    for seed in range(200):
        tiles = np.array(list(draw_tiles(300, np.random.default_rng(seed))))
        assert np.prod(tiles[:, 2:] - tiles[:, :2], axis=1).sum() == 300 * 300
        assert 75 <= tiles[0, 2] <= 225 and 75 <= tiles[0, 3] <= 225


class Corner:
    """A generator whose integers() are known."""

    def __init__(self, *values):
        self.values = values

    def integers(self, low, high):
        assert (np.array(high) > self.values).all()
        return np.array(self.values)


def test_a_tile_is_filled_by_hand():
    """An image of 80 x 40 into 20 x 30: it shrinks to 30 x 30 and loses 10 columns, here the 4 at the left."""
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 40:] = 200
    boxes = np.array([[0.5, 0, 1, 0.5], [0, 0, 0.1, 1], [0.1, 0.1, 0.5, 0.9]], np.float32)
    sample = fill_tile(Sample(image, boxes, np.array([1, 2, 3])), (20, 30), Resize(300), rng=Corner(4, 0))
    assert sample.image.shape == (30, 20, 3)
    assert (sample.image[:, :10] == 0).all() and (sample.image[:, 12:] == 200).all()
    # columns 15..30 are 11..20 of the tile; columns 0..3 are cut off; columns 3..15 begin in front of it
    assert np.allclose(sample.boxes, [[11 / 20, 0, 1, 0.5], [0, 0.1, 11 / 20, 0.9]])
    assert sample.labels.tolist() == [1, 3]


@pytest.mark.parametrize("name", PARTS)
def test_boxes_stay_on_their_objects(name):
    """Where a colour is seen is where its box is, within 2 pixels; one without a box has its centre cut off."""
    policy, kept = [*PARTS[name], Resize(300), HorizontalFlip()], 0
    for seed in range(500):
        rng = np.random.default_rng(seed)
        image, boxes, labels = augment_mosaic(list(rectangles(rng)), policy, size=300, rng=rng)
        assert image.shape == (300, 300, 3) and image.flags.c_contiguous and boxes.dtype == np.float32
        assert len(boxes) == len(labels) == len(set(labels.tolist())) and (boxes[:, :2] < boxes[:, 2:]).all()
        kept += len(boxes)
        for box, label in zip(boxes, labels):
            rows, columns = np.nonzero(((image > 127) == (CODES[label - 1] > 127)).all(axis=2))
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert abs(box * 300 - found).max() <= 2, (seed, label, box * 300, found)
    assert 1000 < kept < 2000, "a part of the objects is cut off"


@pytest.mark.parametrize("name", ["zoo", "ssd", "paddle", "mlperf", "nvidia", "jitter", "flip", "plain"])
def test_any_four_images_make_one(name):
    """Also without a box in any of them."""
    policy = build_policy(name, 64)
    for seed in range(20):
        shapes = [(1, 1, 3), (1, 50, 3), (90, 2, 3), (60, 90, 3)]
        full = np.array([[0, 0, 1, 1]], np.float32), np.array([7], np.int32)
        samples = [Sample(np.full(shape, 90, np.uint8), *(full if seed % 2 else NOTHING)) for shape in shapes]
        first, again = (augment_mosaic(samples, policy, size=64, rng=np.random.default_rng(seed)) for _ in range(2))
        assert equal(first, again) and first.image.shape == (64, 64, 3) and first.image.dtype == np.uint8
        assert first.boxes.shape == (len(first.labels), 4) and first.labels.dtype == np.int32
        assert (first.boxes >= 0).all() and (first.boxes <= 1).all() and (seed % 2 or not len(first.labels))


def test_partners_are_any_rows_and_the_share_is_kept():
    """Before mosaic_epochs; what is off draws the order that it always drew."""
    plain, mosaic = Sampler(1, 50), Sampler(1, 50, mosaic=0.3, mosaic_epochs=400)
    alone = 0
    seen = np.zeros(50, int)
    for epoch in range(400):
        rows, copies, partners = mosaic.samples(epoch)
        assert np.array_equal(rows, plain.samples(epoch).rows) and not copies.any() and partners.shape == (50, 3)
        assert ((partners < 0).all(axis=1) | (partners >= 0).all(axis=1)).all()
        alone += (partners[:, 0] < 0).sum()
        seen += np.bincount(partners[partners >= 0], minlength=50)
    assert abs(alone / 400 / 50 - 0.7) < 0.02 and abs(seen / seen.mean() - 1).max() < 0.25
    assert plain.samples(0).partners.shape == (50, 0) and equal(mosaic.samples(400), plain.samples(400))
    assert (Sampler(1, 50, mosaic=1.0).samples(0).partners >= 0).all()


@pytest.mark.parametrize("typed", [(), ("--class_balance=0.5", "--augmentation=jitter")])
def test_ranks_workers_and_resume_give_the_same_mosaics(tmp_path, call, typed):
    typed = (*typed, "--mosaic=0.6")
    split = split_of(tmp_path, call)
    alone = loader_of(split, *typed)
    whole = list(alone.epoch(1))
    assert equal(joined(whole), joined(loader_of(split, *typed, "--num_workers=3").epoch(1)))
    for step in range(alone.steps):
        assert equal(joined(whole[step:]), joined(alone.epoch(1, step))), f"resume at step {step}"
    ranks = [loader_of(split, *typed, "--batch_size=2", rank=rank, world=2) for rank in (0, 1)]
    mixed = [joined(pair) for pair in zip(*(loader.epoch(1) for loader in ranks))]
    assert equal(joined(mixed), joined(whole))
    assert joined(whole)[3].tolist() == alone.order(1).ravel().tolist(), "the index is of the first of the four"


def test_an_image_that_stays_alone_is_what_it_is_without_mosaics(tmp_path, call):
    split = split_of(tmp_path, call)
    plain, loader = loader_of(split), loader_of(split, "--mosaic=0.5", "--epoch_size=5", "--mosaic_off_epochs=2")
    alone = loader.sampler.samples(2).partners[loader.places().ravel(), 0] < 0
    without, mixed = joined(plain.epoch(2)), joined(loader.epoch(2))
    same = [np.array_equal(*images) for images in zip(without[0], mixed[0])]
    assert same == alone.tolist() and 0 < sum(same) < 8
    assert equal(joined(plain.epoch(3)), joined(loader.epoch(3))), "the last two of five epochs have none"


def test_a_split_of_one_image_is_a_mosaic_with_itself(tmp_path, call):
    loader = loader_of(split_of(tmp_path, call, {"a": "0,0,40,20,cat"}), "--mosaic=1", "--augmentation=plain")
    (images, labels, _, index), = loader.epoch(0)
    assert images.shape == (1, 32, 32, 3) and index.tolist() == [0] and set(labels.ravel()) == {1}


def test_what_is_not_trained_on_is_no_target_in_a_mosaic(tmp_path, call):
    """The rows are read as those of an image alone; without trainable boxes nothing is positive."""
    split = split_of(tmp_path, call)
    loader, cow = loader_of(split, "--mosaic=1"), split.classes.index("cow") + 1
    labels = joined(loader.epoch(0))[1]
    assert cow in labels and len(set(labels.ravel())) == 4
    trainable = loader.trainable
    loader.trainable = lambda row: trainable(row) & (row["labels"] == cow)
    assert set(joined(loader.epoch(0))[1].ravel()) == {0, cow}
    loader.trainable = lambda row: trainable(row) & False
    assert not joined(loader.epoch(0))[1].any()


def test_the_self_test_makes_no_mosaics():
    assert choose_overfit(read_options(["--overfit=8", "--mosaic=0.5"])).mosaic == 0.5
    assert choose_overfit(read_options(["--overfit=8"])).mosaic == 0
