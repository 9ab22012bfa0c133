"""What predict.py leaves in each form, read again by other eyes."""
import csv
import json
import os

import cv2
import numpy as np
import pytest
import yaml

from src.classes import COCO_CLASSES
from src.data.findings import Report
from src.data.voc import read_voc_record
from src.data.voc_names import ImageFolder
from src.inference.formats import FORMS
from src.inference.found import Detections
from src.inference.outputs import Outputs, numbers_of
from src.inference.sources import Picture, Source

CLASSES = ["cat", "a/b: c"]
FOUND = Detections(np.float32([[0.25, 0.1, 0.5, 0.6], [0, 0, 1, 1]]), np.float32([0.87654321, 0.5]), np.array([2, 1]))
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int))


def pixels():
    """80 x 40, with a bright rectangle where the first box is."""
    image = np.full((40, 80, 3), 50, np.uint8)
    image[4:24, 20:40] = (250, 10, 10)
    return image


def write(folder, names, results, save=tuple(FORMS), classes=CLASSES):
    """Writes results for image files in/<name>; returns the Outputs and predictions.json."""
    outputs = Outputs(Source("in", [f"in/{name}" for name in names], "in"), str(folder), save=save, classes=classes,
                      thresholds={"draw_score": 0.4})
    for name, found in zip(names, results):
        outputs.write(Picture(pixels(), {"file": f"in/{name}"}), found)
    outputs.close()
    return outputs, json.loads((folder / "predictions.json").read_text())


def files_in(folder):
    return sorted(os.path.relpath(os.path.join(place, name), folder) for place, _, names in os.walk(folder)
                  for name in names)


def test_every_form(tmp_path):
    outputs, rows = write(tmp_path, ["x.jpg", "sub/y.jpg"], [FOUND, NOTHING])
    assert files_in(tmp_path) == [
        "crops/a_b_ c/x_1.png", "crops/cat/x_2.png", "detections.json", "predictions.csv", "predictions.json",
        "sub/y.png", "voc/sub/y.xml", "voc/x.xml", "x.png", "yolo/data.yaml", "yolo/labels/sub/y.txt",
        "yolo/labels/x.txt"]
    assert rows == [
        {"file": "in/x.jpg", "image_id": 1, "drawing": "x.png", "thresholds": {"draw_score": 0.4}, "objects": [
            {"class": "a/b: c", "score": 0.8765, "box": [20.0, 4.0, 40.0, 24.0]},
            {"class": "cat", "score": 0.5, "box": [0.0, 0.0, 80.0, 40.0]}]},
        {"file": "in/sub/y.jpg", "image_id": 2, "drawing": "sub/y.png", "thresholds": {"draw_score": 0.4},
         "objects": []}]
    assert (outputs.rows, outputs.objects, outputs.notes) == (2, 2, [])
    assert outputs.names == ("drawings, detections.json, predictions.csv, yolo/, voc/, crops/ and predictions.json are")


def test_coco_results(tmp_path):
    write(tmp_path, ["x.jpg", "y.jpg"], [NOTHING, FOUND], ["coco"])
    assert json.loads((tmp_path / "detections.json").read_text()) == [
        {"image_id": 2, "category_id": 2, "bbox": [20.0, 4.0, 20.0, 20.0], "score": 0.876543},
        {"image_id": 2, "category_id": 1, "bbox": [0.0, 0.0, 80.0, 40.0], "score": 0.5}]
    found = FOUND._replace(labels=np.array([80, 12]))
    write(tmp_path, ["000000000139.jpg"], [found], ["coco"], list(COCO_CLASSES))
    results = json.loads((tmp_path / "detections.json").read_text())
    assert [(row["image_id"], row["category_id"]) for row in results] == [(139, 90), (139, 13)]  # toothbrush, stop sign
    write(tmp_path, ["x.jpg"], [NOTHING], ["coco"])
    assert json.loads((tmp_path / "detections.json").read_text()) == []


@pytest.mark.parametrize("names, numbers", [
    (["007.jpg", "12.png"], [7, 12]), (["7.jpg", "007.jpg"], None), (["7.jpg", "a.jpg"], None), (["7.mp4"], None),
    (["²3.jpg"], None), ([], [])])
