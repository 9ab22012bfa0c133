"""Annotation files of every form, damaged by structure, by words and by bytes; and what follows from what was read."""
import json
import os

import cv2
import numpy as np
import pytest
import yaml
from annotation_files import BNDBOX
from harness import check_both, fuzz
from hypothesis import strategies as st
from mutations import EDITS, edit_bytes, edit_tree, edit_words, to_json, to_xml

from src.data.findings import Report
from src.data.formats import identify, split_files
from src.data.records import finish_record, fractions
from src.errors import SSDError

SIZE = 20, 40  # height, width of every image
COCO = {
    "images": [{"id": 5, "file_name": "a.png", "height": 20, "width": 40}, {"id": 3, "file_name": "sub/b.png"}],
    "annotations": [
        {"id": 1, "image_id": 5, "bbox": [1, 2, 10, 12], "category_id": 7, "area": 120, "iscrowd": 0},
        {"id": 2, "image_id": 3, "segmentation": [[1, 1, 9, 1, 9, 9]], "category_id": 2},
        {"id": 3, "image_id": 3, "segmentation": {"counts": [3, 5, 792], "size": [20, 40]}, "category_id": 2},
        {"id": 4, "image_id": 3, "segmentation": {"counts": "35h0", "size": [20, 40]}, "category_id": 2, "iscrowd": 1},
    ],
    "categories": [{"id": 7, "name": "cat"}, {"id": 2, "name": "ant", "supercategory": "x"}],
}
TXT = (
    "a.png 1,2,11,14,cat 3,3,9,9,dog\nsub/b.png\t1,1,5,5,ant\n\nwith space.png 2,2,8,8,cat\n"
    "a.png 1.5,2.5,8.25,9,1 4, 5, 9, 10, 2\n"
)
VOC = (
    "<?xml version='1.0' encoding='utf-8'?>\n<!DOCTYPE annotation [<!ENTITY a 'cat'><!ENTITY b SYSTEM 'file:///etc/passwd'>]>\n"
    "<annotation><filename>a.png</filename><size><width>40</width><height>20</height><depth>3</depth></size>"
    f"<object><name>cat</name><difficult>0</difficult>{BNDBOX.format(1, 2, 11, 14)}</object>"
    f"<object><name>dog</name>{BNDBOX.format(3.5, 4, '9e0', 10)}</object></annotation>"
)
VOC_TREE = {
    "filename": "a.png",
    "size": {"width": 40, "height": 20},
    "object": [{"name": "cat", "difficult": 0, "bndbox": {"xmin": 1, "ymin": 2, "xmax": 11, "ymax": 14}},
               {"name": "dog", "truncated": 1, "bndbox": {"xmin": "3.5", "ymin": 4, "xmax": "9e0", "ymax": 10}}],
}
YOLO = "0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.2 0.2\n1 0.1 0.1 0.9 0.1 0.9 0.9 0.5 0.7\n"
DATA_YAML = (
    "path: .\ntrain: images\nval: [images, list.txt]\nnc: 2\nnames:\n  0: cat\n  1: &d dog\nother: [*d, {a: *d}]\n"
)
LABELME = {
    "version": "5.0",
    "imagePath": "a.png",
    "imageHeight": 20,
    "imageWidth": 40,
    "imageData": None,
    "shapes": [{"label": "cat", "points": [[1, 2], [11, 14]], "shape_type": "rectangle", "flags": {}},
               {"label": "dog", "points": [[1, 2], [11, 2], [5, 9]], "shape_type": "polygon", "difficult": True},
               {"label": "dog", "points": [[8, 8], [9, 9]], "shape_type": "circle"}],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with images a.png, sub/b.png and "with space.png"."""
    root = tmp_path_factory.mktemp("data")
    os.makedirs(root / "images" / "sub")
    for name in ("a.png", "sub/b.png", "with space.png"):
        cv2.imwrite(str(root / "images" / name), np.full((*SIZE, 3), 90, np.uint8))
    return root


def write(path, data):
    with open(path, "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))


def check_annotations(files, report):
    """What the conversion makes of annotations without the images themselves: no value may stop it later."""
    annotations = files.read(classes=[], report=report)
    names = annotations.classes
    assert names and len(set(names)) == len(names) and len(annotations.category_ids) == len(names)
    for name in names:
        assert "\n" not in name and name.encode()
    json.dumps(annotations.category_ids)
    for record in annotations.records:
        assert -(2**63) <= record.image_id < 2**63
        os.path.relpath(record.path, files.image_dir), os.path.exists(record.path), json.dumps(record.truth_id)
        finished = finish_record(record, SIZE, report)
        assert all(1 <= box.label <= len(names) for box in finished.boxes)
        boxes = fractions(finished)
        assert np.isfinite(boxes).all() and (boxes >= 0).all() and (boxes <= 1.0001).all()


def read(split, dataset, **place):
    """A split, and the report of its findings as text and table."""
    report = Report()
    try:
        check_annotations(split_files(split, dataset, **place), report)
    finally:
        report.summary().encode("utf-8", "backslashreplace")
        report.write_csv(os.devnull)
        report.forms.other_form()


def test_coco(root, examples):
    path = str(root / "coco.json")

    def read_edited(edits, more):
        data = to_json(edit_tree(COCO, edits))
        write(path, edit_bytes(data, more) if more else data)
        read("train", "coco", anno_path=path, image_dir=str(root / "images"))

    tally = fuzz("COCO json", examples(8000), EDITS, st.just([]) | EDITS, read=read_edited)
    check_both(tally)


def test_txt(root, examples):
    path = str(root / "train.txt")

    def read_edited(edits, more):
        data = edit_words(TXT, edits).encode("utf-8", "surrogatepass")
        write(path, edit_bytes(data, more) if more else data)
        read("train", "other", anno_path=path, image_dir=str(root / "images"))

    tally = fuzz("TXT", examples(8000), EDITS, st.just([]) | EDITS, read=read_edited)
    check_both(tally)


def test_voc(root, examples):
    os.makedirs(root / "xml")
    path = str(root / "xml" / "a.xml")

    def read_edited(whole, edits, more):
        text = edit_words(VOC, edits) if whole else to_xml(edit_tree(VOC_TREE, edits))
        data = text.encode("utf-8", "surrogatepass")
        write(path, edit_bytes(data, more) if more else data)
        read("train", "voc", anno_path=str(root / "xml"), image_dir=str(root / "images"))

    tally = fuzz("VOC xml", examples(8000), st.booleans(), EDITS, st.just([]) | EDITS, read=read_edited)
    check_both(tally)


def test_voc_lists(root, examples):
    for folder in ("Annotations", "ImageSets/Main"):
        os.makedirs(root / "voc" / folder)
    os.symlink(root / "images", root / "voc" / "JPEGImages")
    write(root / "voc" / "Annotations" / "a.xml", VOC)
    path = str(root / "voc" / "ImageSets" / "Main" / "train.txt")

    def read_edited(edits):
        write(path, edit_words("a\na 1\nsub/a.jpg a.xml\nsub\\a\n", edits))
        read("train", "voc", voc_root=str(root / "voc"))

    fuzz("VOC lists", examples(1500), EDITS, read=read_edited)


def test_yolo_labels(root, examples):
    os.makedirs(root / "labels")
    path = str(root / "labels" / "a.txt")

    def read_edited(edits, more):
        data = edit_words(YOLO, edits).encode("utf-8", "surrogatepass")
        write(path, edit_bytes(data, more) if more else data)
        read("train", "yolo", image_dir=str(root / "images"), anno_path=str(root / "labels"))

    tally = fuzz("YOLO labels", examples(5000), EDITS, st.just([]) | EDITS, read=read_edited)
    check_both(tally)


def test_yolo_names(root, examples):
    tree = root / "named"
    os.makedirs(tree / "labels" / "sub")
    os.symlink(root / "images", tree / "images")
    for name in ("a.txt", "sub/b.txt"):
        write(tree / "labels" / name, YOLO)
    write(tree / "list.txt", "images/a.png\n./images/sub/b.png\n")
    path = str(tree / "data.yaml")

    def read_edited(whole, split, edits):
        write(
            path, edit_words(DATA_YAML, edits) if whole else yaml.safe_dump(edit_tree(yaml.safe_load(DATA_YAML), edits))
        )
        read(split, "yolo", anno_path=path)

    tally = fuzz(
        "YOLO data.yaml", examples(2500), st.booleans(), st.sampled_from(["train", "val"]), EDITS, read=read_edited
    )
    check_both(tally)


def test_labelme(root, examples):
    os.makedirs(root / "labelme")
    path = str(root / "labelme" / "a.json")

    def read_edited(edits, more):
        data = to_json(edit_tree(LABELME, edits))
        write(path, edit_bytes(data, more) if more else data)
        read("train", "labelme", anno_path=str(root / "labelme"), image_dir=str(root / "images"))

    tally = fuzz("LabelMe json", examples(5000), EDITS, st.just([]) | EDITS, read=read_edited)
    check_both(tally)


SEEDS = {"a.json": json.dumps(COCO), "b.json": json.dumps(LABELME), "a.xml": VOC, "a.txt": YOLO, "b.txt": TXT,
         "data.yaml": DATA_YAML, "c.csv": "a,b\n1,2\n"}


def test_a_folder_of_anything(root, examples):
    """--data: what lies in a folder is told from a damaged file in it, and then read."""
    tree = root / "anything"
    os.makedirs(tree)
    os.symlink(root / "images", tree / "images")

    def identify_edited(name, ending, edits):
        path = str(tree / f"x{os.path.splitext(ending)[1]}")
        write(path, edit_bytes(SEEDS[name].encode(), edits))
        try:
            found = identify(str(tree))
            read(
                "train",
                found.dataset,
                **{
                    key: value
                    for key, value in found.options.items()
                    if key in ("coco_root", "voc_root", "image_dir", "anno_path")
                },
            )
        finally:
            os.remove(path)

    names = st.sampled_from(sorted(SEEDS))
    fuzz("--data=FOLDER", examples(3000), names, names, EDITS, read=identify_edited)


def test_the_harness_sees_what_it_should(root):
    """A reader that fails, refuses without a word, or never ends is found."""

    def fails(edits):
        if len(edits) == 2:
            raise KeyError("x")

    def talks(edits):
        raise SSDError(" ")

    def sleeps(edits):
        while True:
            pass

    with pytest.raises(KeyError):
        fuzz("fails", 200, EDITS, read=fails)
    with pytest.raises(AssertionError):
        fuzz("talks", 5, EDITS, read=talks)
    import harness

    harness_wait, harness.MAX_WAIT = harness.MAX_WAIT, 0.2
    try:
        with pytest.raises(harness.Hang):
            harness.attempt(harness.Tally("x"), sleeps, [])
    finally:
        harness.MAX_WAIT = harness_wait
