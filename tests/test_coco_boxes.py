"""Boxes, masks, areas and flags of COCO annotations as users have them."""
import numpy as np
import pytest
from annotation_files import BOX, boxes_by_image, coco_read
from conftest import found
from pycocotools import mask

from src.data import coco_masks
from src.data.convert import coco_annotations

TRIANGLE, SQUARE = [10, 12, 50, 12.5, 50, 48], [70, 20, 80, 20, 80, 30, 70, 30]


@pytest.mark.parametrize("segmentation, box", [
    ([TRIANGLE], (10, 12, 40, 36)), ([TRIANGLE, SQUARE], (10, 12, 70, 36)), (TRIANGLE, (10, 12, 40, 36)),
    ([["10", "12", "50", "48"]], (10, 12, 40, 36))])
@pytest.mark.parametrize("bbox", [{}, {"bbox": None}, {"bbox": []}])
def test_a_polygon_without_a_box_gives_its_extent(tmp_path, segmentation, box, bbox):
    annotation = {"image_id": 1, "category_id": 1, "segmentation": segmentation, **bbox}
    records, _, _, report = coco_read(tmp_path, [annotation])
    assert boxes_by_image(records)["a.jpg"] == [("cat", box)] and not report.findings


def test_a_run_length_code_without_a_box_gives_its_extent(tmp_path):
    pixels = np.zeros((80, 100), np.uint8, order="F")
    pixels[20:35, 60:90] = 1
    pixels[22, 5] = 1
    packed = mask.encode(pixels)
    changes = np.flatnonzero(np.diff(pixels.flatten(order="F"), prepend=0, append=1)).tolist()
    runs = np.diff([0, *changes]).tolist()  # column by column, zeros first
    for counts in (packed["counts"].decode(), runs):
        annotation = {"image_id": 1, "category_id": 1, "iscrowd": 1,
                      "segmentation": {"size": [80, 100], "counts": counts}}
        records, _, _, report = coco_read(tmp_path, [annotation])
        assert boxes_by_image(records)["a.jpg"] == [("cat", (5, 20, 85, 15))] and not report.findings
        assert records[0].boxes[0].crowd


@pytest.mark.parametrize("segmentation", [
    [[1]], [[]], [[1, 2, 3]], ["ab"], [["x", "y"]], 5, "abc", [[None, 1]], {"counts": [5]}, {"size": [80, 100]},
    {"counts": [0, 10 ** 10], "size": [80, 100]}, {"counts": [0, -1], "size": [80, 100]},
    {"counts": [0, 8001], "size": [80, 100]}, {"counts": [], "size": [80, 100]}, {"counts": [8000], "size": [80, 100]},
    {"counts": "abc", "size": [80, 100]}, {"counts": "P", "size": [80, 100]}, {"counts": "", "size": [80, 100]},
    {"counts": "\u732b", "size": [80, 100]}, {"counts": [0, 10], "size": [0, 100]}, {"counts": [0, 9], "size": "ab"},
    {"counts": [0, 10], "size": [10 ** 9, 100]}, {"counts": [0, 10], "size": [80]}, {"counts": None, "size": [8, 8]}])
def test_a_segmentation_that_gives_no_box_is_a_finding(tmp_path, segmentation):
    records, _, _, report = coco_read(tmp_path, [{"image_id": 1, "category_id": 1, "segmentation": segmentation},
                                            {**BOX, "image_id": 2}])
    assert [len(record.boxes) for record in records] == [0, 1]
    assert [item.kind for item in report.findings] == ["box dropped"] and "segmentation" in report.findings[0].reason


def test_polygons_are_not_kept_where_there_is_a_box(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_masks, "polygon_box", lambda polygons: 1 / 0)
    records, _, _, report = coco_read(tmp_path, [{**BOX, "segmentation": [SQUARE]}])
    assert boxes_by_image(records)["a.jpg"] == [("cat", (10, 10, 40, 38))] and not report.findings


@pytest.mark.parametrize("value, area", [(99.5, 99.5), ("99.5", 99.5), (0, 0), (None, None)])
def test_areas(tmp_path, value, area):
    records, _, _, report = coco_read(tmp_path, [{**BOX, "area": value}])
    assert records[0].boxes[0].area == area and not report.findings


@pytest.mark.parametrize("value", ["big", [1], {}, True, -1, float("nan"), float("inf"), 10 ** 400])
def test_an_area_that_is_none_is_a_finding_and_w_times_h(tmp_path, value):
    records, _, _, report = coco_read(tmp_path, [{**BOX, "area": value}])
    assert found(report) == [("area unusable", "#1")]
    assert coco_annotations(records[0], [1, 2], 1)[0]["area"] == 40 * 38


@pytest.mark.parametrize("value, crowd", [(0, False), (1, True), ("0", False), ("1", True), (2, True), (None, False),
                                          (False, False), (True, True), ("false", False), ("True", True), (0.0, False)])
def test_crowd_flags(tmp_path, value, crowd):
    records, _, _, report = coco_read(tmp_path, [{**BOX, "iscrowd": value}])
    assert records[0].boxes[0].crowd is crowd and not report.findings


@pytest.mark.parametrize("value", ["maybe", [1], {}])
def test_a_crowd_flag_that_is_none_is_a_finding(tmp_path, value):
    records, _, _, report = coco_read(tmp_path, [{**BOX, "iscrowd": value}])
    assert records[0].boxes[0].crowd is False and found(report) == [("iscrowd unusable", "#1")]


@pytest.mark.parametrize("bbox", ["1234", {"x": 1}, [1, 2, 3], [10 ** 400, 1, 2, 3], [1e308] * 4, [True, True, 5, 5]])
def test_boxes_that_are_none_are_findings(tmp_path, bbox):
    records, _, _, report = coco_read(tmp_path, [{**BOX, "bbox": bbox}, BOX])
    assert len(records[0].boxes) == 1 and [item.kind for item in report.findings] == ["box dropped"]
