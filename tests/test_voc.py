"""What VOC trees hold in the wild: odd objects, odd files, other encodings."""
import os

import pytest
from annotation_files import BNDBOX, CAT, voc_read, voc_tree
from conftest import arrays, found, picture

from src.data.findings import Report
from src.data.voc import read_voc, read_xml
from src.errors import DataError

# --- sound trees, and trees that cannot be used

OBJECT = ("<object><name>{0}</name><difficult>{5}</difficult><bndbox><xmin>{1}</xmin><ymin>{2}</ymin><xmax>{3}</xmax>"
          "<ymax>{4}</ymax></bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>")


def inside(objects=(), filename="", size="<size><width>100</width><height>50</height></size>"):
    """The inside of <annotation>; objects are (name, xmin, ymin, xmax, ymax, difficult)."""
    name = f"<filename>{filename}</filename>" if filename else ""
    return name + size + "".join(OBJECT.format(*item) for item in objects)


def test_voc_record(tmp_path):
    root = voc_tree(tmp_path, {"one": inside([("dog", "10", "5.5", "30", "25.5", 1), ("cat", 1, 1, 2, 3, 0)]),
                               "two": inside(size=""),
                               "three": inside(filename="other.PNG", size="<size><width>0</width></size>")},
                    images=["one.jpg", "two.jpeg", "other.PNG"])
    report = Report()
    (first, second, third), names, ids = read_voc(root, "train", classes=[], report=report)
    assert names == ["cat", "dog"] and ids == [1, 2] and not report.findings
    assert arrays(first).pixels.tolist() == [[10, 5.5, 20, 20], [1, 1, 1, 2]], "coordinates stay as written"
    assert arrays(first).area.tolist() == [400, 2] and arrays(first).label.tolist() == [2, 1]
    assert arrays(first).difficult.tolist() == [True, False] and arrays(first).crowd.tolist() == [False, False]
    assert [record.image_id for record in (first, second, third)] == [1, 2, 3]
    assert [os.path.basename(record.path) for record in (first, second, third)] == ["one.jpg", "two.jpeg", "other.PNG"]
    assert (first.height, first.width, second.height, third.width) == (50, 100, 0, 0) and second.boxes == []


def test_voc_findings(tmp_path):
    root = voc_tree(tmp_path, {
        "good": inside([("dog", 1, 2, 30, 40, 0), ("dgo", 1, 2, 3, 4, 0), ("dog", "x", 2, 3, 4, 0)]),
        "broken": b"<annotation>", "twin": inside(filename="good.jpg")},
        images=["good.jpg"], listed="good\nbroken\ntwin\nabsent")
    report = Report()
    records, _, _ = read_voc(root, "train", classes=["dog"], report=report)
    assert len(records) == 1 and arrays(records[0]).label.tolist() == [1]
    assert sorted(found(report), key=str) == [
        ("annotation unreadable", None), ("annotation unreadable", None), ("box dropped", "#3"),
        ("duplicated id", None), ("unknown class", "#2")]
    assert all(item.file for item in report.findings) and "did you mean 'dog'" in report.summary()


