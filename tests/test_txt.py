"""What TXT files hold in the wild: lines run together, one box a line, spaces, odd classes, other formats."""
import os

import pytest
from conftest import arrays, found, picture, txt, txt_tree

from src.data.findings import Report
from src.data.txt import read_txt
from src.data.txt_fields import class_of, looks_like, split_line
from src.errors import DataError

BOX = (10, 10, 40, 38)  # x, y, w, h of 10,10,50,48


def boxes(tmp_path, text, classes=()):
    """-> ({image: its boxes as (class name, pixels)}, report)."""
    records, names, report = txt(tmp_path, text, classes)
    return {os.path.relpath(record.path, tmp_path): [(names[box.label - 1], box.pixels) for box in record.boxes]
            for record in records}, report


# --- sound files, and files that cannot be used

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


# --- lines

def test_several_lines_of_an_image_are_one(tmp_path):
    text = "a.jpg 10,10,50,48,cat\nb.jpg 1,1,2,2,dog\n./a.jpg 1,2,3,4,dog 5,6,7,8,cat\nb.jpg\na.jpg 10,10,50,48,cow\n"
    records, names, report = txt(tmp_path, text)
    assert [os.path.basename(record.path) for record in records] == ["a.jpg", "b.jpg"] and not report.findings
    assert [record.image_id for record in records] == [1, 2] and names == ["cat", "cow", "dog"]
    assert [(box.number, names[box.label - 1], box.pixels) for box in records[0].boxes] == [
        (1, "cat", BOX), (2, "dog", (1, 2, 2, 2)), (3, "cat", (5, 6, 2, 2)), (4, "cow", BOX)]
    assert len(records[1].boxes) == 1


def test_a_negative_before_and_twins(tmp_path):
    images, report = boxes(tmp_path, "a.jpg\na.jpg 10,10,50,48,cat\na.jpg 10,10,50,48,cat 1,2,3,4,cat\n")
    assert images == {"a.jpg": [("cat", BOX), ("cat", (1, 2, 2, 2))]}, "a line that stands twice does not count twice"
    assert found(report) == [("duplicated box", "#1")] and report.findings[0].file.endswith("train.txt:3")


def test_lines_run_together_are_two_images(tmp_path):
    images, report = boxes(tmp_path, "a.jpg 10,10,50,48,cat b.JPG 1,2,3,4,dog sub/c.png\nd.jpg 5,6,7,8,dog\n")
    assert images == {"a.jpg": [("cat", BOX)], "b.JPG": [("dog", (1, 2, 2, 2))], "sub/c.png": [],
                      "d.jpg": [("dog", (5, 6, 2, 2))]}
    assert found(report) == [("bad line", None)] and "'a.jpg', 'b.JPG', 'sub/c.png'" in report.summary()


@pytest.mark.parametrize("line", [
    "a.jpg 10,10,50,48,catb.jpg 10,10,50,48,dog", "a.jpg 10,10,50,48,1sub/b.PNG", "a.jpg 10,10,50,48b.jpg 1,2,3,4,cat",
    "a.jpg\t10,10,50,48,catb.jpg\t1,2,3,4,cat", "a.jpg\t10,10,50,48,cat b.jpg\t1,2,3,4,cat", "a.jpg b.jpg 1,2,3,4,dog"])
def test_a_line_run_together_that_cannot_be_told_apart_is_left_out(tmp_path, line):
    images, report = boxes(tmp_path, f"{line}\nz.jpg 1,2,3,4,cat\n")
    assert images == {"z.jpg": [("cat", (1, 2, 2, 2))]}, "no class 'catb.jpg', no box of b.jpg on a.jpg"
    assert found(report) == [("bad line", None)] and "had run together; line left out" in report.summary()


@pytest.mark.parametrize("line", [
    "a.jpg 10, 10, 50, 48, cat 1, 2, 3, 4, dog", "a.jpg 10 , 10 , 50 , 48 , cat 1,2,3,4,dog",
    "a.jpg 10,10, 50,48, cat 1 ,2 ,3 ,4 ,dog", "a.jpg\t10, 10, 50, 48, cat\t1,2,3,4,dog",
    "\ta.jpg\t10,10,50,48,cat\t1,2,3,4,dog", "a.jpg\t10,10,50,48,cat 1,2,3,4,dog",
    "a.jpg 10,10,50,48,cat 1,2,3,4,dog\t", "  a.jpg  10,10,50,48,cat\t1,2,3,4,dog"])
def test_spaces_and_tabs(tmp_path, line):
    images, report = boxes(tmp_path, f"{line}\n")
    assert images == {"a.jpg": [("cat", BOX), ("dog", (1, 2, 2, 2))]} and not report.findings


