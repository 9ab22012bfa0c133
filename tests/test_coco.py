"""COCO files as users have them: what is read, what becomes a finding, what ends the conversion."""
import json

import numpy as np
import pytest
from conftest import coco_tree, found, picture
from pycocotools import mask

from src.data import coco_masks
from src.data.coco import id_key, read_coco
from src.data.convert import coco_annotations
from src.data.findings import Report
from src.errors import DataError
from src.evaluation.evaluate import to_coco

IMAGES = [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80},
          {"id": 2, "file_name": "b.jpg", "width": 100, "height": 80}]
BOX = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 38]}
NAMES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def read(tmp_path, annotations=(BOX,), images=IMAGES, categories=NAMES, classes=()):
    """read_coco on a file with this content -> records, class names, their ids, report."""
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": list(annotations), "categories": categories}))
    report = Report()
    return *read_coco(str(path), str(tmp_path), classes=list(classes), report=report), report


def boxes_of(records):
    """{file name: [(class name, pixels)]}."""
    return {record.source: [(box.name, box.pixels) for box in record.boxes] for record in records}


# --- images

@pytest.mark.parametrize("name", [5, None, "", ["a.jpg"], "a\0.jpg", "\ud800.jpg"])
def test_an_image_without_a_usable_file_name_is_a_finding(tmp_path, name):
    records, _, _, report = read(tmp_path, [BOX, {**BOX, "image_id": 2}], [{**IMAGES[0], "file_name": name}, IMAGES[1]])
    assert boxes_of(records) == {"b.jpg": [("cat", (10, 10, 40, 38))]}
    assert [item.kind for item in report.findings] == ["image unusable", "unknown image"]
    assert report.findings[0].file == "image 1"


@pytest.mark.parametrize("written", [None, [1], {}, float("nan"), float("inf")])
def test_an_image_without_a_usable_id_is_a_finding(tmp_path, written):
    records, _, _, report = read(tmp_path, [{**BOX, "image_id": written}, {**BOX, "image_id": 2}],
                                 [{**IMAGES[0], "id": written}, IMAGES[1]])
    assert list(boxes_of(records)) == ["b.jpg"] and len(records[0].boxes) == 1
    assert [item.kind for item in report.findings] == ["image unusable", "unknown image"]
    assert "neither a number nor a text" in report.findings[0].reason


def test_an_id_that_is_true_is_one_and_said(tmp_path):
    records, _, _, report = read(tmp_path, images=[{**IMAGES[0], "id": True}, IMAGES[1]])
    assert len(records) == 2 and len(records[0].boxes) == 1 and records[0].truth_id == 1
    assert found(report) == [("image id", None)]


def test_two_files_of_one_id_are_an_error_that_names_both(tmp_path):
    for first, second in ((1, 1), (1, "1"), (2.0, 2), ("x", "x")):
        with pytest.raises(DataError, match="'a.jpg' and 'b.jpg' share the id") as error:
            read(tmp_path, images=[{**IMAGES[0], "id": first}, {**IMAGES[1], "id": second}])
        assert error.value.exit_code == 3 and "instances.json" in str(error.value)
    records, _, _, report = read(tmp_path, images=[IMAGES[0], IMAGES[0]])
    assert len(records) == 1 and found(report) == [("duplicated id", None)], "one file listed twice is no mix-up"


@pytest.mark.parametrize("written", [2 ** 63, -2 ** 63 - 1, 10 ** 40, 1e30])
def test_an_image_id_beyond_64_bits_is_an_error(tmp_path, written):
    with pytest.raises(DataError, match="the image id .* is beyond 64 bits"):
        read(tmp_path, images=[{**IMAGES[0], "id": written}, IMAGES[1]])
    assert len(read(tmp_path, images=[{**IMAGES[0], "id": 2 ** 63 - 1}, {**IMAGES[1], "id": 1}])[0]) == 2


def test_backslashes_in_file_names(tmp_path):
    picture(tmp_path / "sub" / "a.jpg")
    records, _, _, _ = read(tmp_path, images=[{"id": 1, "file_name": r"sub\a.jpg"}])
    assert records[0].path == str(tmp_path / "sub" / "a.jpg")


# --- ids

