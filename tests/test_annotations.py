"""The three readers, their findings and fatal errors."""
import json
import os

import numpy as np
import pytest
from conftest import arrays, found, txt

from src.classes import COCO_CLASSES, VOC_CLASSES, named_classes, nearest
from src.data.coco import read_coco
from src.data.findings import Report
from src.data.records import finish_record
from src.data.txt import read_txt
from src.data.voc import read_voc
from src.errors import DataError, OptionError

SHARED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "shared", "data")
needs_shared = pytest.mark.skipif(not os.path.isdir(SHARED), reason="needs ../shared/data")
NAN, INF = float("nan"), float("inf")


# --- classes

def test_named_lists():
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80 and len(VOC_CLASSES) == len(set(VOC_CLASSES)) == 20
    assert COCO_CLASSES[0] == "person" and COCO_CLASSES[79] == "toothbrush" and VOC_CLASSES[19] == "tvmonitor"
    assert named_classes(["coco"]) == list(COCO_CLASSES) and named_classes(["voc"]) == list(VOC_CLASSES)
    assert named_classes(["b", "a"]) == ["b", "a"] and named_classes([]) == []


@pytest.mark.parametrize("names, text", [
    (["background", "cat"], "implicit"), (["cat", "dog", "cat"], "'cat' more than once")])
def test_impossible_class_lists(names, text):
    with pytest.raises(OptionError, match=text):
        named_classes(names)


def test_nearest_name():
    assert nearest("aeroplan", VOC_CLASSES) == "aeroplane"
    assert nearest("rbc", ["WBC", "RBC"]) == "RBC"
    assert nearest("xyzzy", VOC_CLASSES) is None


# --- COCO

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


# --- VOC

OBJECT = ("<object><name>{0}</name><difficult>{5}</difficult><bndbox><xmin>{1}</xmin><ymin>{2}</ymin><xmax>{3}</xmax>"
          "<ymax>{4}</ymax></bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>")


def voc_xml(objects=(), filename="", size="<size><width>100</width><height>50</height></size>"):
    """XML of a VOC file; objects are (name, xmin, ymin, xmax, ymax, difficult)."""
    name = f"<filename>{filename}</filename>" if filename else ""
    return f"<annotation>{name}{size}{''.join(OBJECT.format(*item) for item in objects)}</annotation>"