def test_an_unspaced_box_is_not_joined_with_its_neighbours(tmp_path):
    images, report = boxes(tmp_path, "a.jpg 1,2,3,4, 5,6,7,8,dog 1,2,3,4,dog,\nb.jpg 1, 2, 3, 4, 5, 6 1,2,3,4,dog\n")
    assert images == {"a.jpg": [("dog", (5, 6, 2, 2))], "b.jpg": [("dog", (1, 2, 2, 2))]}
    assert found(report) == [("bad line", f"#{number}") for number in (1, 3, 1, 2, 3, 4, 5, 6)]


@pytest.mark.parametrize("name", ["img (1).jpg", "my  dogs/a b.jpg", "sub/a.jpg", "noending", "1 2 3 4.png"])
def test_a_path_with_spaces_that_is_there(tmp_path, name):
    picture(tmp_path / f"{name}.png")
    os.rename(tmp_path / f"{name}.png", tmp_path / name)
    images, report = boxes(tmp_path, f"{name} 10,10,50,48,cat 1, 2, 3, 4, dog\nb.jpg\n")
    assert images == {name: [("cat", BOX), ("dog", (1, 2, 2, 2))], "b.jpg": []} and not report.findings
    assert boxes(tmp_path, f"{name}\nb.jpg 1,2,3,4,cat")[0][name] == []


def test_a_path_with_spaces_that_is_not_there_gets_the_hint_of_tabs(tmp_path):
    images, report = boxes(tmp_path, "img (1).jpg 10,10,50,48,cat\nno ending 1,2,3,4,cat\n")
    assert images == {"img (1).jpg": [("cat", BOX)]}
    assert found(report) == [("bad line", None)] * 2 and report.summary().count("needs tabs") == 2


def test_backslashes_separate_folders(tmp_path):
    picture(tmp_path / "sub/a.png")
    picture(tmp_path / "as\\it is.png")
    images, report = boxes(tmp_path, "sub\\a.png 10,10,50,48,cat\nsub/a.png 1,2,3,4,cat\nas\\it is.png 1,2,3,4,cat\n")
    assert images == {"sub/a.png": [("cat", BOX), ("cat", (1, 2, 2, 2))], "as\\it is.png": [("cat", (1, 2, 2, 2))]}
    assert not report.findings


@pytest.mark.parametrize("line", [
    "a\0.jpg 1,2,3,4,cat", "\0", "\0 1,2,3,4,cat", "a.jpg 1,\0,3,4,cat", "a b\0.jpg 1,2,3,4,cat", "10,10,50,48,cat",
    "picture 1,2,3,4,cat", "a.jpg 1,2,3,4,-1"])
def test_a_broken_line_is_a_finding(tmp_path, line):
    images, report = boxes(tmp_path, f"{line}\nb.jpg 10,10,50,48,cat\n")
    assert images.pop("b.jpg") == [("cat", BOX)] and sum(map(len, images.values())) == 0
    assert len(report.findings) == 1 and report.findings[0].file.endswith("train.txt:1")
    with pytest.raises(DataError) as error:
        boxes(tmp_path, f"{line}\n")
    assert "\0" not in report.summary() and str(error.value).isprintable()


# --- fields

def test_what_is_wrong_with_a_field(tmp_path):
    _, report = boxes(tmp_path, "a.jpg cat,1,2,3,4 1,2,3,4 1,2,3,4,5,6 b 1_0,2,3,4,cat 1,2,3,4,cat\n")
    reasons = [item.reason for item in report.findings]
    assert [item.box for item in report.findings] == ["#1", "#2", "#3", "#4", "#5"]
    assert "the class comes last" in reasons[0] and "it has no class" in reasons[1] and "needs tabs" in reasons[3]
    assert reasons[2] == "'1,2,3,4,5,6' is not x1,y1,x2,y2,class" and "1_0" in reasons[4]


@pytest.mark.parametrize("name, read", [
    ("1", "1"), ("01", "1"), ("1.0", "1"), ("1.", "1"), ("+2", "2"), ("007", "7"), ("0", "0"), ("-1", None),
    ("-1.0", None), (".5", None), ("1.5", None), ("1e3", None), ("\u00b2", None), ("\u0662", "2"), ("9" * 5000, None),
    ("cat", "cat"), ("7up", "7up"),
    ("e", "e"), ("nan", "nan"), ("-", "-"), ("3.1.4", "3.1.4"), ("\u4e8c", "\u4e8c"), ("v2.0", "v2.0")])
def test_numbers_as_classes(name, read):
    assert class_of(name, []) == read
    assert class_of(name, [name]) == name, "a class of that very name"


@pytest.mark.parametrize("classes, names", [([], ["1", "2"]), (["cat", "dog"], ["cat", "dog"])])
def test_numbers_in_any_form_are_places_in_the_list(tmp_path, classes, names):
    text = "a.jpg 10,10,50,48,01 1,2,3,4,2.0 1,2,3,5,-1 1,2,3,6,\u00b2 1,2,3,7,1.5\n"
    images, report = boxes(tmp_path, text, classes)
    assert images == {"a.jpg": [(names[0], BOX), (names[1], (1, 2, 2, 2))]}
    assert found(report) == [("unknown class", f"#{number}") for number in (3, 4, 5)]
    assert report.class_names == {"1", "2"}, "-1 is never offered as the nearest name of 1"