def test_names_that_are_numbers(names, numbers):
    assert numbers_of(names) == (dict(zip(names, numbers)) if numbers else {})


def test_a_broken_picture_shifts_no_number(tmp_path):
    source = Source("in", ["in/5.jpg", "in/6.jpg", "in/7.jpg"], "in")
    outputs = Outputs(source, str(tmp_path), save=[], classes=CLASSES, thresholds={})
    for name in ("5", "7"):
        outputs.write(Picture(pixels(), {"file": f"in/{name}.jpg"}), NOTHING)
    outputs.close()
    assert [row["image_id"] for row in json.loads((tmp_path / "predictions.json").read_text())] == [5, 7]
    assert files_in(tmp_path) == ["predictions.json"] and outputs.names == "predictions.json is"


def test_a_table(tmp_path):
    write(tmp_path, ['a,"b.jpg'], [FOUND], ["csv"])
    with open(tmp_path / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"file": 'in/a,"b.jpg', "frame": "", "time": "", "class": "a/b: c", "score": "0.8765",
                       "x1": "20.0", "y1": "4.0", "x2": "40.0", "y2": "24.0"} and len(rows) == 2


def test_yolo_and_voc(tmp_path):
    write(tmp_path, ["x.jpg", "y.jpg"], [FOUND, NOTHING], ["yolo", "voc"])
    assert (tmp_path / "yolo/labels/x.txt").read_text() == ("1 0.375000 0.350000 0.250000 0.500000\n"
                                                     "0 0.500000 0.500000 1.000000 1.000000\n")
    assert (tmp_path / "yolo/labels/y.txt").read_text() == ""
    assert yaml.safe_load((tmp_path / "yolo/data.yaml").read_text()) == {
        "train": "images", "names": {0: "cat", 1: "a/b: c"}}
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/x.jpg"), pixels())
    report, images = Report(), ImageFolder(str(tmp_path / "images"), {}, "filename")
    record = read_voc_record(str(tmp_path / "voc/x.xml"), images, image_id=1, report=report)
    assert [(box.name, box.pixels) for box in record.boxes] == [("a/b: c", (20, 4, 20, 20)), ("cat", (0, 0, 80, 40))]
    assert not report.findings and record.path.endswith("x.jpg")


def test_crops_and_drawings(tmp_path):
    write(tmp_path, ["x.jpg"], [FOUND], ["crops", "drawings"])
    crop = cv2.imread(str(tmp_path / "crops/a_b_ c/x_1.png"))
    assert crop.shape == (20, 20, 3) and (crop == (10, 10, 250)).all()
    assert cv2.imread(str(tmp_path / "x.png")).shape == (40, 80, 3)
    line = FOUND._replace(boxes=np.float32([[1, 1, 1, 1], [0.5, 0.5, 0.5, 0.5]]))
    write(tmp_path, ["z.jpg"], [line], ["crops"])
    assert cv2.imread(str(tmp_path / "crops/cat/z_2.png")).shape == (1, 1, 3)


def test_frames_have_numbers(tmp_path):
    class Video:
        rate, ratio = 10.0, 1
    outputs = Outputs(Source("v.mp4", ["v.mp4"], "."), str(tmp_path), save=["yolo", "csv", "coco"], classes=CLASSES,
                      thresholds={})
    for number in range(2):
        outputs.write(Picture(pixels(), {"file": "v.mp4", "frame": number, "time": number / 10}, Video()), FOUND)
    outputs.close()
    assert files_in(tmp_path / "yolo") == ["data.yaml", "labels/v_000000.txt", "labels/v_000001.txt"]
    assert (tmp_path / "predictions.csv").read_text().splitlines()[3].startswith("v.mp4,1,0.1,a/b: c,0.8765,")
    assert [row["image_id"] for row in json.loads((tmp_path / "detections.json").read_text())] == [1, 1, 2, 2]


def test_nothing_is_left_of_broken_pictures_alone(tmp_path):
    outputs = Outputs(Source("in", ["in/x.jpg"], "in"), str(tmp_path), save=list(FORMS), classes=CLASSES, thresholds={})
    outputs.close()
    assert files_in(tmp_path) == []
