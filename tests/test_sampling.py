"""Repeat factors by hand, and epochs that repeat rare classes: their length, counts, copies, ranks, workers, resume."""
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import coco_tree, txt_tree

from src.config import read_options
from src.data.sampling import list_repeated, repeat_factors, repeated_length
from src.errors import DataError
from src.training.build import build_loader, choose_overfit
from src.training.checks import balance_hint, batch_hint

ANCHORS = np.array([[.5, .5, .9, .9], [.3, .3, .4, .4]], np.float32)
MODEL = SimpleNamespace(anchors=ANCHORS, image_size=32, mean=(0, 0, 0))
# the class bee is in one of 8 images, ant in 6 of them; d.png has no box
BOXES = {"a": "0,0,20,20,ant", "b": "0,0,30,10,ant", "c": "0,0,20,20,ant 20,0,40,20,bee", "d": "", "e": "5,5,40,20,ant",
         "f": "0,0,39,19,ant", "g": "0,0,20,20,ant", "h": "0,0,20,20,cow"}


def split_of(tmp_path, call, boxes=None):
    """The Split of a tree of images of noise."""
    boxes = boxes or BOXES
    txt_tree(tmp_path, "".join(f"{name}.png {found}\n" for name, found in boxes.items()), [])
    for number, name in enumerate(boxes):
        noise = np.random.default_rng(number).integers(0, 256, (20, 40, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), noise)
    return call.txt()


def loader_of(split, *typed, rank=0, world=1):
    options = read_options(["--num_workers=1", "--batch_size=4", *typed])
    return build_loader(options, split, MODEL, rank=rank, world=world)


def joined(batches):
    """The samples of batches, [images, labels, targets, index]."""
    return [np.concatenate(part) for part in zip(*batches)]


def equal(first, second):
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second))


def test_repeat_factors_by_hand():
    """Class 1 is in 3 of 4 images, 2 in one of 4: sqrt(.5 / .25) = 1.414; sqrt(.75 / .75) = 1."""
    classes = [np.array(labels, int) for labels in ([1], [1], [1, 2], [])]
    of_image, of_class = repeat_factors(classes, 0.5)
    assert of_image.tolist() == [1, 1, 2 ** 0.5, 1] and of_class == {2: 2 ** 0.5}
    of_image, of_class = repeat_factors(classes, 0.75)
    assert of_image.tolist() == [1, 1, 3 ** 0.5, 1] and of_class == {2: 3 ** 0.5}
    of_image, of_class = repeat_factors(classes, 1.0)
    assert np.allclose(of_image, [1.1547, 1.1547, 2, 1], atol=1e-4) and list(of_class) == [1, 2]
    assert repeat_factors(classes[3:], 1.0)[0].tolist() == [1] and repeat_factors([], 1.0)[0].shape == (0,)


def test_an_epoch_has_one_length_and_rounds_each_factor_up_or_down():
    """The fractions .5 + .5 + .25 make one more sample: of these rows with the probabilities .4, .4, .2."""
    factors, more = np.array([1, 2.5, 1.5, 1, 1.25]), np.zeros(5)
    assert repeated_length(factors) == 6 + 1
    for seed in range(4000):
        rows, copies, _ = list_repeated(factors, np.random.default_rng(seed))
        counts = np.bincount(rows, minlength=5)
        assert len(rows) == 7
        assert sorted(zip(rows, copies)) == [(row, copy) for row in range(5) for copy in range(counts[row])]
        more += counts - [1, 2, 1, 1, 1]
    assert more[0] == more[3] == 0 and more.sum() == 4000
    assert np.allclose(more[[1, 2, 4]] / 4000, [.4, .4, .2], atol=0.04)


@pytest.mark.parametrize("factors, length", [([1.0] * 5, 5), ([1.0, 3.0], 4), ([1.4], 1), ([1.999], 1), ([1.5, 1.5], 3),
                                             ([1.7] * 10, 17)])
def test_odd_factors(factors, length):
    factors = np.array(factors)
    assert repeated_length(factors) == length
    for seed in range(50):
        rows, *_ = list_repeated(factors, np.random.default_rng(seed))
        counts = np.bincount(rows, minlength=len(factors))
        assert len(rows) == length and ((counts >= np.floor(factors)) & (counts <= np.ceil(factors))).all()


