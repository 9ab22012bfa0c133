"""What VOC trees hold in the wild: lists, names, encodings, odd objects, other layouts."""
import os

import pytest
from conftest import arrays, found, picture

from src.data.findings import Report
from src.data.voc import read_voc
from src.data.voc_names import listed_file
from src.data.xml_files import read_xml
from src.errors import DataError

BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
CAT = f"<object><name>cat</name>{BOX.format(1, 2, 11, 22)}</object>"


def tree(tmp_path, files, *, images=None, listed=None):
    """A VOC tree of {stem: inside of <annotation>, or all of the file as bytes}; images None: a.jpg for each stem a."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        os.makedirs(tmp_path / folder, exist_ok=True)
    for stem, text in files.items():
        path = tmp_path / "Annotations" / f"{stem}.xml"
        os.makedirs(path.parent, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else f"<annotation>{text}</annotation>".encode())
    for name in images or [f"{stem}.jpg" for stem in files]:
        os.makedirs((tmp_path / "JPEGImages" / name).parent, exist_ok=True)
        (tmp_path / "JPEGImages" / name).write_bytes(b"")
    (tmp_path / "ImageSets/Main/train.txt").write_text(listed or "\n".join(files))
    return str(tmp_path)


def read(root, classes=()):
    """-> ({image: its boxes as (name, pixels)}, report); images relative to JPEGImages."""
    report = Report()
    records, names, _ = read_voc(root, "train", classes=list(classes), report=report)
    base = os.path.join(root, "JPEGImages")
    return {os.path.relpath(record.path, base): [(names[box.label - 1], box.pixels) for box in record.boxes]
            for record in records}, report


# --- objects

def test_each_box_of_an_object_is_read(tmp_path):
    boxes = BOX.format(1, 2, 3, 4) + BOX.format(5, 6, 8, 10) + BOX.format(1, 2, 3, "x")
    images, report = read(tree(tmp_path, {"a": f"<object><name>cat</name>{boxes}</object>"}))
    assert images == {"a.jpg": [("cat", (1, 2, 2, 2)), ("cat", (5, 6, 3, 4))]}
    assert found(report) == [("box dropped", "#1")] and "1, 2, 3, x is not four numbers" in report.summary()


def test_two_names_in_one_object_are_a_finding(tmp_path):
    item = f"<object><name>cat</name><name>dog</name><name/>{BOX.format(1, 2, 3, 4)}</object>"
    images, report = read(tree(tmp_path, {"a": item}))
    assert images == {"a.jpg": [("cat", (1, 2, 2, 2))]} and found(report) == [("class unclear", "#1")]
    assert "the names cat and dog" in report.summary()


@pytest.mark.parametrize("item, reason", [
    (BOX.format(1, 2, 3, 4), "no <name> (it holds <bndbox>)"),
    (f"<name/>{BOX.format(1, 2, 3, 4)}", "no <name>"),
    (f"<name> \n </name>{BOX.format(1, 2, 3, 4)}", "no <name>"),
    (f"<name><b>cat</b></name>{BOX.format(1, 2, 3, 4)}", "no <name>"),
    ("<name>cat</name><polygon><x1>1</x1></polygon>", "no <bndbox> (it holds <name>, <polygon>)"),
    ("<name>cat</name><bndbox><xmin>1</xmin></bndbox>", "one <ymin> and one <xmax> and one <ymax> (it holds <xmin>)"),
    ("<name>cat</name><bndbox/>", "(it holds nothing)"),
    (f"<name>cat</name>{BOX.format(1, 2, 3, '4</ymax><ymax>5')}", "needs one <ymax>"),
    (f"<name>cat</name>{BOX.format('1,5', 2, 3, 4)}", "is not four numbers")])
def test_an_object_that_is_not_clear_is_a_finding(tmp_path, item, reason):
    images, report = read(tree(tmp_path, {"a": f"<object>{item}</object>{CAT}"}))
    assert images == {"a.jpg": [("cat", (1, 2, 10, 20))]}, "no class '' and no half box"
    assert found(report) == [("box dropped", "#1")] and reason in report.summary()


def test_without_a_single_box_the_error_says_what_the_file_lacks(tmp_path):
    root = tree(tmp_path, {"a": "<object><Name>cat</Name><BndBox><Xmin>10</Xmin></BndBox></object>"})
    with pytest.raises(DataError, match="train.txt' has no usable box: .*a.xml #1: .* needs one <ymin>"):
        read(root)
    assert read(root, ["cat"])[0] == {"a.jpg": []}, "with a list of classes it is a negative, and a finding"
    with pytest.raises(DataError, match="no class is in it"):
        read(tree(tmp_path, {"a": ""}))


def test_tags_in_capitals_and_namespaces_are_read(tmp_path):
    upper = CAT.replace("name>", "Name>").replace("bndbox>", "BndBox>").replace("xm", "Xm").replace("ym", "YM")
    named = f'<annotation xmlns="http://x" xmlns:y="urn:y">{CAT}<y:size><y:width>9</y:width></y:size></annotation>'
    root = f"<Annotation>{CAT}</Annotation>"
    images, report = read(tree(tmp_path, {"a": upper, "b": named.encode(), "c": root.encode()}))
    assert images == {f"{name}.jpg": [("cat", (1, 2, 10, 20))] for name in "abc"} and not report.findings


@pytest.mark.parametrize("text, flag", [
    ("1", True), ("0", False), ("1.0", True), ("true", True), ("True", True), ("yes", True), ("0.0", False),
    ("FALSE", False), ("no", False), ("", False), ("Unspecified", None), ("1_0", None)])
def test_difficult(tmp_path, text, flag):
    item = CAT.replace("<bndbox>", f"<difficult> {text} </difficult><bndbox>")
    report = Report()
    (record,), _, _ = read_voc(tree(tmp_path, {"a": item}), "train", classes=[], report=report)
    assert arrays(record).difficult.tolist() == [bool(flag)]
    assert found(report) == ([("difficult unusable", "#1")] if flag is None else [])


@pytest.mark.parametrize("box, form", [
    ((.1, .2, .5, .8), "fractions of the image"), ((20, 9, 15, 8), "look like x, y, w, h")])
def test_boxes_in_another_form_are_named_in_one_line(tmp_path, call, box, form):
    for name in "ab":
        picture(tmp_path / "JPEGImages" / f"{name}.png")
    inside = f"<object><name>cat</name>{BOX.format(*box)}</object>"
    root = tree(tmp_path, {name: inside for name in "ab"}, images=["x"])
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
    images, report = read(tree(tmp_path, {"a": text.encode(encoding)}))
    assert images == {"a.jpg": [(name, (1, 2, 10, 20))]} and not report.findings


@pytest.mark.parametrize("data", [
    b'<?xml version="1.0" encoding="klingon"?><annotation/>', b'<?xml version="1.0" encoding="zlib"?><annotation/>',
    b'<?xml version="1.0" encoding="gb2312"?><annotation>\xff\xff</annotation>', b"", b"\0", b"<annotation>",
    b'<?xml version="1.0" encoding="undefined"?><annotation/>', b"<annotation>\0</annotation>", b"\x89PNG\r\n\x1a\n",
    b"<annotation><name>&nothing;</name></annotation>", b"<annotation>&#xD800;</annotation>", b"<annotation/><b/>"])
def test_whatever_breaks_the_parser_is_a_finding(tmp_path, data):
    images, report = read(tree(tmp_path, {"a": data, "b": CAT}))
    assert list(images) == ["b.jpg"] and found(report) == [("annotation unreadable", None)]
    assert report.findings[0].file.endswith("a.xml") and report.findings[0].reason


def test_another_root_a_folder_and_a_pipe_are_findings(tmp_path):
    root = tree(tmp_path, {"a": b"<html><body/></html>", "b": CAT}, listed="a\nb\nfolder\npipe\ngone")
    os.mkdir(tmp_path / "Annotations/folder.xml")
    os.mkfifo(tmp_path / "Annotations/pipe.xml")
    images, report = read(root)
    assert list(images) == ["b.jpg"] and found(report) == [("annotation unreadable", None)] * 4
    assert "its root is <html>" in report.findings[0].reason and "no such file" in report.findings[3].reason


@pytest.mark.parametrize("encoding", ["utf-8", "gb2312"])
def test_entities_can_neither_fill_the_memory_nor_read_files(tmp_path, encoding):
    inside, secret = f"<annotation>{CAT.replace('cat', '&j;')}</annotation>", tmp_path / "secret.txt"
    secret.write_text("secret")
    bomb = "".join(f'<!ENTITY {name} "{f"&{inner};" * 10}">' for name, inner in zip("bcdefghij", "abcdefghi"))
    for entities in (f'<!ENTITY a "lollollollol">{bomb}', f'<!ENTITY j SYSTEM "{secret.as_uri()}">',
                     f'<!ENTITY % j SYSTEM "{secret.as_uri()}"> %j;'):
        text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE x [{entities}]>{inside}'
        images, report = read(tree(tmp_path, {"a": text.encode(), "b": CAT}))
        assert list(images) == ["b.jpg"] and found(report) == [("annotation unreadable", None)]
    (tmp_path / "small.xml").write_text(f'<!DOCTYPE x [<!ENTITY j "ox">]>{inside}')
    assert read_xml(str(tmp_path / "small.xml")).findtext("object/name") == "ox"


# --- which image

def test_the_name_of_the_xml_file_counts_before_what_it_says(tmp_path):
    one, two = (f"<filename>{name}.jpg</filename><object><name>{what}</name>{BOX.format(1, 1, 9, 9)}</object>"
                for name, what in (("2", "first"), ("1", "second")))
    images, report = read(tree(tmp_path, {"1": one, "2": two}))
    assert images == {"1.jpg": [("first", (1, 1, 8, 8))], "2.jpg": [("second", (1, 1, 8, 8))]}
    assert found(report) == [("image name unclear", None)] * 2
    assert "<filename> says '2.jpg'; '1.jpg', named as the XML file, is taken" in report.findings[0].reason


@pytest.mark.parametrize("written", ["", "a.jpg", "a", "a.png", "A.JPG", "/home/me/a.jpg", "C:\\pictures\\a.jpg"])
def test_a_filename_that_agrees_is_no_finding(tmp_path, written):
    images, report = read(tree(tmp_path, {"a": f"<filename>{written}</filename>{CAT}"}))
    assert list(images) == ["a.jpg"] and not report.findings


def test_a_filename_counts_where_no_image_is_named_as_the_xml_file(tmp_path):
    files = {"a": f"<filename>x.bmp</filename>{CAT}", "b": f"<filename>c.jpg</filename>{CAT}", "c": CAT, "d": CAT}
    images, report = read(tree(tmp_path, files, images=["x.bmp", "c.jpg"], listed="a\nb\nd"))
    assert list(images) == ["x.bmp", "d.jpg"], "d.jpg is missing, which the conversion says"
    assert found(report) == [("duplicated id", None)], "c.xml has boxes of its own for c.jpg, listed or not"
    assert "'c.jpg', which belongs to c.xml" in report.findings[0].reason


@pytest.mark.parametrize("name", "a.JPG a.Jpg a.jpeg a.PNG a.bmp a.webp a.TIF a.tiff a.gif a".split())
def test_any_known_ending_in_any_case(tmp_path, name):
    images, report = read(tree(tmp_path, {"a": CAT, "b.c": CAT}, images=[name, "b.c.png", "notes.md"]))
    assert list(images) == [name, "b.c.png"] and not report.findings


def test_several_images_of_one_name(tmp_path):
    files = {"a": CAT, "b": f"<filename>b.png</filename>{CAT}"}
    images, report = read(tree(tmp_path, files, images=["a.jpg", "a.png", "b.jpg", "b.png"]))
    assert list(images) == ["a.jpg", "b.png"] and found(report) == [("image name unclear", None)]
    assert "a.jpg or a.png" in report.findings[0].reason


# --- lists

@pytest.mark.parametrize("line", [
    "a", "a.jpg", "a.JPEG", "a.xml", "a.XML", "JPEGImages/a.jpg", "JPEGImages\\a.png", "/data/VOC/JPEGImages/a.jpg",
    "./a", "../Annotations/a", "a 1", "a  -1", "a  0", "a\t1", "a\t-1", "a.jpg\t0", "a -1 1",
    "JPEGImages/a.jpg Annotations/a.xml"])
def test_a_line_of_a_list_is_taken_by_its_stem(tmp_path, line):
    images, report = read(tree(tmp_path, {"a": CAT, "b": CAT}, listed=f"{line}\r\n\nb\n"))
    assert list(images) == ["a.jpg", "b.jpg"] and not report.findings


def test_names_with_spaces_dots_and_folders(tmp_path):
    stems = ["my pic 1", "my pic", "img 1", "x.y.z", "cam1/7", "cam2/7", "-dash", "\u725b"]
    images, report = read(tree(tmp_path, {stem: CAT for stem in stems}))
    assert list(images) == [f"{stem}.jpg" for stem in stems] and not report.findings
    images, _ = read(tree(tmp_path, {"my pic 1": CAT, "my pic": CAT}, listed="my pic 1 -1\nmy pic\t1"))
    assert list(images) == ["my pic 1.jpg", "my pic.jpg"]


@pytest.mark.parametrize("line, name", [
    ("000012 -1", "000012.xml"), ("b.jpg", "b.xml"), ("a,b", "a,b.xml"), ("a 7", "a 7.xml"), ("a b.xml", "a b.xml"),
    ("/etc/passwd", "passwd.xml"), ("a\0", "a\0.xml")])
def test_a_line_that_means_no_file(line, name):
    assert listed_file(line, "X", {"a": "a.xml"}) == os.path.join("X", name), "it is named as a user would look for it"


def test_nul_in_a_list_is_a_finding(tmp_path):
    images, report = read(tree(tmp_path, {"a": CAT, "b": CAT}, listed="a\0\nb\n\0\n"))
    assert list(images) == ["b.jpg"] and found(report) == [("annotation unreadable", None)] * 2


# --- another layout

@pytest.mark.parametrize("files, texts", [
    (["train/annots/a.xml", "train/images/a.jpg"], ["images in train/images, XML files in train/annots", "or link"]),
    (["annotations/instances_train2017.json", "a/b.jpg"], ["JSON files in annotations", "--dataset=coco --coco_root="]),
    (["labels/train/a.txt", "images/train/a.jpg", "data.yaml"], ["TXT files in labels/train", "YOLO's labels"]),
    (["VOCdevkit/VOC2007/ImageSets/Main/train.txt"], ["is it --voc_root=", "VOCdevkit/VOC2007?"]),
    (["data/train/Annotations/a.xml"], ["is it --voc_root=", "data?"]),
    (["Annotations/a.xml", "JPEGImages/a.jpg"], ["XML files in Annotations", "one image name a line"]),
    ([], ["has no images and no annotations"])])
def test_where_there_is_no_list_the_error_says_what_is_there(tmp_path, files, texts):
    for name in files:
        os.makedirs((tmp_path / name).parent, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="no list at all; the layouts known are ImageSets/Main/<split>.txt") as error:
        read_voc(str(tmp_path), "train", classes=[], report=Report())
    assert all(text in str(error.value) for text in texts) and "\n" not in str(error.value)


def test_lists_that_can_be_chosen_come_before_those_of_one_class(tmp_path):
    root = tree(tmp_path, {"a": CAT})
    for name in [f"{kind}_train" for kind in "abcdefghijklmnopqrstuvwxyz"] + ["val"]:
        (tmp_path / "ImageSets/Main" / f"{name}.txt").write_text("")
    with pytest.raises(DataError, match="there is train, val, a_train, .* \\.\\.$"):
        read_voc(root, "test", classes=[], report=Report())


def test_a_tree_without_annotations_is_an_error(tmp_path):
    root = tree(tmp_path, {"a": CAT})
    os.remove(tmp_path / "Annotations/a.xml")
    os.rmdir(tmp_path / "Annotations")
    with pytest.raises(DataError, match="annotation folder '.*Annotations' is not a folder"):
        read_voc(root, "train", classes=[], report=Report())
