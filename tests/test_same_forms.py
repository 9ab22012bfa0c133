"""One data set in each form of --dataset: the same batches, the same training."""
import os
from types import SimpleNamespace
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml
from annotation_files import write_all_forms
from programs import RECIPE, read_rows, read_weights, succeed

from src.anchors import tile_anchors
from src.config import read_options, split_options
from src.data.prepare import prepare_split
from src.training.build import build_loader

APART = ("time", "commit", "data_time", "step_time", "images_per_second", "eta", "peak_memory")  # of machine and moment
ANCHORS = tile_anchors([4, 2], [0.25, 0.5], [np.array([[0.25, 0.25], [0.4, 0.2]])] * 2)


def draw(folder, count):
    """Pictures with a square each, and what they hold; some boxes are not as they should be."""
    rng, images = np.random.default_rng(5), []
    os.makedirs(folder / "JPEGImages")
    for number in range(count):
        width, height = rng.integers(60, 120, 2).tolist()
        x1, y1, side = (int(value) for value in rng.integers(5, 28, 3))
        picture = rng.integers(0, 90, (height, width, 3), np.uint8)
        cv2.rectangle(picture, (x1, y1), (x1 + side, y1 + side), (255, 255, 255 * (number % 2)), -1)
        cv2.imwrite(str(folder / "JPEGImages" / f"{number:02}.jpg"), picture)
        boxes = [(("zebra", "ant")[number % 2], x1, y1, x1 + side, y1 + side)]
        # no box at all; one without width; one beyond the image; two in one place
        odd = {1: [], 2: [*boxes, ("ant", 7, 7, 7, 30)], 3: [*boxes, ("bee", 1, 2.5, width + 4, 20.25)],
               4: [("bee", 3, 3, 9, 9), *boxes, ("zebra", 3, 3, 9, 9)]}
        images.append((f"{number:02}.jpg", width, height, odd.get(number, boxes)))
    return images


def from_voc(root):
    """The images of a VOC tree as write_all_forms takes them."""
    with open(os.path.join(root, "ImageSets", "Main", "train.txt")) as file:
        for stem in file.read().split():
            tree = ElementTree.parse(os.path.join(root, "Annotations", f"{stem}.xml"))
            boxes = [(item.findtext("name"), *(int(item.findtext(f"bndbox/{corner}"))
                                               for corner in ("xmin", "ymin", "xmax", "ymax")))
                     for item in tree.findall("object")]
            yield f"{stem}.jpg", int(tree.findtext("size/width")), int(tree.findtext("size/height")), boxes


def load(folder, typed):
    """(Split, all batches of two epochs) for options."""
    options = read_options([*typed, f"--mindrecord_dir={folder / 'mr'}", "--augmentation=ssd", "--batch_size=4",
                            "--num_workers=1", "--classes=[zebra,bee,ant]"])
    split = prepare_split(**split_options(options, "train"), classes=options.classes)
    model = SimpleNamespace(anchors=ANCHORS, image_size=32, mean=(0, 0, 0))
    loader = build_loader(options, split, model, rank=0, world=1)
    return split, [batch for epoch in (0, 1) for batch in loader.epoch(epoch)]


def test_the_same_batches(tmp_path):
    forms = write_all_forms(tmp_path, draw(tmp_path, 7), str(tmp_path / "JPEGImages"))
    (voc, expected), *others = (load(tmp_path, typed) for typed in forms.values())
    assert voc.count == 7 and sum((labels > 0).sum() for _, labels, _, _ in expected) > 10
    for split, batches in others:
        assert (split.classes, split.boxes_per_class) == (voc.classes, voc.boxes_per_class)
        assert (split.finding_count, split.content) == (voc.finding_count, voc.content) and voc.finding_count == 2
        assert all(np.array_equal(ours, theirs) for one, other in zip(batches, expected, strict=True)
                   for ours, theirs in zip(one, other, strict=True))


def train(place, forms, *typed):
    """train.py on each form -> (rows of its log without times, weights)."""
    for form, data in forms.items():
        run = place.folder / form
        succeed(place, "train.py", f"--config_path={place.recipe}", *data, *typed, "--run_eval=False",
                "--log_interval=1", f"--output_path={run}")
        rows = [{key: value for key, value in row.items() if key not in APART} for row in read_rows(run)]
        yield rows, read_weights(run / "ckpt" / "last.ckpt")


def check_same(runs):
    (rows, weights), *others = runs
    assert sum("loss" in row for row in rows) > 2
    for other_rows, other_weights in others:
        assert other_rows == rows
        assert weights.keys() == other_weights.keys()
        assert all(np.array_equal(weights[name], other_weights[name]) for name in weights)


@pytest.fixture
def workplace(tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    return SimpleNamespace(folder=tmp_path, recipe=tmp_path / "tiny.yaml")


def test_the_same_training(tmp_path, workplace):
    forms = write_all_forms(tmp_path, draw(tmp_path, 12), str(tmp_path / "JPEGImages"))
    check_same(list(train(workplace, forms, "--classes=[zebra,bee,ant]")))


def test_the_same_training_on_blood_cells(tmp_path, workplace, shared):
    root = shared("bccd")
    forms = write_all_forms(tmp_path, list(from_voc(root)), os.path.join(root, "JPEGImages"))
    check_same(list(train(workplace, forms, "--classes=[RBC,WBC,Platelets]", "--max_steps=6")))
