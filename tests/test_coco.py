"""COCO files as users have them: what is read, what becomes a finding, what ends the conversion."""
import json

import numpy as np
import pytest
from annotation_files import BOX, IMAGES, NAMES, boxes_by_image, coco_read
from conftest import arrays, coco_tree, found, picture

from src.data.coco import id_key, read_coco
from src.data.convert import coco_annotations
from src.data.findings import Report
from src.data.records import finish_record
from src.errors import DataError
from src.evaluation.evaluate import to_coco

# --- a sound file, and files that cannot be used

def coco_file(tmp_path, boxes=(), **changes):
    """A COCO file with images 7 (a.jpg, 100 x 50) and 9 (b.jpg); boxes are (image id, category id, bbox, extras)."""
    data = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 50, "width": 100},
                   {"id": 9, "file_name": "b.jpg", "height": 20, "width": 20}],
        "annotations": [{"id": 100 + number, "image_id": image, "category_id": category, "bbox": bbox, **extra}
                        for number, (image, category, bbox, extra) in enumerate(boxes)],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}], **changes}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    return str(path)


def test_coco_record(tmp_path):
    path = coco_file(tmp_path, [(7, 18, [10.25, 5, 20, 10.5], {"area": 99.5, "iscrowd": 1}), (7, 3, [0, 0, 2, 3], {})])
    report = Report()
    records, names, ids = read_coco(path, str(tmp_path), classes=[], report=report)
    assert names == ["car", "dog"] and ids == [3, 18] and not report.findings
    first, second = records
    assert (first.image_id, first.path, first.height, first.width) == (7, str(tmp_path / "a.jpg"), 50, 100)
    assert arrays(first).pixels.tolist() == [[10.25, 5, 20, 10.5], [0, 0, 2, 3]]
    assert arrays(first).area.tolist() == [99.5, 6]
    assert [(box.label, box.crowd, box.difficult) for box in first.boxes] == [(2, True, False), (1, False, False)]
    assert second.image_id == 9 and arrays(second).pixels.shape == (0, 4)
    finished = finish_record(first, (50, 100), report)
    np.testing.assert_allclose(arrays(finished).boxes, [[.1025, .1, .3025, .31], [0, 0, .02, .06]], rtol=1e-6)
    assert arrays(finished).boxes.dtype == np.float32 and arrays(finished).area.tolist() == [99.5, 6]
    assert arrays(finish_record(second, (20, 20), report)).boxes.shape == (0, 4)


def test_coco_given_classes_keep_their_ids(tmp_path):
    path = coco_file(tmp_path, [(7, 18, [0, 0, 5, 5], {}), (9, 3, [0, 0, 5, 5], {})])
    report = Report()
    records, names, ids = read_coco(path, str(tmp_path), classes=["dog", "cart", "unicorn"], report=report)
    assert names == ["dog", "cart", "unicorn"] and ids == [18, 20, 21]
    assert arrays(records[0]).label.tolist() == [1] and len(arrays(records[1]).label) == 0
    assert found(report) == [("unknown class", "#101")]
    assert "'car' is not in the list of classes; did you mean 'cart'?" in report.summary()


def test_coco_findings(tmp_path):
    images = [{"id": 7, "file_name": "a.jpg"}, {"id": 7, "file_name": "./a.jpg"}, {"id": 9, "file_name": "b.jpg"}]
    path = coco_file(tmp_path, [(7, 3, [0, 0, 5, 5], {}), (8, 3, [0, 0, 5, 5], {}), (9, 3, [0, 0, 5], {}),
                                (9, 3, None, {}), (9, 99, [0, 0, 5, 5], {})], images=images)
    report = Report()
    records, _, _ = read_coco(path, str(tmp_path), classes=[], report=report)
    assert [(record.path[-5:], len(arrays(record).label)) for record in records] == [("a.jpg", 1), ("b.jpg", 0)]
    assert records[0].height == 0, "not written: the image tells"
    assert found(report) == [("duplicated id", None), ("unknown image", None), ("box dropped", "#102"),
                             ("box dropped", "#103"), ("unknown class", "#104")]
    assert report.findings[0].file == "./a.jpg" and "a.jpg" in report.findings[0].reason


def test_coco_text_ids_become_numbers(tmp_path):
    path = coco_file(tmp_path, [("x", 3, [0, 0, 5, 5], {})], images=[{"id": "y", "file_name": "y.jpg"},
                                                                      {"id": "x", "file_name": "x.jpg"}])
    records, _, _ = read_coco(path, str(tmp_path), classes=[], report=Report())
    assert [(record.image_id, len(arrays(record).label)) for record in records] == [(1, 0), (2, 1)]


@pytest.mark.parametrize("text, message", [
    ("", "is empty"), ("person 1 2 3", "not JSON or is cut short"), ('{"images": [{"id": 1, "file_na', "cut short"),
    ("[]", "no list 'images'"), ('{"images": [], "annotations": []}', "no list 'categories'"),
    ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "with id and file_name"),
    ('{"images": [], "annotations": [], "categories": []}', "no class"),
    ('{"images": [], "annotations": [], "categories": [{"id": "a", "name": "b"}]}', "whole numbers")])