def test_rare_classes_come_more_often(tmp_path, call):
    """t = 1/2: bee and cow, in one of 8 images, come twice, ant in 6 of 8 once; what is off changes nothing."""
    split = split_of(tmp_path, call)
    plain, loader = loader_of(split), loader_of(split, "--class_balance=0.5")
    assert (plain.sampler.length, plain.steps, plain.sampler.factors) == (8, 2, None)
    assert (loader.sampler.length, loader.steps, loader.repeated()) == (10, 3, 2)
    assert loader.class_factors == {split.classes.index(name) + 1: 2.0 for name in ("bee", "cow")}
    for epoch in range(5):
        counts = np.bincount(loader.sampler.samples(epoch).rows)
        assert counts.tolist() == [1, 1, 2, 1, 1, 1, 1, 2]
        assert len(set(loader.order(epoch).ravel())) == 8
    assert not np.array_equal(loader.order(0), loader.order(1))


def test_a_repeated_image_is_augmented_differently(tmp_path, call):
    """Its first copy is the sample of a run without the option."""
    split = split_of(tmp_path, call)
    plain, loader = loader_of(split), loader_of(split, "--class_balance=0.5")
    once, often = joined(plain.epoch(3)), joined(loader.epoch(3))
    rows, copies, _ = (column[loader.places().ravel()] for column in loader.sampler.samples(3))
    assert often[3].tolist() == rows.tolist()
    for row in range(8):
        first = often[0][(rows == row) & (copies == 0)]
        assert all(np.array_equal(image, once[0][once[3] == row][0]) for image in first)
    for row in (2, 7):
        first, second = (often[0][(rows == row) & (copies == copy)][0] for copy in (0, 1))
        assert not np.array_equal(first, second)


@pytest.mark.parametrize("typed", [(), ("--class_balance=0.5",), ("--class_balance=0.3", "--augmentation=jitter")])
def test_ranks_workers_and_resume_give_the_same_samples(tmp_path, call, typed):
    split = split_of(tmp_path, call)
    alone = loader_of(split, "--batch_size=4", *typed)
    whole = list(alone.epoch(1))
    assert equal(joined(whole), joined(loader_of(split, *typed, "--num_workers=3").epoch(1)))
    for step in range(alone.steps):
        assert equal(joined(whole[step:]), joined(alone.epoch(1, step))), f"resume at step {step}"
    ranks = [loader_of(split, "--batch_size=2", *typed, rank=rank, world=2) for rank in (0, 1)]
    assert [loader.steps for loader in ranks] == [alone.steps] * 2
    mixed = [joined(pair) for pair in zip(*(loader.epoch(1) for loader in ranks))]
    assert equal(joined(mixed), joined(whole))


@pytest.mark.parametrize("crowd, factors", [(0, {1: 2 ** 0.5}), (1, {})])
def test_a_crowd_makes_no_image_rare(tmp_path, call, crowd, factors):
    cats = [(image, [0, 0, 20, 9], 7, {}) for image in (5, 3)]
    coco_tree(tmp_path, [*cats, (3, [9, 9, 9, 9], 2, {"iscrowd": crowd})])
    assert loader_of(call.coco(), "--class_balance=1").class_factors == factors


def test_data_without_a_box_end_as_without_the_option(tmp_path, call):
    with pytest.raises(DataError, match="has no box to train on"):
        loader_of(split_of(tmp_path, call, {"a": "", "b": "9,9,9,9,cat"}), "--class_balance=0.5")


def test_the_log_says_what_is_repeated(tmp_path, call):
    split = split_of(tmp_path, call)

    def said(*typed):
        options = read_options(["--batch_size=4", *typed])
        loader = build_loader(options, split, MODEL, rank=0, world=1)
        return balance_hint(options, loader, split.classes), batch_hint(options, loader)

    assert said() == ("", "")
    assert said("--class_balance=0.5") == (
        "--class_balance=0.5: an epoch has 10 samples of 8 images, because images of rare classes come more often: "
        "bee x 2, cow x 2",
        "10 images in 3 steps of 4: the last one of an epoch is filled up with 2 of its first images")
    assert said("--class_balance=0.1") == (
        "--class_balance=0.1 repeats nothing: every class is in that share of the images, or in more", "")


def test_the_self_test_repeats_nothing_unless_asked():
    options = choose_overfit(read_options(["--overfit=8", "--epoch_size=5"]))
    assert options.class_balance == 0 and options.augmentation == "plain"
    assert choose_overfit(read_options(["--overfit=8", "--class_balance=0.2"])).class_balance == 0.2
