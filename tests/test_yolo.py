"""YOLO label files: lines, class names, label files and images that do not belong together."""
import os

import pytest
from annotation_files import put
from conftest import found, picture

from src.config import read_options, split_options
from src.data.annotations import Place, SplitMissing
from src.data.findings import Report, Unusable
from src.data.prepare import prepare_split
from src.data.yolo import read_line, yolo_split
from src.data.yolo_files import label_path, read_names
from src.errors import DataError

LINE = "0 0.5 0.5 0.5 0.5"  # 10, 5, 20 wide, 10 high of 40 x 20


def tree(root, labels, names="classes.txt", text="cat\ndog\n"):
    """images/ and labels/ of {stem: text of the label file, None for no file}, and the names of the classes."""
    for stem, label in labels.items():
        picture(os.path.join(root, "images", f"{stem}.png"))
        if label is not None:
            put(root, f"labels/{stem}.txt", label)
    if names:
        put(root, names, text)
    return Place(image_dir=os.path.join(root, "images"))


def read(place, classes=(), split="train"):
    """-> ({stem: boxes as (class, fractions x, y, w, h)}, names, report)."""
    report = Report()
    records, names, _ = yolo_split(split, place).read(classes=list(classes), report=report)
    return {os.path.splitext(os.path.basename(record.path))[0]:
            [(names[box.label - 1], box.pixels) for box in record.boxes] for record in records}, names, report


@pytest.mark.parametrize("line, expected", [
    (LINE, (0, (0.25, 0.25, 0.5, 0.5))), ("3.0\t0.1 0.2 0.1 0.2", (3, (0.05, 0.1, 0.1, 0.2))),
    ("1 0.5 0.25 0.75 0.5 0.5 1", (1, (0.5, 0.25, 0.25, 0.75))),                   # a polygon of three points
    ("1 0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.4", (1, (0.1, 0.2, 0.3 - 0.1, 0.4 - 0.2))),  # a turned box: its four corners
    ("0 0.5 0.5 1.5 1", (0, (-0.25, 0, 1.5, 1)))])                                 # clipped later, with a finding
def test_a_line(line, expected):
    label, pixels = read_line(line)
    assert label == expected[0] and pixels == pytest.approx(expected[1])


@pytest.mark.parametrize("line, reason", [
    ("cat 0.5 0.5 0.1 0.1", "'cat' is not a number"), ("0.5 0.5 0.1 0.1 0.1", "'0.5' is not a class number"),
    ("-1 0.5 0.5 0.1 0.1", "'-1' is not a class number"), ("nan 0.5 0.5 0.1 0.1", "'nan' is not a class number"),
    ("0 0.5 0.5 0.1", "3 numbers follow the class; they are cx cy w h"), ("0", "0 numbers"),
    ("0 0.5 0.5 0.1 0.1 0.9", "5 numbers follow"), ("0 100 50 20 30", "is not in fractions of the image, 0..1"),
    ("0,0.5,0.5,0.1,0.1", "is not a number"), ("1e9 0.1 0.1 0.1 0.1", "is not a class number")])
def test_a_line_that_cannot_be_used(line, reason):
    with pytest.raises(Unusable, match=reason):
        read_line(line)


def test_boxes_names_and_negatives(tmp_path):
    place = tree(str(tmp_path), {"a": f"{LINE}\r\n\n1 0.5 0.5 1 1\n", "b": "", "c": None})
    images, names, report = read(place)
    assert names == ["cat", "dog"] and not report.findings
    assert images == {"a": [("cat", (0.25, 0.25, 0.5, 0.5)), ("dog", (0, 0, 1, 1))], "b": [], "c": []}
    images, names, report = read(place, ["dog"])
    assert images["a"] == [("dog", (0, 0, 1, 1))] and found(report) == [("unknown class", "#1")]


def test_what_is_wrong_is_named_with_file_and_line(tmp_path):
    text = f"{LINE}\n{LINE}\n7 0.5 0.5 0.1 0.1\n0 0.5 0.5\n0 0.5 0.5 1.5 0.5\n0 0.5 0.5 0 0\n0 nan 0.5 0.5 0.5\n"
    tree(str(tmp_path), {"a": text, "b": b"\xff".decode("latin-1")})
    (tmp_path / "labels/b.txt").write_bytes(b"\xff\xfe0")
    put(tmp_path, "labels/gone.txt", LINE)
    options = read_options(["--dataset=yolo", f"--image_dir={tmp_path}/images", f"--mindrecord_dir={tmp_path}/mr"])
    split = prepare_split(**split_options(options, "train"), classes=[], log=lambda text: None)
    rows = [line.split(",") for line in open(split.report).read().splitlines()[1:]]
    assert rows[0][1] == f"{tmp_path}/labels/a.txt"
    assert [(row[0], os.path.basename(row[1]), row[2].split(" ")[0].strip('"')) for row in rows] == [
        ("duplicated box", "a.txt", "#2"), ("unknown class", "a.txt", "#3"), ("box dropped", "a.txt", "#4"),
        ("annotation unreadable", "b.txt", ""), ("box clipped", "a.txt", "#5"), ("box dropped", "a.txt", "#6"),
        ("box dropped", "a.txt", "#7"), ("image missing", "gone.txt", ""), ("class without boxes", "classes.txt", "")]
    assert (split.count, split.boxes_per_class) == (1, [2, 0])
    with pytest.raises(DataError, match="--strict=True and the data has 8 finding"):
        prepare_split(**{**split_options(options, "train"), "strict": True}, classes=[], log=lambda text: None)