def test_keys_of_ids():
    assert [id_key(value) for value in (7, 7.0, "7", "-7", "0", True)] == [7, 7, 7, -7, 0, 1]
    assert [id_key(value) for value in ("007", "x", "", " 7", "7.0", 1.5)] == ["007", "x", "", " 7", "7.0", 1.5]
    assert [id_key(value) for value in (None, [7], {}, float("nan"), float("inf"))] == [None] * 5
    assert id_key(10 ** 400) == 10 ** 400


def test_a_category_id_that_is_true_is_an_error(tmp_path):
    with pytest.raises(DataError, match="category ids must be whole numbers"):
        read(tmp_path, categories=[{"id": True, "name": "cat"}, NAMES[1]])


@pytest.mark.parametrize("image, owner", [(1, "1"), ("1", 1), ("1", "1"), (1.0, 1), (-5, "-5"),
                                          ("x7", "x7"), ("1", 1.0)])
def test_text_ids_and_number_ids_are_one(tmp_path, image, owner):
    records, _, _, report = read(tmp_path, [{**BOX, "image_id": owner}], [{**IMAGES[0], "id": image}, IMAGES[1]])
    assert len(records[0].boxes) == 1 and not report.findings
    assert records[0].truth_id == image and type(records[0].truth_id) is type(image)
    assert type(records[0].image_id) is int and records[1].truth_id == 2
    assert coco_annotations(records[0], [1, 2], 1)[0]["image_id"] == image


@pytest.mark.parametrize("listed, given", [(1, "1"), ("1", 1), (1.0, 1), ("1", "1")])
def test_text_categories_and_number_categories_are_one(tmp_path, listed, given):
    records, names, ids, report = read(tmp_path, [{**BOX, "category_id": given}],
                                       categories=[{"id": listed, "name": "cat"}, NAMES[1]])
    assert [box.label for box in records[0].boxes] == [1] and names == ["cat", "dog"] and not report.findings
    assert ids == [listed, 2], "as the file writes them"


@pytest.mark.parametrize("key", ["image_id", "category_id"])
@pytest.mark.parametrize("value", [[1], {"a": 1}, None, float("nan"), 10 ** 400])
def test_ids_of_annotations_that_are_none(tmp_path, key, value):
    records, _, _, report = read(tmp_path, [{**BOX, key: value}, {**BOX, "image_id": 2}])
    assert [len(record.boxes) for record in records] == [0, 1]
    assert [item.kind for item in report.findings] == ["unknown image" if key == "image_id" else "unknown class"]
    assert len(report.summary()) < 400


@pytest.mark.parametrize("written", [[1], "x", None, 2 ** 70, True, {"a": 1}])
def test_the_id_of_an_annotation_hardly_matters(tmp_path, written):
    records, _, _, report = read(tmp_path, [{**BOX, "id": written}])
    assert len(records[0].boxes) == 1 and records[0].boxes[0].number == 1 and not report.findings


# --- categories

def test_one_category_id_with_two_names_is_an_error(tmp_path):
    for second in (1, "1", 1.0):
        with pytest.raises(DataError, match="category id 1 has two names, 'cat' and 'dog'"):
            read(tmp_path, categories=[{"id": 1, "name": "cat"}, {"id": second, "name": "dog"}])
    assert read(tmp_path, categories=[NAMES[0], NAMES[0]])[1] == ["cat"]


def test_a_parent_without_boxes_and_with_the_name_of_a_child_is_left_out(tmp_path):
    for parent, child in ((0, 1), (1, 0)):
        _, names, ids, report = read(tmp_path, [{**BOX, "category_id": child}],
                                     categories=[{"id": parent, "name": "cat"}, {"id": child, "name": "cat"}])
        assert (names, ids) == (["cat"], [child]) and report.finding_count == 0
        assert report.findings[0][:2] == ("category left out", f"category {parent}")
    _, names, ids, _ = read(tmp_path, [], categories=[{"id": 0, "name": "cat"}, {"id": 4, "name": "cat"}])
    assert (names, ids) == (["cat"], [4])
    with pytest.raises(DataError, match="'cat' more than once"):
        read(tmp_path, [BOX, {**BOX, "category_id": 2}], categories=[NAMES[0], {"id": 2, "name": "cat"}])


