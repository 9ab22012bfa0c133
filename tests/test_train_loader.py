"""What a training makes of few images and of data without a box to train on. Trees of tiny images."""
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import coco_tree, picture, txt_tree

from src.config import read_options
from src.errors import DataError
from src.training.build import build_loader
from src.training.checks import anchor_hint, batch_hint

MODEL = SimpleNamespace(anchors=np.array([[.5, .5, .5, .5], [.2, .5, .4, 1]], np.float32), image_size=8, mean=(0, 0, 0))


def loader_of(split, *typed, world=1, rank=0):
    """(Options, TrainLoader) of a Split for a command line."""
    options = read_options(["--augmentation=plain", "--num_workers=1", *typed])
    return options, build_loader(options, split, MODEL, rank=rank, world=world)


CUT, FILLED = "a batch of {} over all processes is more than {}: it is cut to {}", (
    "{} in {} of {}: the last one of an epoch is filled up with {} of its first images")


@pytest.mark.parametrize("rows, batch, accumulate, world, cut, steps, said", [
    (3, 8, 1, 1, 3, 1, CUT.format(8, "3 images", 3)), (1, 8, 1, 1, 1, 1, CUT.format(8, "1 image", 1)),
    (3, 8, 1, 2, 2, 1, f"{CUT.format(16, '3 images', 4)}; {FILLED.format('3 images', '1 step', 4, 1)}"),
    (3, 2, 2, 1, 4, 1, FILLED.format("3 images", "1 step", 4, 1)),
    (5, 4, 2, 1, 6, 1, f"{CUT.format(8, '5 images', 6)}; {FILLED.format('5 images', '1 step', 6, 1)}"),
    (5, 4, 1, 1, 4, 2, FILLED.format("5 images", "2 steps", 4, 3)), (5, 5, 1, 1, 5, 1, ""), (5, 1, 1, 1, 1, 5, "")])
def test_a_batch_larger_than_the_images_is_cut(tmp_path, call, rows, batch, accumulate, world, cut, steps, said):
    names = [f"{number}.png" for number in range(rows)]
    txt_tree(tmp_path, "".join(f"{name} 0,0,20,20,cat\n" for name in names), names)
    split = call.txt()
    came, typed = [], (f"--batch_size={batch}", f"--accumulate={accumulate}")
    for rank in range(world):
        options, loader = loader_of(split, *typed, world=world, rank=rank)
        assert (loader.batch_size, loader.steps, batch_hint(options, loader)) == (cut, steps, said)
        batches = list(loader.epoch(0))
        assert [len(images) for images, *_ in batches] == [cut] * steps and cut % accumulate == 0
        came += [index for *_, index in batches]
    counts = np.bincount(np.concatenate(came), minlength=rows)
    assert counts.min() == 1 and counts.sum() == steps * cut * world and counts.max() <= 2
    assert options.batch_size == batch, "options stay as they were typed"


@pytest.mark.parametrize("boxes, typed, reason", [
    ([[0, 0, 20, 9], {"iscrowd": 1}], (), "all 1 are marked crowd or difficult; annotate single objects"),
    ([[5, 5, .3, .3], {}], (), "none was left at conversion, see .*report.csv"),
    ([[50, 50, 9, 9], {}], (), "none was left at conversion")])
def test_data_without_a_box_to_train_on_end_before_training(tmp_path, call, boxes, typed, reason):
    coco_tree(tmp_path, [(5, boxes[0], 7, boxes[1])])
    with pytest.raises(DataError, match=f"train2017 has no box to train on: {reason}") as error:
        loader_of(call.coco(), *typed)
    assert error.value.exit_code == 3


def test_one_box_in_the_last_image_will_do(tmp_path, call):
    coco_tree(tmp_path, [(5, [0, 0, 20, 9], 7, {"iscrowd": 1}), (3, [0, 0, 20, 9], 7, {})])
    split = call.coco()
    assert loader_of(split)[1].has_targets()
    with pytest.raises(DataError, match="none of its first 1 images has one that is not a crowd"):
        loader_of(split, "--overfit=1")


def test_difficult_boxes_are_targets_unless_left_out(tmp_path, call):
    folders = [tmp_path / name for name in ("Annotations", "JPEGImages", "ImageSets/Main")]
    for folder in folders:
        folder.mkdir(parents=True)
    picture(folders[1] / "x.png")
    (folders[2] / "train.txt").write_text("x\n")
    (folders[0] / "x.xml").write_text(
        "<annotation><object><name>cat</name><difficult>1</difficult><bndbox><xmin>4</xmin><ymin>2</ymin>"
        "<xmax>20</xmax><ymax>12</ymax></bndbox></object></annotation>")
    split = call.prepare("train", "voc", mindrecord_dir=str(tmp_path / "mr"), classes=[], voc_root=str(tmp_path),
                         log=call.said.append)
    assert loader_of(split)[1].has_targets()
    with pytest.raises(DataError, match="all 1 are marked crowd or difficult; .*, or set --use_difficult=True"):
        loader_of(split, "--use_difficult=False")


def test_boxes_that_share_their_only_anchor_are_told_by_a_self_test(tmp_path, call):
    """Two boxes in the middle have IoU .24 with the first anchor, which one of them takes; the tall one has another."""
    txt_tree(tmp_path, "a.png 16,7,24,13,cat 17,7,25,13,cat 0,0,16,20,cat\nb.png 16,7,24,13,cat\n")
    split = call.txt()
    options, loader = loader_of(split, "--overfit=2")
    assert loader.unmatched() == (1, 4)
    assert anchor_hint(options, loader).startswith("1 of 4 boxes cannot be memorised")
    assert anchor_hint(*loader_of(split)) == ""