def test_voc_zoo_layout(tmp_path):
    dog = inside([("dog", 0, 0, 9, 9, 0)])
    for folder, name in (("train", "b"), ("train", "a"), ("eval", "c")):
        os.makedirs(tmp_path / folder / "Annotations", exist_ok=True)
        os.makedirs(tmp_path / folder / "Images", exist_ok=True)
        (tmp_path / folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{dog}</annotation>")
        (tmp_path / folder / "Images" / f"{name}.png").write_bytes(b"")
    for split, paths in (("train", ["train/Images/a.png", "train/Images/b.png"]), ("val", ["eval/Images/c.png"])):
        records, _, _ = read_voc(str(tmp_path), split, classes=[], report=Report())
        assert [os.path.relpath(record.path, tmp_path) for record in records] == paths


def test_voc_trees_that_cannot_be_used(tmp_path):
    root = voc_tree(tmp_path, {"one": b"no xml", "two": b"<a>"})
    with pytest.raises(DataError, match="train.txt' has no usable annotation"):
        read_voc(root, "train", classes=[], report=Report())
    with pytest.raises(DataError, match="test.txt' is missing; there is train"):
        read_voc(root, "test", classes=[], report=Report())
    with pytest.raises(DataError, match="there is no list at all"):
        read_voc(str(tmp_path / "nowhere"), "train", classes=[], report=Report())
    (tmp_path / "ImageSets/Main/train.txt").write_text("\n")
    with pytest.raises(DataError, match="lists no image"):
        read_voc(root, "train", classes=[], report=Report())


# --- objects

def test_each_box_of_an_object_is_read(tmp_path):
    boxes = BNDBOX.format(1, 2, 3, 4) + BNDBOX.format(5, 6, 8, 10) + BNDBOX.format(1, 2, 3, "x")
    images, report = voc_read(voc_tree(tmp_path, {"a": f"<object><name>cat</name>{boxes}</object>"}))
    assert images == {"a.jpg": [("cat", (1, 2, 2, 2)), ("cat", (5, 6, 3, 4))]}
    assert found(report) == [("box dropped", "#1")] and "1, 2, 3, x is not four numbers" in report.summary()


def test_two_names_in_one_object_are_a_finding(tmp_path):
    item = f"<object><name>cat</name><name>dog</name><name/>{BNDBOX.format(1, 2, 3, 4)}</object>"
    images, report = voc_read(voc_tree(tmp_path, {"a": item}))
    assert images == {"a.jpg": [("cat", (1, 2, 2, 2))]} and found(report) == [("class unclear", "#1")]
    assert "the names cat and dog" in report.summary()


@pytest.mark.parametrize("item, reason", [
    (BNDBOX.format(1, 2, 3, 4), "no <name> (it holds <bndbox>)"),
    (f"<name/>{BNDBOX.format(1, 2, 3, 4)}", "no <name>"),
    (f"<name> \n </name>{BNDBOX.format(1, 2, 3, 4)}", "no <name>"),
    (f"<name><b>cat</b></name>{BNDBOX.format(1, 2, 3, 4)}", "no <name>"),
    ("<name>cat</name><polygon><x1>1</x1></polygon>", "no <bndbox> (it holds <name>, <polygon>)"),
    ("<name>cat</name><bndbox><xmin>1</xmin></bndbox>", "one <ymin> and one <xmax> and one <ymax> (it holds <xmin>)"),
    ("<name>cat</name><bndbox/>", "(it holds nothing)"),
    (f"<name>cat</name>{BNDBOX.format(1, 2, 3, '4</ymax><ymax>5')}", "needs one <ymax>"),
    (f"<name>cat</name>{BNDBOX.format('1,5', 2, 3, 4)}", "is not four numbers")])
def test_an_object_that_is_not_clear_is_a_finding(tmp_path, item, reason):
    images, report = voc_read(voc_tree(tmp_path, {"a": f"<object>{item}</object>{CAT}"}))
    assert images == {"a.jpg": [("cat", (1, 2, 10, 20))]}, "no class '' and no half box"
    assert found(report) == [("box dropped", "#1")] and reason in report.summary()


def test_without_a_single_box_the_error_says_what_the_file_lacks(tmp_path):
    root = voc_tree(tmp_path, {"a": "<object><Name>cat</Name><BndBox><Xmin>10</Xmin></BndBox></object>"})
    with pytest.raises(DataError, match="train.txt' has no usable box: .*a.xml #1: .* needs one <ymin>"):
        voc_read(root)
    assert voc_read(root, ["cat"])[0] == {"a.jpg": []}, "with a list of classes it is a negative, and a finding"
    with pytest.raises(DataError, match="no class is in it"):
        voc_read(voc_tree(tmp_path, {"a": ""}))


def test_tags_in_capitals_and_namespaces_are_read(tmp_path):
    upper = CAT.replace("name>", "Name>").replace("bndbox>", "BndBox>").replace("xm", "Xm").replace("ym", "YM")
    named = f'<annotation xmlns="http://x" xmlns:y="urn:y">{CAT}<y:size><y:width>9</y:width></y:size></annotation>'
    root = f"<Annotation>{CAT}</Annotation>"
    images, report = voc_read(voc_tree(tmp_path, {"a": upper, "b": named.encode(), "c": root.encode()}))
    assert images == {f"{name}.jpg": [("cat", (1, 2, 10, 20))] for name in "abc"} and not report.findings


@pytest.mark.parametrize("text, flag", [
    ("1", True), ("0", False), ("1.0", True), ("true", True), ("True", True), ("yes", True), ("0.0", False),
    ("FALSE", False), ("no", False), ("", False), ("Unspecified", None), ("1_0", None)])
def test_difficult(tmp_path, text, flag):
    item = CAT.replace("<bndbox>", f"<difficult> {text} </difficult><bndbox>")
    report = Report()
    (record,), _, _ = read_voc(voc_tree(tmp_path, {"a": item}), "train", classes=[], report=report)
    assert arrays(record).difficult.tolist() == [bool(flag)]
    assert found(report) == ([("difficult unusable", "#1")] if flag is None else [])


@pytest.mark.parametrize("box, form", [
    ((.1, .2, .5, .8), "fractions of the image"), ((20, 9, 15, 8), "look like x, y, w, h")])
def test_boxes_in_another_form_are_named_in_one_line(tmp_path, call, box, form):
    for name in "ab":
        picture(tmp_path / "JPEGImages" / f"{name}.png")
    inside = f"<object><name>cat</name>{BNDBOX.format(*box)}</object>"
    root = voc_tree(tmp_path, {name: inside for name in "ab"}, images=["x"])
    call.prepare("train", "voc", mindrecord_dir=str(tmp_path / "mr"), classes=[], voc_root=root, log=call.said.append)
    (line,) = [line for line in "\n".join(call.said).splitlines() if "boxes are read as" in line]
    assert form in line


# --- the XML file

@pytest.mark.parametrize("encoding, name", [
    ("gb2312", "\u725b"), ("GBK", "\u725b"), ("gb18030", "\u725b"), ("big5", "\u725b"), ("shift_jis", "\u725b"),
    ("euc-kr", "\uc18c"), ("utf-16", "\u725b"), ("utf-8", "\u725b"), ("cp1251", "\u0431\u044b\u043a"),
    ("iso-8859-5", "\u0431\u044b\u043a")])
def test_every_encoding_that_python_knows_is_read(tmp_path, encoding, name):
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<annotation>{CAT.replace("cat", name)}</annotation>'
    images, report = voc_read(voc_tree(tmp_path, {"a": text.encode(encoding)}))
    assert images == {"a.jpg": [(name, (1, 2, 10, 20))]} and not report.findings


@pytest.mark.parametrize("data", [
    b'<?xml version="1.0" encoding="klingon"?><annotation/>', b'<?xml version="1.0" encoding="zlib"?><annotation/>',
    b'<?xml version="1.0" encoding="gb2312"?><annotation>\xff\xff</annotation>', b"", b"\0", b"<annotation>",
    b'<?xml version="1.0" encoding="undefined"?><annotation/>', b"<annotation>\0</annotation>", b"\x89PNG\r\n\x1a\n",
    b"<annotation><name>&nothing;</name></annotation>", b"<annotation>&#xD800;</annotation>", b"<annotation/><b/>"])
def test_whatever_breaks_the_parser_is_a_finding(tmp_path, data):
    images, report = voc_read(voc_tree(tmp_path, {"a": data, "b": CAT}))
    assert list(images) == ["b.jpg"] and found(report) == [("annotation unreadable", None)]
    assert report.findings[0].file.endswith("a.xml") and report.findings[0].reason


def test_another_root_a_folder_and_a_pipe_are_findings(tmp_path):
    root = voc_tree(tmp_path, {"a": b"<html><body/></html>", "b": CAT}, listed="a\nb\nfolder\npipe\ngone")
    os.mkdir(tmp_path / "Annotations/folder.xml")
    os.mkfifo(tmp_path / "Annotations/pipe.xml")
    images, report = voc_read(root)
    assert list(images) == ["b.jpg"] and found(report) == [("annotation unreadable", None)] * 4
    assert "its root is <html>" in report.findings[0].reason and "no such file" in report.findings[3].reason


@pytest.mark.parametrize("encoding", ["utf-8", "gb2312"])
def test_entities_can_neither_fill_the_memory_nor_read_files(tmp_path, encoding):
    inside, secret = f"<annotation>{CAT.replace('cat', '&j;')}</annotation>", tmp_path / "secret.txt"
    secret.write_text("secret")
    bomb = "".join(f'<!ENTITY {name} "{10 * ("&" + inner + ";")}">' for name, inner in zip("bcdefghij", "abcdefghi"))
    for entities in (f'<!ENTITY a "lollollollol">{bomb}', f'<!ENTITY j SYSTEM "{secret.as_uri()}">',
                     f'<!ENTITY % j SYSTEM "{secret.as_uri()}"> %j;'):
        text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE x [{entities}]>{inside}'
        images, report = voc_read(voc_tree(tmp_path, {"a": text.encode(), "b": CAT}))
        assert list(images) == ["b.jpg"] and found(report) == [("annotation unreadable", None)]
    (tmp_path / "small.xml").write_text(f'<!DOCTYPE x [<!ENTITY j "ox">]>{inside}')
    assert read_xml(str(tmp_path / "small.xml")).findtext("object/name") == "ox"