@pytest.mark.parametrize("name", [None, ["a"], {"a": 1}, True, "", "  "])
def test_a_category_without_a_usable_name_is_a_finding(tmp_path, name):
    records, names, ids, report = read(tmp_path, [BOX, {**BOX, "category_id": 2}],
                                       categories=[{"id": 1, "name": name}, NAMES[1]])
    assert (names, ids) == (["dog"], [2]) and [box.name for box in records[0].boxes] == ["dog"]
    assert [item.kind for item in report.findings] == ["category unusable", "unknown class"]


def test_names_that_are_numbers_or_of_several_lines_are_read_and_said(tmp_path):
    records, names, _, report = read(tmp_path, [BOX, {**BOX, "category_id": 2}],
                                     categories=[{"id": 1, "name": 7}, {"id": 2, "name": "a\nb"}])
    assert names == ["7", "a b"] and [box.label for box in records[0].boxes] == [1, 2]
    assert [item.kind for item in report.findings] == ["class name changed"] * 2


@pytest.mark.parametrize("name", ["coco", "voc", "background"])
def test_a_single_class_may_be_called_like_a_list(tmp_path, name):
    for classes in ([], [name]):
        _, names, ids, _ = read(tmp_path, categories=[{"id": 1, "name": name}], classes=classes)
        assert (names, ids) == ([name], [1])


# --- boxes, areas, flags

TRIANGLE, SQUARE = [10, 12, 50, 12.5, 50, 48], [70, 20, 80, 20, 80, 30, 70, 30]


@pytest.mark.parametrize("segmentation, box", [
    ([TRIANGLE], (10, 12, 40, 36)), ([TRIANGLE, SQUARE], (10, 12, 70, 36)), (TRIANGLE, (10, 12, 40, 36)),
    ([["10", "12", "50", "48"]], (10, 12, 40, 36))])
@pytest.mark.parametrize("bbox", [{}, {"bbox": None}, {"bbox": []}])
def test_a_polygon_without_a_box_gives_its_extent(tmp_path, segmentation, box, bbox):
    records, _, _, report = read(tmp_path, [{"image_id": 1, "category_id": 1, "segmentation": segmentation, **bbox}])
    assert boxes_of(records)["a.jpg"] == [("cat", box)] and not report.findings


def test_a_run_length_code_without_a_box_gives_its_extent(tmp_path):
    pixels = np.zeros((80, 100), np.uint8, order="F")
    pixels[20:35, 60:90] = 1
    pixels[22, 5] = 1
    packed = mask.encode(pixels)
    changes = np.flatnonzero(np.diff(pixels.flatten(order="F"), prepend=0, append=1)).tolist()
    runs = np.diff([0, *changes]).tolist()  # column by column, zeros first
    for counts in (packed["counts"].decode(), runs):
        code = {"size": [80, 100], "counts": counts}
        records, _, _, report = read(tmp_path, [{"image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": code}])
        assert boxes_of(records)["a.jpg"] == [("cat", (5, 20, 85, 15))] and not report.findings
        assert records[0].boxes[0].crowd


@pytest.mark.parametrize("segmentation", [
    [[1]], [[]], [[1, 2, 3]], ["ab"], [["x", "y"]], 5, "abc", [[None, 1]], {"counts": [5]}, {"size": [80, 100]},
    {"counts": [0, 10 ** 10], "size": [80, 100]}, {"counts": [0, -1], "size": [80, 100]},
    {"counts": [0, 8001], "size": [80, 100]}, {"counts": [], "size": [80, 100]}, {"counts": [8000], "size": [80, 100]},
    {"counts": "abc", "size": [80, 100]}, {"counts": "P", "size": [80, 100]}, {"counts": "", "size": [80, 100]},
    {"counts": "\u732b", "size": [80, 100]}, {"counts": [0, 10], "size": [0, 100]}, {"counts": [0, 9], "size": "ab"},
    {"counts": [0, 10], "size": [10 ** 9, 100]}, {"counts": [0, 10], "size": [80]}, {"counts": None, "size": [8, 8]}])