@pytest.mark.parametrize("name, text, names", [
    ("classes.txt", "cat\n\nhot dog\n\n", ["cat", "1", "hot dog"]),
    ("data.yaml", "names: [on, 'no', 007]\n", ["on", "no", "007"]),
    ("data.yaml", "names:\n  0: cat\n  2: dog\n", ["cat", "1", "dog"])])
def test_names(tmp_path, name, text, names):
    put(tmp_path, name, text)
    assert read_names(f"{tmp_path}/{name}") == names


@pytest.mark.parametrize("text, reason", [
    ("names: 3", "no usable names"), ("names: {a: b}", "no usable names"), ("names: []", "no usable names"),
    ("names: [[a]]", "no usable names"), ("[1]", "not a data.yaml"), ("a: [", "is not YAML"),
    ("names: [a, a]", "names 'a' more than once"), ("names: {-1: a}", "no usable names")])
def test_names_that_cannot_be_used(tmp_path, text, reason):
    place = tree(str(tmp_path), {"a": LINE}, "data.yaml", f"{text}\ntrain: images\n" if text[0] == "n" else text)
    with pytest.raises(DataError, match=reason) as error:
        read(place._replace(anno_path=f"{tmp_path}/data.yaml"))
    assert "\n" not in str(error.value)


def test_names_are_lines_of_text(tmp_path):
    place = tree(tmp_path, {"a": "1 0.5 0.5 0.5 0.5"}, names="data.yaml", text='names: ["\\n", "a\\nb", "\\ud800c"]\n')
    _, names, report = read(place)
    assert names == ["0", "a b", "?c"] and [item.kind for item in report.findings] == ["class name changed"] * 2


def test_without_names_the_numbers_are_places_in_the_list_of_classes_or_the_names(tmp_path):
    place = tree(str(tmp_path), {"a": f"2 0.5 0.5 1 1\n10 0.5 0.5 1 1\n{LINE}"}, "")
    images, names, _ = read(place)
    assert names == [str(number) for number in range(11)] and [name for name, _ in images["a"]] == ["2", "10", "0"]
    images, _, report = read(place, ["ox", "cow", "pig"])
    assert [name for name, _ in images["a"]] == ["pig", "ox"] and found(report) == [("unknown class", "#2")]


def test_where_the_label_of_an_image_lies(tmp_path):
    os.makedirs(tmp_path / "images/labels/train")
    os.makedirs(tmp_path / "images/images/train")
    root = f"{tmp_path}/images"
    assert label_path(f"{root}/images/train/a.b.jpg") == f"{root}/labels/train/a.b.txt", "the last images/ counts"
    assert label_path(f"{root}/images/val/a.jpg") == f"{root}/images/val/a.txt", "no labels/val: beside the image"
    assert label_path("x/a.jpg") == "x/a.txt" and label_path("x/y/a.jpg", "x", "z") == "z/y/a.txt"


def test_splits_that_are_not_there(tmp_path):
    place = tree(str(tmp_path), {"a": LINE}, "data.yaml", "names: [cat]\ntrain: images\nval: ../gone/images\n")
    data = place._replace(anno_path=f"{tmp_path}/data.yaml")
    with pytest.raises(DataError, match="names '../gone/images' for val, but there is no '.*gone/images'"):
        yolo_split("val", data)
    put(tmp_path, "data.yaml", "names: [cat]\ntrain: images\n")
    with pytest.raises(SplitMissing, match="names no images for val"):
        yolo_split("val", data)
    with pytest.raises(SplitMissing, match="--val_image_dir and --val_anno_path are empty"):
        yolo_split("val", Place())
    with pytest.raises(DataError, match="--image_dir and --anno_path are empty"):
        yolo_split("train", Place())
    with pytest.raises(DataError, match="has a label file; '.*elsewhere/a.txt' is expected for .*--anno_path"):
        yolo_split("train", place._replace(anno_path=f"{tmp_path}/elsewhere"))
    os.makedirs(tmp_path / "empty")
    with pytest.raises(DataError, match="holds no image"):
        yolo_split("train", Place(image_dir=f"{tmp_path}/empty"))


def test_validation_is_never_the_training_images_by_accident():
    options = read_options(["--dataset=yolo", "--image_dir=train/images"])
    with pytest.raises(SplitMissing):
        prepare_split(**split_options(options, "val"), classes=[])
