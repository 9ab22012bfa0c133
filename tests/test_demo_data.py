"""The drawn data set: the same again, exact boxes, and no damage to data of others."""
import hashlib
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT

SCRIPT = os.path.join(ROOT, "scripts", "make_demo_data.py")
sys.path.insert(0, os.path.dirname(SCRIPT))
import make_demo_data  # noqa: E402  (a script, found by the line above)


def run(*arguments):
    """Runs the script as a user does."""
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Folder with 40 training and 5 validation images."""
    folder = tmp_path_factory.mktemp("demo")
    result = run(folder, "--images", 40, "--val", 5)
    assert (result.returncode, result.stderr) == (0, "")
    return folder


def read_split(folder, split):
    with open(folder / "annotations" / f"instances_{split}.json", encoding="utf-8") as file:
        return json.load(file)


def test_tree_is_coco(demo):
    for split, count in (("train2017", 40), ("val2017", 5)):
        data = read_split(demo, split)
        assert [category["name"] for category in data["categories"]] == ["circle", "triangle", "square", "star"]
        assert len(data["images"]) == count == len(os.listdir(demo / split))
        assert [item["id"] for item in data["annotations"]] == list(range(1, len(data["annotations"]) + 1))
        for image in data["images"]:
            height, width, _ = cv2.imread(str(demo / split / image["file_name"])).shape
            assert (width, height) == (image["width"], image["height"]) in ((320, 240), (240, 320))


def test_boxes_lie_inside_and_hardly_overlap(demo):
    data = read_split(demo, "train2017")
    sizes = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    by_image = {number: [] for number in sizes}
    for item in data["annotations"]:
        x, y, w, h = item["bbox"]
        width, height = sizes[item["image_id"]]
        assert 0 <= x and 0 <= y and x + w <= width + 0.01 and y + h <= height + 0.01
        assert min(w, h) > 15 and 0.25 < item["area"] / (w * h) <= 1.05  # pixels on the rim count whole
        assert all(make_demo_data.overlap(item["bbox"], other) <= 0.11 for other in by_image[item["image_id"]])
        by_image[item["image_id"]].append(item["bbox"])
    assert {len(boxes) for boxes in by_image.values()} == {0, 1, 2, 3}
    assert {item["category_id"] for item in data["annotations"]} == {1, 2, 3, 4}


@pytest.mark.parametrize("label", range(4))
def test_box_is_tight_around_the_drawn_shape(label):
    points = np.array([90.3, 70.6]) + make_demo_data.outline(label, 0.4) * 40
    x, y, w, h = make_demo_data.clipped_box(points, 200, 150)
    mask = make_demo_data.fill((150, 200), points) > 0.5
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    drawn = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    assert np.abs(np.subtract(drawn, (x, y, x + w, y + h))).max() < 2  # sharp corners fade out within two pixels
    if label == 0:
        assert np.abs(np.subtract(drawn, (50.3, 30.6, 130.3, 110.6))).max() < 0.7


def test_boxes_are_clipped():
    points = np.array([[-10, 20], [30, -5], [250, 400]])
    assert make_demo_data.clipped_box(points, 240, 320) == [0, 0, 240, 320]


def test_same_seed_same_files(demo, tmp_path):
    def sums(folder):
        return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(folder.rglob("*.*"))}
    assert run(tmp_path / "same", "--images", 40, "--val", 5).returncode == 0
    assert sums(tmp_path / "same") == sums(demo)
    assert run(tmp_path / "other", "--images", 3, "--val", 1, "--seed", 2).returncode == 0
    assert not set(sums(tmp_path / "other").values()) & set(sums(demo).values())


def test_foreign_annotations_are_left_alone(tmp_path):
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.parent.mkdir()
    path.write_text('{"info": {"description": "COCO 2017 Dataset"}}')
    result = run(tmp_path, "--images", 1, "--val", 1)
    assert result.returncode != 0 and "not from this script" in result.stderr and "Traceback" not in result.stderr
    assert "COCO 2017" in path.read_text()
    assert not (tmp_path / "train2017").exists()


def test_bad_arguments(tmp_path):
    assert run(tmp_path, "--images", -1).returncode == 2
    (tmp_path / "file").write_text("")
    result = run(tmp_path / "file", "--images", 1)
    assert result.returncode == 4 and result.stderr.startswith("error: ")