def voc_tree(tmp_path, files, images, listed=None):
    """Builds Annotations/, JPEGImages/ and ImageSets/Main/train.txt."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
    for name in images:
        (tmp_path / "JPEGImages" / name).write_bytes(b"")
    (tmp_path / "ImageSets/Main/train.txt").write_text("".join(f"{name}\n" for name in listed or files))
    return str(tmp_path)


def test_voc_record(tmp_path):
    root = voc_tree(tmp_path, {"one": voc_xml([("dog", "10", "5.5", "30", "25.5", 1), ("cat", 1, 1, 2, 3, 0)]),
                               "two": voc_xml(size=""),
                               "three": voc_xml(filename="other.PNG", size="<size><width>0</width></size>")},
                    ["one.jpg", "two.jpeg", "other.PNG"])
    report = Report()
    (one, two, three), names, ids = read_voc(root, "train", classes=[], report=report)
    assert names == ["cat", "dog"] and ids == [1, 2] and not report.findings
    assert arrays(one).pixels.tolist() == [[10, 5.5, 20, 20], [1, 1, 1, 2]], "coordinates stay as written"
    assert arrays(one).area.tolist() == [400, 2] and arrays(one).label.tolist() == [2, 1]
    assert arrays(one).difficult.tolist() == [True, False] and arrays(one).crowd.tolist() == [False, False]
    assert [record.image_id for record in (one, two, three)] == [1, 2, 3]
    assert [os.path.basename(record.path) for record in (one, two, three)] == ["one.jpg", "two.jpeg", "other.PNG"]
    assert (one.height, one.width, two.height, three.width) == (50, 100, 0, 0) and two.boxes == []


def test_voc_findings(tmp_path):
    root = voc_tree(tmp_path, {
        "good": voc_xml([("dog", 1, 2, 30, 40, 0), ("dgo", 1, 2, 3, 4, 0), ("dog", "x", 2, 3, 4, 0)]),
        "broken": "<annotation>", "twin": voc_xml(filename="good.jpg")},
        ["good.jpg"], ["good", "broken", "twin", "absent"])
    report = Report()
    records, _, _ = read_voc(root, "train", classes=["dog"], report=report)
    assert len(records) == 1 and arrays(records[0]).label.tolist() == [1]
    assert sorted(found(report), key=str) == [
        ("annotation unreadable", None), ("annotation unreadable", None), ("box dropped", "#3"),
        ("duplicated id", None), ("unknown class", "#2")]
    assert all(item.file for item in report.findings) and "did you mean 'dog'" in report.summary()


def test_voc_zoo_layout(tmp_path):
    for folder, name in (("train", "b"), ("train", "a"), ("eval", "c")):
        os.makedirs(tmp_path / folder / "Annotations", exist_ok=True)
        os.makedirs(tmp_path / folder / "Images", exist_ok=True)
        (tmp_path / folder / "Annotations" / f"{name}.xml").write_text(voc_xml([("dog", 0, 0, 9, 9, 0)]))
        (tmp_path / folder / "Images" / f"{name}.png").write_bytes(b"")
    for split, paths in (("train", ["train/Images/a.png", "train/Images/b.png"]), ("val", ["eval/Images/c.png"])):
        records, _, _ = read_voc(str(tmp_path), split, classes=[], report=Report())
        assert [os.path.relpath(record.path, tmp_path) for record in records] == paths


def test_voc_trees_that_cannot_be_used(tmp_path):
    root = voc_tree(tmp_path, {"one": "no xml", "two": "<a>"}, [])
    with pytest.raises(DataError, match="train.txt' has no usable annotation"):
        read_voc(root, "train", classes=[], report=Report())
    with pytest.raises(DataError, match="test.txt' is missing; there is train"):
        read_voc(root, "test", classes=[], report=Report())
    with pytest.raises(DataError, match="there is no list at all"):
        read_voc(str(tmp_path / "nowhere"), "train", classes=[], report=Report())
    (tmp_path / "ImageSets/Main/train.txt").write_text("\n")
    with pytest.raises(DataError, match="lists no image"):
        read_voc(root, "train", classes=[], report=Report())


# --- TXT

def test_txt_record(tmp_path):
    records, names, report = txt(tmp_path, "\ufeffsub/a.jpg 10,20,40,25.5,dog  1,2,3,4,cat\r\n\r\n   \nb.jpg\n")
    assert names == ["cat", "dog"] and not report.findings
    assert [os.path.relpath(record.path, tmp_path) for record in records] == ["sub/a.jpg", "b.jpg"]
    assert [(box.pixels, box.label) for box in records[0].boxes] == [((10, 20, 30, 5.5), 2), ((1, 2, 2, 2), 1)]
    assert len(arrays(records[1]).label) == 0 and [record.image_id for record in records] == [1, 2]
    assert records[0].height == 0, "unknown until the image is decoded"


def test_txt_tabs_allow_spaces(tmp_path):
    records, names, report = txt(tmp_path, "my dogs/a b.jpg\t1,2,3,4,hot dog\nc d.jpg\t\ne.jpg 5,5,9,9,cat\n")
    assert [os.path.relpath(record.path, tmp_path) for record in records] == ["my dogs/a b.jpg", "c d.jpg", "e.jpg"]
    assert names == ["cat", "hot dog"] and not report.findings and len(arrays(records[1]).label) == 0
    _, _, report = txt(tmp_path, "a b.jpg 1,2,3,4,cat\n")
    assert "needs tabs" in report.summary()


def test_txt_findings_keep_the_rest_of_the_line(tmp_path):
    text = "a.jpg 1,2,3,4 1,2,3,4,5,6 1,2,x,4,dog 1,2,3,4, 5,6,7,8,dog\na.jpg 1,2,3,4,dog\n"
    records, _, report = txt(tmp_path, text)
    assert [(box.number, box.pixels) for box in records[0].boxes] == [(5, (5, 6, 2, 2)), (6, (1, 2, 2, 2))]
    assert len(records) == 1 and found(report) == [("bad line", f"#{number}") for number in (1, 2, 3, 4)]
    assert report.findings[0].file.endswith("train.txt:1")


def test_txt_numbered_classes(tmp_path):
    text = "a.jpg 1,2,3,4,3 1,2,3,4,1 1,2,3,4,0\n"
    records, names, report = txt(tmp_path, text)
    assert names == ["1", "2", "3"] and arrays(records[0]).label.tolist() == [3, 1]
    assert found(report) == [("unknown class", "#3")] and "background in the model zoo" in report.summary()
    records, names, report = txt(tmp_path, text, ["ant", "bee"])
    assert names == ["ant", "bee"] and arrays(records[0]).label.tolist() == [1]
    assert found(report) == [("unknown class", "#1"), ("unknown class", "#3")]
    records, _, _ = txt(tmp_path, text, ["3", "0"])
    assert arrays(records[0]).label.tolist() == [1, 1, 2], "a class of that very name, otherwise 1 is the first class"


@pytest.mark.parametrize("text, message", [
    ("", "is empty"), ("\n \n", "is empty"), ("a.jpg\n", "no class is in it"),
    ("a.jpg 1,2,3,4,0\n", "largest class number is 0"), ("a.jpg 1,2,3,4,999999999\n", "largest class number"),
    ("a.jpg 1,2,3,4,background 1,2,3,4,cat\n", "implicit")])
def test_txt_files_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        txt(tmp_path, text)


def test_txt_absent_file_folder_and_encoding(tmp_path):
    with pytest.raises(DataError, match="gone.txt' cannot be read"):
        read_txt(str(tmp_path / "gone.txt"), str(tmp_path), classes=[], report=Report())
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00a.jpg")
    with pytest.raises(DataError, match="not text in UTF-8"):
        read_txt(str(tmp_path / "train.txt"), str(tmp_path), classes=[], report=Report())
    (tmp_path / "train.txt").write_text("a.jpg 1,2,3,4,cat")
    with pytest.raises(DataError, match="image_dir '.*nowhere' is not a folder"):
        read_txt(str(tmp_path / "train.txt"), str(tmp_path / "nowhere"), classes=[], report=Report())


# --- real data

@needs_shared
@pytest.mark.parametrize("split, images, boxes, crowds, empty", [
    ("train2017", 220, 1947, 19, 3), ("val2017", 206, 1786, 21, 2)])
def test_real_coco(split, images, boxes, crowds, empty):
    root, report = os.path.join(SHARED, "coco"), Report()
    file = f"{root}/annotations/instances_{split}.json"
    records, names, ids = read_coco(file, f"{root}/{split}", classes=[], report=report)
    records = [finish_record(record, (record.height, record.width), report) for record in records]
    assert len(records) == images and sum(len(one.boxes) for one in records) == boxes and not report.findings
    assert sum(arrays(record).crowd.sum() for record in records) == crowds
    assert sum(len(arrays(record).boxes) == 0 for record in records) == empty
    assert tuple(names) == COCO_CLASSES and ids[0] == 1 and ids[79] == 90


@needs_shared
def test_real_voc_and_its_txt_give_the_same_records(tmp_path):
    root, report = os.path.join(SHARED, "bccd"), Report()
    voc, names, _ = read_voc(root, "train", classes=[], report=report)
    assert len(voc) == 205 and sum(len(arrays(record).label) for record in voc) == 2805
    assert names == ["Platelets", "RBC", "WBC"]
    lines = []
    for record in voc:
        x, y, width, height = arrays(record).pixels.T
        lines.append(" ".join([os.path.basename(record.path)] + [
            f"{a:g},{b:g},{c:g},{d:g},{names[label - 1]}"
            for a, b, c, d, label in zip(x, y, x + width, y + height, arrays(record).label)]))
    (tmp_path / "train.txt").write_text("\n".join(lines))
    images = os.path.join(root, "JPEGImages")
    other, other_names, _ = read_txt(str(tmp_path / "train.txt"), images, classes=[], report=report)
    assert other_names == names and report.finding_count == 0
    for first, second in zip(voc, other, strict=True):
        first, second = (finish_record(record, (480, 640), report) for record in (first, second))
        assert (first.image_id, first.path) == (second.image_id, second.path)
        for field in ("pixels", "area", "label", "crowd", "boxes"):
            np.testing.assert_array_equal(getattr(arrays(first), field), getattr(arrays(second), field))
    assert report.counts == {"box dropped": 2}, "one box of no size, seen by both readers"


# --- what breaks a reader

@pytest.mark.parametrize("error", [ValueError("odd\n text"), KeyError("x"), RecursionError("deep"), LookupError("x")])
def test_an_exception_of_a_record_is_a_finding(error):
    report = Report()
    with report.catching("annotation unreadable", "a.xml"):
        raise error
    (finding,) = report.findings
    assert finding[:2] == ("annotation unreadable", "a.xml") and type(error).__name__ in finding.reason
    assert "\n" not in finding.reason


@pytest.mark.parametrize("error", [DataError("said already"), OptionError("said already"), MemoryError()])
def test_errors_that_end_the_program_are_no_findings(error):
    report = Report()
    with pytest.raises(type(error)), report.catching("annotation unreadable", "a.xml"):
        raise error
    assert not report.findings