def test_a_segmentation_that_gives_no_box_is_a_finding(tmp_path, segmentation):
    records, _, _, report = read(tmp_path, [{"image_id": 1, "category_id": 1, "segmentation": segmentation},
                                            {**BOX, "image_id": 2}])
    assert [len(record.boxes) for record in records] == [0, 1]
    assert [item.kind for item in report.findings] == ["box dropped"] and "segmentation" in report.findings[0].reason


def test_polygons_are_not_kept_where_there_is_a_box(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_masks, "polygon_box", lambda polygons: 1 / 0)
    records, _, _, report = read(tmp_path, [{**BOX, "segmentation": [SQUARE]}])
    assert boxes_of(records)["a.jpg"] == [("cat", (10, 10, 40, 38))] and not report.findings


@pytest.mark.parametrize("value, area", [(99.5, 99.5), ("99.5", 99.5), (0, 0), (None, None)])
def test_areas(tmp_path, value, area):
    records, _, _, report = read(tmp_path, [{**BOX, "area": value}])
    assert records[0].boxes[0].area == area and not report.findings


@pytest.mark.parametrize("value", ["big", [1], {}, True, -1, float("nan"), float("inf"), 10 ** 400])
def test_an_area_that_is_none_is_a_finding_and_w_times_h(tmp_path, value):
    records, _, _, report = read(tmp_path, [{**BOX, "area": value}])
    assert found(report) == [("area unusable", "#1")]
    assert coco_annotations(records[0], [1, 2], 1)[0]["area"] == 40 * 38


@pytest.mark.parametrize("value, crowd", [(0, False), (1, True), ("0", False), ("1", True), (2, True), (None, False),
                                          (False, False), (True, True), ("false", False), ("True", True), (0.0, False)])
def test_crowd_flags(tmp_path, value, crowd):
    records, _, _, report = read(tmp_path, [{**BOX, "iscrowd": value}])
    assert records[0].boxes[0].crowd is crowd and not report.findings


@pytest.mark.parametrize("value", ["maybe", [1], {}])
def test_a_crowd_flag_that_is_none_is_a_finding(tmp_path, value):
    records, _, _, report = read(tmp_path, [{**BOX, "iscrowd": value}])
    assert records[0].boxes[0].crowd is False and found(report) == [("iscrowd unusable", "#1")]


@pytest.mark.parametrize("bbox", ["1234", {"x": 1}, [1, 2, 3], [10 ** 400, 1, 2, 3], [1e308] * 4, [True, True, 5, 5]])
def test_boxes_that_are_none_are_findings(tmp_path, bbox):
    records, _, _, report = read(tmp_path, [{**BOX, "bbox": bbox}, BOX])
    assert len(records[0].boxes) == 1 and [item.kind for item in report.findings] == ["box dropped"]


# --- whole files

def test_json_that_is_too_deep(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100000 + "]" * 100000)
    with pytest.raises(DataError, match="deep.json' is nested too deep"):
        read_coco(str(tmp_path / "deep.json"), str(tmp_path), classes=[], report=Report())


def test_boxes_written_as_corners_are_said_in_a_conversion(tmp_path, call):
    coco_tree(tmp_path, [(5, [20, 10, 38, 19], 7, {}), (3, [25, 2, 39, 18], 7, {}), (3, [2, 2, 9, 9], 7, {})])
    split = call.coco()
    assert split.summary.count("most look like x1, y1, x2, y2") == 1


def test_text_ids_stay_in_the_ground_truth(tmp_path, call):
    images = [{"id": "first", "file_name": "a.png"}, {"id": "2", "file_name": "b.png"}]
    coco_tree(tmp_path, [("first", [1, 1, 9, 9], 7, {}), (2, [1, 1, 9, 9], 7, {})], images)
    with open(call.coco().ground_truth, encoding="utf-8") as file:
        truth = json.load(file)
    assert [image["id"] for image in truth["images"]] == ["first", "2"]
    assert [item["image_id"] for item in truth["annotations"]] == ["first", "2"]
    found_there = to_coco(np.array([[1, 0, 0, .5, .5, .9, 2]]), truth)
    assert [(one["image_id"], one["category_id"]) for one in found_there] == [("2", 7)], "as detections.json has it"
