"""Which names belong together in VOC trees as users have them: lists, XML files, images, other layouts."""
import os

import pytest
from annotation_files import BNDBOX, CAT, voc_read, voc_tree
from conftest import found

from src.data.findings import Report
from src.data.voc import read_voc
from src.data.voc_names import listed_file
from src.errors import DataError

# --- which image

def test_the_name_of_the_xml_file_counts_before_what_it_says(tmp_path):
    one, two = (f"<filename>{name}.jpg</filename><object><name>{what}</name>{BNDBOX.format(1, 1, 9, 9)}</object>"
                for name, what in (("2", "first"), ("1", "second")))
    images, report = voc_read(voc_tree(tmp_path, {"1": one, "2": two}))
    assert images == {"1.jpg": [("first", (1, 1, 8, 8))], "2.jpg": [("second", (1, 1, 8, 8))]}
    assert found(report) == [("image name unclear", None)] * 2
    assert "<filename> says '2.jpg'; '1.jpg', named as the annotation file, is taken" in report.findings[0].reason


@pytest.mark.parametrize("written", ["", "a.jpg", "a", "a.png", "A.JPG", "/home/me/a.jpg", "C:\\pictures\\a.jpg"])
def test_a_filename_that_agrees_is_no_finding(tmp_path, written):
    images, report = voc_read(voc_tree(tmp_path, {"a": f"<filename>{written}</filename>{CAT}"}))
    assert list(images) == ["a.jpg"] and not report.findings


def test_a_filename_counts_where_no_image_is_named_as_the_xml_file(tmp_path):
    files = {"a": f"<filename>x.bmp</filename>{CAT}", "b": f"<filename>c.jpg</filename>{CAT}", "c": CAT, "d": CAT}
    images, report = voc_read(voc_tree(tmp_path, files, images=["x.bmp", "c.jpg"], listed="a\nb\nd"))
    assert list(images) == ["x.bmp", "d.jpg"], "d.jpg is missing, which the conversion says"
    assert found(report) == [("duplicated id", None)], "c.xml has boxes of its own for c.jpg, listed or not"
    assert "'c.jpg', which belongs to c.xml" in report.findings[0].reason


@pytest.mark.parametrize("name", "a.JPG a.Jpg a.jpeg a.PNG a.bmp a.webp a.TIF a.tiff a.gif a".split())
def test_any_known_ending_in_any_case(tmp_path, name):
    images, report = voc_read(voc_tree(tmp_path, {"a": CAT, "b.c": CAT}, images=[name, "b.c.png", "notes.md"]))
    assert list(images) == [name, "b.c.png"] and not report.findings


def test_several_images_of_one_name(tmp_path):
    files = {"a": CAT, "b": f"<filename>b.png</filename>{CAT}"}
    images, report = voc_read(voc_tree(tmp_path, files, images=["a.jpg", "a.png", "b.jpg", "b.png"]))
    assert list(images) == ["a.jpg", "b.png"] and found(report) == [("image name unclear", None)]
    assert "a.jpg or a.png" in report.findings[0].reason


# --- lists

@pytest.mark.parametrize("line", [
    "a", "a.jpg", "a.JPEG", "a.xml", "a.XML", "JPEGImages/a.jpg", "JPEGImages\\a.png", "/data/VOC/JPEGImages/a.jpg",
    "./a", "../Annotations/a", "a 1", "a  -1", "a  0", "a\t1", "a\t-1", "a.jpg\t0", "a -1 1",
    "JPEGImages/a.jpg Annotations/a.xml"])
def test_a_line_of_a_list_is_taken_by_its_stem(tmp_path, line):
    images, report = voc_read(voc_tree(tmp_path, {"a": CAT, "b": CAT}, listed=f"{line}\r\n\nb\n"))
    assert list(images) == ["a.jpg", "b.jpg"] and not report.findings


def test_names_with_spaces_dots_and_folders(tmp_path):
    stems = ["my pic 1", "my pic", "img 1", "x.y.z", "cam1/7", "cam2/7", "-dash", "\u725b"]
    images, report = voc_read(voc_tree(tmp_path, {stem: CAT for stem in stems}))
    assert list(images) == [f"{stem}.jpg" for stem in stems] and not report.findings
    images, _ = voc_read(voc_tree(tmp_path, {"my pic 1": CAT, "my pic": CAT}, listed="my pic 1 -1\nmy pic\t1"))
    assert list(images) == ["my pic 1.jpg", "my pic.jpg"]


@pytest.mark.parametrize("line, name", [
    ("000012 -1", "000012.xml"), ("b.jpg", "b.xml"), ("a,b", "a,b.xml"), ("a 7", "a 7.xml"), ("a b.xml", "a b.xml"),
    ("/etc/passwd", "passwd.xml"), ("a\0", "a\0.xml")])
def test_a_line_that_means_no_file(line, name):
    assert listed_file(line, "X", {"a": "a.xml"}) == os.path.join("X", name), "it is named as a user would look for it"


def test_nul_in_a_list_is_a_finding(tmp_path):
    images, report = voc_read(voc_tree(tmp_path, {"a": CAT, "b": CAT}, listed="a\0\nb\n\0\n"))
    assert list(images) == ["b.jpg"] and found(report) == [("annotation unreadable", None)] * 2


# --- another layout

@pytest.mark.parametrize("files, texts", [
    (["train/annots/a.xml", "train/images/a.jpg"], ["images in train/images, XML files in train/annots", "--data="]),
    (["annotations/instances_train2017.json", "a/b.jpg"], ["JSON files in annotations", "finds out by itself"]),
    (["labels/train/a.txt", "images/train/a.jpg", "data.yaml"], ["TXT files in labels/train", "--data="]),
    (["VOCdevkit/VOC2007/ImageSets/Main/train.txt"], ["is it --voc_root=", "VOCdevkit/VOC2007?"]),
    (["data/train/Annotations/a.xml"], ["is it --voc_root=", "data?"]),
    (["Annotations/a.xml", "JPEGImages/a.jpg"], ["XML files in Annotations", "--data="]),
    ([], ["has no images and no annotations"])])
def test_where_there_is_no_list_the_error_says_what_is_there(tmp_path, files, texts):
    for name in files:
        os.makedirs((tmp_path / name).parent, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="no list at all; the layouts known are ImageSets/Main/<split>.txt") as error:
        read_voc(str(tmp_path), "train", classes=[], report=Report())
    assert all(text in str(error.value) for text in texts) and "\n" not in str(error.value)


def test_lists_that_can_be_chosen_come_before_those_of_one_class(tmp_path):
    root = voc_tree(tmp_path, {"a": CAT})
    for name in [f"{kind}_train" for kind in "abcdefghijklmnopqrstuvwxyz"] + ["val"]:
        (tmp_path / "ImageSets/Main" / f"{name}.txt").write_text("")
    with pytest.raises(DataError, match="there is train, val, a_train, .* \\.\\.$"):
        read_voc(root, "test", classes=[], report=Report())


def test_a_tree_without_annotations_is_an_error(tmp_path):
    root = voc_tree(tmp_path, {"a": CAT})
    os.remove(tmp_path / "Annotations/a.xml")
    os.rmdir(tmp_path / "Annotations")
    with pytest.raises(DataError, match="annotation folder '.*Annotations' is not a folder"):
        read_voc(root, "train", classes=[], report=Report())