def test_coco_files_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / "instances.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_coco(str(path), str(tmp_path), classes=[], report=Report())
    assert "instances.json" in str(error.value) and "\n" not in str(error.value)


def test_coco_absent_file_folder_and_classes(tmp_path):
    path = coco_file(tmp_path, [(7, 18, [0, 0, 5, 5], {})])
    with pytest.raises(DataError, match="gone.json' cannot be read: No such file"):
        read_coco(str(tmp_path / "gone.json"), str(tmp_path), classes=[], report=Report())
    with pytest.raises(DataError, match="image folder '.*nowhere' is not a folder"):
        read_coco(path, str(tmp_path / "nowhere"), classes=[], report=Report())
    with pytest.raises(DataError, match=r"none of the classes \[cat, cow\].*which has \[dog\]"):
        read_coco(path, str(tmp_path), classes=["cat", "cow"], report=Report())
    with pytest.raises(DataError, match=r"\[c0, .*, c19 and 60 more\] is in .*which has \[dog\]"):
        read_coco(path, str(tmp_path), classes=[f"c{number}" for number in range(80)], report=Report())


# --- images

@pytest.mark.parametrize("name", [5, None, "", ["a.jpg"], "a\0.jpg", "\ud800.jpg"])
def test_an_image_without_a_usable_file_name_is_a_finding(tmp_path, name):
    images = [{**IMAGES[0], "file_name": name}, IMAGES[1]]
    records, _, _, report = coco_read(tmp_path, [BOX, {**BOX, "image_id": 2}], images)
    assert boxes_by_image(records) == {"b.jpg": [("cat", (10, 10, 40, 38))]}
    assert [item.kind for item in report.findings] == ["image unusable", "unknown image"]
    assert report.findings[0].file == "image 1"


@pytest.mark.parametrize("written", [None, [1], {}, float("nan"), float("inf")])
def test_an_image_without_a_usable_id_is_a_finding(tmp_path, written):
    records, _, _, report = coco_read(tmp_path, [{**BOX, "image_id": written}, {**BOX, "image_id": 2}],
                                 [{**IMAGES[0], "id": written}, IMAGES[1]])
    assert list(boxes_by_image(records)) == ["b.jpg"] and len(records[0].boxes) == 1
    assert [item.kind for item in report.findings] == ["image unusable", "unknown image"]
    assert "neither a number nor a text" in report.findings[0].reason


def test_an_id_that_is_true_is_one_and_said(tmp_path):
    records, _, _, report = coco_read(tmp_path, images=[{**IMAGES[0], "id": True}, IMAGES[1]])
    assert len(records) == 2 and len(records[0].boxes) == 1 and records[0].truth_id == 1
    assert found(report) == [("image id", None)]


def test_two_files_of_one_id_are_an_error_that_names_both(tmp_path):
    for first, second in ((1, 1), (1, "1"), (2.0, 2), ("x", "x")):
        with pytest.raises(DataError, match="'a.jpg' and 'b.jpg' share the id") as error:
            coco_read(tmp_path, images=[{**IMAGES[0], "id": first}, {**IMAGES[1], "id": second}])
        assert error.value.exit_code == 3 and "instances.json" in str(error.value)
    records, _, _, report = coco_read(tmp_path, images=[IMAGES[0], IMAGES[0]])
    assert len(records) == 1 and found(report) == [("duplicated id", None)], "a file listed twice mixes up nothing"


@pytest.mark.parametrize("written", [2 ** 63, -2 ** 63 - 1, 10 ** 40, 1e30])
def test_an_image_id_beyond_64_bits_is_an_error(tmp_path, written):
    with pytest.raises(DataError, match="the image id .* is beyond 64 bits"):
        coco_read(tmp_path, images=[{**IMAGES[0], "id": written}, IMAGES[1]])
    assert len(coco_read(tmp_path, images=[{**IMAGES[0], "id": 2 ** 63 - 1}, {**IMAGES[1], "id": 1}])[0]) == 2


def test_backslashes_in_file_names(tmp_path):
    picture(tmp_path / "sub" / "a.jpg")
    records, _, _, _ = coco_read(tmp_path, images=[{"id": 1, "file_name": r"sub\a.jpg"}])
    assert records[0].path == str(tmp_path / "sub" / "a.jpg")


# --- ids

def test_keys_of_ids():
    assert [id_key(value) for value in (7, 7.0, "7", "-7", "0", True)] == [7, 7, 7, -7, 0, 1]
    assert [id_key(value) for value in ("007", "x", "", " 7", "7.0", 1.5)] == ["007", "x", "", " 7", "7.0", 1.5]
    assert [id_key(value) for value in (None, [7], {}, float("nan"), float("inf"))] == [None] * 5
    assert id_key(10 ** 400) == 10 ** 400


def test_a_category_id_that_is_true_is_an_error(tmp_path):
    with pytest.raises(DataError, match="category ids must be whole numbers"):
        coco_read(tmp_path, categories=[{"id": True, "name": "cat"}, NAMES[1]])


