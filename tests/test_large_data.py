"""What does not grow with the size of a data set: memory for its annotations where they are not needed."""
import json
import tracemalloc

import numpy as np
import pytest
from conftest import coco_tree

from src.data import manifest, prepare
from src.data.convert import TruthFile

HASH = "a190f538bf456b902c8e418318a0e26e3ee3971b152421d887bf91eef61db765"
BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1.5, 2.5, 30.25, 40.75], "area": 1200.0, "iscrowd": 0}


@pytest.fixture
def peak():
    """peak(call): the most bytes that Python objects took during a call on top of those before it."""
    def measure(call):
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        call()
        most = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        return most
    return measure


def write_truth(path, images, boxes):
    with TruthFile(str(path), [{"id": 1, "name": "cat"}]) as truth:
        for number in range(1, images + 1):
            truth.add({"id": number, "file_name": f"{number:012}.jpg", "height": 480, "width": 640},
                      [{**BOX, "id": truth.boxes + box} for box in range(1, boxes + 1)])


def test_boxes_are_written_as_they_come(tmp_path, peak):
    few, many = (peak(lambda boxes=boxes: write_truth(tmp_path / "truth.json", 100, boxes)) for boxes in (10, 1000))
    assert many < few + 1000 * 1500  # the boxes of one image, each of 1500 bytes at most, of 100 images
    write_truth(tmp_path / "truth.json", 3, 2)
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert truth["categories"] == [{"id": 1, "name": "cat"}] and len(truth["images"]) == 3
    assert truth["annotations"] == [{**BOX, "id": number} for number in range(1, 7)]


@pytest.mark.parametrize("images, boxes", [(0, 0), (1, 0), (2, 1)])
def test_a_truth_file_of_little(tmp_path, images, boxes):
    write_truth(tmp_path / "truth.json", images, boxes)
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert [len(truth[name]) for name in ("images", "annotations")] == [images, images * boxes]


def test_a_large_annotation_file_is_hashed_in_parts(tmp_path, peak):
    path = tmp_path / "large.json"
    path.write_bytes(np.random.default_rng(0).bytes(16 << 20))
    assert peak(lambda: manifest.fingerprint([str(path)])) < 4 << 20
    path.write_bytes(b"abc")
    # printf 'large.json\0abc' | sha256sum
    assert manifest.fingerprint([str(path)]) == HASH


def test_names_of_images_are_those_of_the_rows(tmp_path, call):
    split = prepare.prepare_split("train", "coco", mindrecord_dir=str(tmp_path / "mr"), classes=[],
                                  coco_root=coco_tree(tmp_path, [(5, [1, 2, 3, 4], 7, {})]), log=call.said.append)
    assert split.image_names() == ["a.png", "b.png"]