def test_a_class_that_is_named_as_a_number_is_itself(tmp_path):
    images, report = boxes(tmp_path, "a.jpg 10,10,50,48,007 1,2,3,4,1\n", ["ox", "007"])
    assert images == {"a.jpg": [("007", BOX), ("ox", (1, 2, 2, 2))]} and not report.findings


def test_01_without_a_list_of_classes_converts(tmp_path, call):
    txt_tree(tmp_path, "a.png 1,1,20,18,01\nb.png 1,1,20,18,2\n")
    split = call.txt()
    assert split.classes == ["1", "2"] and split.boxes_per_class == [1, 1] and split.finding_count == 0


@pytest.mark.parametrize("text, form", [
    ("0.1,0.1,0.5,0.5,cat", "fractions of the image"), ("10,8,6,5,cat", "look like x, y, w, h")])
def test_boxes_in_another_form_are_named_in_one_line(tmp_path, call, text, form):
    txt_tree(tmp_path, "".join(f"{name} {text}\n" for name in ("a.png", "b.png")))
    call.txt()
    assert sum("box format" in line for line in "\n".join(call.said).splitlines()) == 1
    assert form in "\n".join(call.said)


# --- files in another format

@pytest.mark.parametrize("line, form", [
    ("a.jpg 0 0.3 0.36 0.4 0.47", "YOLO"), ("0 0.3 0.36 0.4 0.47", "YOLO"), ("a.jpg 1 .5 .5 1 1 0 .2 .2 .1 .1", "YOLO"),
    ("a.jpg,10,10,50,48,cat", "commas alone"), ("a.jpg, 10, 10, 50, 48, cat", "commas alone"),
    ("a.jpg;10,10,50,48,cat", "semicolons"), ("a.jpg;10;10;50;48;cat", "semicolons"), ('[{"a":1}]', "JSON"),
    ('{"images": [{"id": 1}]}', "JSON"), ("<annotation><object/></annotation>", "XML"), ("{", "JSON"),
    ("a.jpg 1 10 10 40 38", "OpenCV"), ("a.jpg 10 10 50 48 cat", "numbers with spaces"), ("path boxes", "a header"),
    ("a.jpg\t10\t10\t50\t48\tcat", "numbers with spaces"), ("a.jpg cat 10 10 50 48", "numbers with spaces"),
    ("filename,width,height,class,xmin", "a table"), ("cat 0.00 0 -1.58 587 173 614 200 1.6", "numbers with spaces")])
@pytest.mark.parametrize("classes", [[], ["cat"]])
def test_a_file_in_another_format_shows_its_first_line_and_a_right_one(tmp_path, line, form, classes):
    with pytest.raises(DataError) as error:
        boxes(tmp_path, f"{line}\n{line}\n", classes)
    text = str(error.value)
    assert f"line 1, '{line}': it looks like".replace("\t", "\\t") in text and form in text and "\n" not in text
    assert "each line is 'image.jpg x1,y1,x2,y2,class ...'" in text and "a.jpg 10,20,110,220,cat" in text
    images, report = boxes(tmp_path, f"{line}\nz.jpg 10,10,50,48,cat\n")
    assert images == {"z.jpg": [("cat", BOX)]} and found(report) == [("bad line", None)], "no negative is made of it"


@pytest.mark.parametrize("line", ["a.jpg", "a.jpg 1,2,3,4,cat", "a.jpg x", "a.jpg 1,2,x,4,cat", "my dogs/a.jpg", "img"])
def test_a_line_that_looks_like_no_other_format(line):
    assert looks_like(line) == ""


def test_a_file_without_boxes(tmp_path):
    with pytest.raises(DataError, match="no class is in it, as no line has a box; line 2 is 'a.jpg'; each line is"):
        boxes(tmp_path, "\na.jpg\nb.jpg\n")
    images, report = boxes(tmp_path, "a.jpg\nb.jpg\n", ["cat"])
    assert images == {"a.jpg": [], "b.jpg": []} and not report.findings
    with pytest.raises(DataError, match="line 2, 'b.jpg 1,2,3,4,-1': -1 is not a class"):
        boxes(tmp_path, "a.jpg\nb.jpg 1,2,3,4,-1\n")


def test_a_line_is_split_into_path_and_fields():
    assert split_line("a b.jpg 1, 2,3 ,4 ,c d\r") == (["a ", "b.jpg "], ["1,2,3,4,c", "d"])
    assert split_line("a b.jpg\t1,2,3,4,hot dog\t \tx\r") == (["a b.jpg"], ["1,2,3,4,hot dog", "x"])
    assert split_line("1,2,3,4,c") == ([], ["1,2,3,4,c"])