@pytest.mark.parametrize("image, owner", [(1, "1"), ("1", 1), ("1", "1"), (1.0, 1), (-5, "-5"),
                                          ("x7", "x7"), ("1", 1.0)])
def test_text_ids_and_number_ids_are_one(tmp_path, image, owner):
    records, _, _, report = coco_read(tmp_path, [{**BOX, "image_id": owner}], [{**IMAGES[0], "id": image}, IMAGES[1]])
    assert len(records[0].boxes) == 1 and not report.findings
    assert records[0].truth_id == image and type(records[0].truth_id) is type(image)
    assert type(records[0].image_id) is int and records[1].truth_id == 2
    assert coco_annotations(records[0], [1, 2], 1)[0]["image_id"] == image


@pytest.mark.parametrize("listed, given", [(1, "1"), ("1", 1), (1.0, 1), ("1", "1")])
def test_text_categories_and_number_categories_are_one(tmp_path, listed, given):
    records, names, ids, report = coco_read(tmp_path, [{**BOX, "category_id": given}],
                                       categories=[{"id": listed, "name": "cat"}, NAMES[1]])
    assert [box.label for box in records[0].boxes] == [1] and names == ["cat", "dog"] and not report.findings
    assert ids == [listed, 2], "as the file writes them"


@pytest.mark.parametrize("key", ["image_id", "category_id"])
@pytest.mark.parametrize("value", [[1], {"a": 1}, None, float("nan"), 10 ** 400])
def test_ids_of_annotations_that_are_none(tmp_path, key, value):
    records, _, _, report = coco_read(tmp_path, [{**BOX, key: value}, {**BOX, "image_id": 2}])
    assert [len(record.boxes) for record in records] == [0, 1]
    assert [item.kind for item in report.findings] == ["unknown image" if key == "image_id" else "unknown class"]
    assert len(report.summary()) < 400


@pytest.mark.parametrize("written", [[1], "x", None, 2 ** 70, True, {"a": 1}])
def test_the_id_of_an_annotation_hardly_matters(tmp_path, written):
    records, _, _, report = coco_read(tmp_path, [{**BOX, "id": written}])
    assert len(records[0].boxes) == 1 and records[0].boxes[0].number == 1 and not report.findings


# --- categories

def test_one_category_id_with_two_names_is_an_error(tmp_path):
    for second in (1, "1", 1.0):
        with pytest.raises(DataError, match="category id 1 has two names, 'cat' and 'dog'"):
            coco_read(tmp_path, categories=[{"id": 1, "name": "cat"}, {"id": second, "name": "dog"}])
    assert coco_read(tmp_path, categories=[NAMES[0], NAMES[0]])[1] == ["cat"]


def test_a_parent_without_boxes_and_with_the_name_of_a_child_is_left_out(tmp_path):
    for parent, child in ((0, 1), (1, 0)):
        _, names, ids, report = coco_read(tmp_path, [{**BOX, "category_id": child}],
                                     categories=[{"id": parent, "name": "cat"}, {"id": child, "name": "cat"}])
        assert (names, ids) == (["cat"], [child]) and report.finding_count == 0
        assert report.findings[0][:2] == ("category left out", f"category {parent}")
    _, names, ids, _ = coco_read(tmp_path, [], categories=[{"id": 0, "name": "cat"}, {"id": 4, "name": "cat"}])
    assert (names, ids) == (["cat"], [4])
    with pytest.raises(DataError, match="'cat' more than once"):
        coco_read(tmp_path, [BOX, {**BOX, "category_id": 2}], categories=[NAMES[0], {"id": 2, "name": "cat"}])


@pytest.mark.parametrize("name", [None, ["a"], {"a": 1}, True, "", "  "])
def test_a_category_without_a_usable_name_is_a_finding(tmp_path, name):
    records, names, ids, report = coco_read(tmp_path, [BOX, {**BOX, "category_id": 2}],
                                       categories=[{"id": 1, "name": name}, NAMES[1]])
    assert (names, ids) == (["dog"], [2]) and [box.name for box in records[0].boxes] == ["dog"]
    assert [item.kind for item in report.findings] == ["category unusable", "unknown class"]


def test_names_that_are_numbers_or_of_several_lines_are_read_and_said(tmp_path):
    records, names, _, report = coco_read(tmp_path, [BOX, {**BOX, "category_id": 2}],
                                     categories=[{"id": 1, "name": 7}, {"id": 2, "name": "a\nb"}])
    assert names == ["7", "a b"] and [box.label for box in records[0].boxes] == [1, 2]
    assert [item.kind for item in report.findings] == ["class name changed"] * 2


@pytest.mark.parametrize("name", ["coco", "voc", "background"])
def test_a_single_class_may_be_called_like_a_list(tmp_path, name):
    for classes in ([], [name]):
        _, names, ids, _ = coco_read(tmp_path, categories=[{"id": 1, "name": name}], classes=classes)
        assert (names, ids) == ([name], [1])


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
    (detection,) = found_there
    assert (detection["image_id"], detection["category_id"]) == ("2", 7), "as detections.json has it"
