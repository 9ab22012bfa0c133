"""Conversion: what is written and what is left out. Trees of tiny images."""
import json
import os

import cv2
import numpy as np
import pytest
from conftest import coco_tree, picture, rows_of, txt_tree

from src.classes import COCO_CLASSES
from src.data import loader, mindrecord
from src.data.images import decode_image
from src.data.loader import EvalLoader
from src.data.prepare import prepare_split
from src.errors import DataError, OptionError

# --- what is written

def test_rows_and_ground_truth(tmp_path, call):
    coco_tree(tmp_path, [(3, [-4, 5, 24, 10], 7, {"area": 100.5}), (3, [8, 0, 8, 20], 2, {"iscrowd": 1}),
                         (3, [0, 0, .5, 9], 2, {})])
    split = call.coco()
    assert (split.classes, split.category_ids) == (["ant", "cat"], [2, 7])
    assert (split.count, split.boxes_per_class) == (2, [1, 1])
    assert split.converted and split.finding_count == 2 and split.folder == os.path.dirname(split.files[0])
    empty, full = rows_of(split)
    assert (empty["index"], empty["image_id"], empty["height"], empty["width"]) == (0, 5, 20, 40)
    assert empty["boxes"].tolist() == [[0, 0, 0, 0]] and empty["labels"].tolist() == [-1], "stands for no box"
    np.testing.assert_allclose(full["boxes"], [[0, .25, .5, .75], [.2, 0, .4, 1]], rtol=1e-6)
    assert full["labels"].tolist() == [2, 1] and full["crowd"].tolist() == [0, 1]
    assert full["difficult"].tolist() == [0, 0]
    stored = np.frombuffer(full["image"], np.uint8).tobytes()
    assert stored == (tmp_path / "train2017/b.png").read_bytes() and (decode_image(full["image"]) == 90).all()
    truth = json.load(open(split.ground_truth, encoding="utf-8"))
    assert truth["categories"] == [{"id": 2, "name": "ant"}, {"id": 7, "name": "cat"}]
    assert truth["images"][1] == {"id": 3, "file_name": "b.png", "height": 20, "width": 40}
    kept = [(item["id"], item["image_id"], item["category_id"], item["bbox"], item["area"], item["iscrowd"])
            for item in truth["annotations"]]
    as_annotated = [(1, 3, 7, [-4, 5, 24, 10], 100.5, 0), (2, 3, 2, [8, 0, 8, 20], 160, 1),
                    (3, 3, 2, [0, 0, .5, 9], 4.5, 0)]
    assert kept == as_annotated, "COCO's protocol knows no clipping"


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o027, 0o640)])
def test_whom_the_umask_lets_read_may_read_all_files(tmp_path, call, mask, mode):
    txt_tree(tmp_path, "a.png 4,5,20,15,cat\n")
    before = os.umask(mask)
    try:
        split = call.txt()
    finally:
        os.umask(before)
    assert {entry.stat().st_mode & 0o777 for entry in os.scandir(split.folder)} == {mode}
    assert len(os.listdir(split.folder)) == 5


def test_txt_ground_truth_is_clipped(tmp_path, call):
    txt_tree(tmp_path, "a.png -4,5,20,15,cat 7,7,7,7,cat\nb.png\n")
    split = call.txt()
    truth = json.load(open(split.ground_truth, encoding="utf-8"))
    assert [(item["bbox"], item["area"]) for item in truth["annotations"]] == [([0, 5, 20, 10], 200)]
    assert split.finding_count == 2 and "box clipped" in split.summary and "box dropped" in split.summary
    assert len(open(split.report, encoding="utf-8").readlines()) == 3


def test_difficult_is_kept(tmp_path):
    for folder in ("Annotations", "ImageSets/Main"):
        os.makedirs(tmp_path / folder)
    picture(tmp_path / "JPEGImages" / "x.png")
    (tmp_path / "ImageSets/Main/test.txt").write_text("x\n")
    (tmp_path / "Annotations/x.xml").write_text(
        "<annotation><object><name>cat</name><difficult>1</difficult><bndbox><xmin>4</xmin><ymin>2</ymin>"
        "<xmax>20</xmax><ymax>12</ymax></bndbox></object></annotation>")
    split = prepare_split("val", "voc", mindrecord_dir=str(tmp_path / "mr"), classes=[], voc_root=str(tmp_path),
                          log=lambda text: None)
    assert split.name == "test", "the list val.txt does not exist"
    assert rows_of(split)[0]["difficult"].tolist() == [1] and split.finding_count == 0
    annotation = json.load(open(split.ground_truth, encoding="utf-8"))["annotations"][0]
    assert (annotation["bbox"], annotation["difficult"], annotation["ignore"]) == ([4, 2, 16, 10], 1, 1)


def test_row_numbers_are_places_in_the_ground_truth_in_several_files_too(tmp_path, call, monkeypatch):
    monkeypatch.setattr(mindrecord, "ROWS_AT_ONCE", 4)
    monkeypatch.setattr(mindrecord, "FILE_BYTES", 1)
    names = [f"{number}.png" for number in range(11)]
    txt_tree(tmp_path, "".join(f"{name} 0,0,{number + 1},9,cat\n" for number, name in enumerate(names)), names)
    split = call.txt()
    assert len(split.files) == 11 and split.count == 11
    rows = [(int(row["index"]), round(float(row["boxes"][0, 2]) * 40)) for row in rows_of(split)]
    assert rows == [(number, number + 1) for number in range(11)]
    first = EvalLoader(split.files, rows=5, image_size=8, batch_size=2, workers=1)  # --eval_images=5
    assert np.concatenate([index for _, index in first]).tolist() == [0, 1, 2, 3, 4]


def test_a_batch_fails_for_an_image_that_has_rotted_and_names_it(tmp_path, call, monkeypatch):
    txt_tree(tmp_path, "".join(f"{name}.png 0,0,9,9,cat\n" for name in "abc"), [f"{name}.png" for name in "abc"])
    split = call.txt()
    good = loader.decode_image
    monkeypatch.setattr(loader, "decode_image", lambda data, *size: good(b"rotten" if calls.pop() else data, *size))
    calls = [False, True, False]
    with pytest.raises(DataError, match="image of row [0-2] in .*data.mindrecord000' is damaged; remove the folder"):
        list(EvalLoader(split.files, rows=3, image_size=8, batch_size=3, workers=1))


def test_rows_that_are_not_there_are_no_samples(tmp_path, call):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n", ["a.png"])
    split = call.txt()
    with pytest.raises(DataError, match="MindRecord files cannot be read: .*; remove the folder"):
        list(EvalLoader(split.files, rows=2, image_size=8, batch_size=2, workers=1))


@pytest.mark.parametrize("workers", [1, 4])
def test_batches_come_in_order_and_complete_with_any_number_of_threads(tmp_path, call, workers):
    names = [f"{number}.png" for number in range(11)]
    txt_tree(tmp_path, "".join(f"{name} 0,0,9,9,cat\n" for name in names), names)
    for number, name in enumerate(names):
        cv2.imwrite(str(tmp_path / "images" / name), np.full((20, 40, 3), number * 20, np.uint8))
    split = call.txt()
    batches = list(EvalLoader(split.files, rows=11, image_size=8, batch_size=4, workers=workers))
    assert [len(images) for images, _ in batches] == [4, 4, 3]
    images, rows = (np.concatenate(part) for part in zip(*batches))
    assert rows.tolist() == list(range(11))
    assert (images == np.arange(11).reshape(-1, 1, 1, 1) * 20).all()


# --- what is left out, and strict

def test_faulty_images_are_left_out(tmp_path, call):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\ngone.png 0,0,9,9,cat\nbad.png 0,0,9,9,cat\nb.png 0,0,9,9,cat\n")
    (tmp_path / "images/bad.png").write_text("not an image")
    split = call.txt()
    assert [int(row["index"]) for row in rows_of(split)] == [0, 1] and split.boxes_per_class == [2]
    assert [int(row["image_id"]) for row in rows_of(split)] == [1, 4]
    assert "gone.png' cannot be read" in split.summary and "bad.png' is not a complete image" in split.summary
    assert not call.txt().converted
    picture(tmp_path / "images/gone.png")
    assert call.txt().count == 3 and "gone.png' could not be used and has changed" in call.why()


def test_wrong_size_is_reported_and_the_image_believed(tmp_path, call):
    coco_tree(tmp_path, [(5, [0, 0, 40, 20], 7, {})], [{"id": 5, "file_name": "a.png", "height": 40, "width": 80}])
    split = call.coco()
    row = rows_of(split)[0]
    assert (row["height"], row["width"], row["boxes"].tolist()) == (20, 40, [[0, 0, 1, 1]])
    assert "80 x 40 is written, the image has 40 x 20 pixels" in split.summary and split.finding_count == 1


def test_classes_without_boxes_are_a_note(tmp_path, call):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    split = call.txt(["cat", "dog"], strict=True)
    assert split.finding_count == 0 and "no training box is of class 'dog'" in split.summary


def test_a_misspelt_class_is_named(tmp_path, call):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat 0,0,9,9,hound\n")
    with pytest.raises(OptionError, match="is of class 'hund', but there is 'hound'"):
        call.txt(["cat", "hund"])
    assert call.txt(["cat", "Ox"]).boxes_per_class == [1, 0], "nothing like it in the data: a note"
    assert call.txt(["cat", "hat"]).boxes_per_class == [1, 0], "like a class that is in the list already"


def test_a_category_without_boxes_is_not_misspelt(tmp_path, call):
    coco_tree(tmp_path, [(5, [0, 0, 9, 9], 2, {})])  # no box of the category cat
    assert call.coco(["ant", "cat"]).boxes_per_class == [1, 0]


def test_strict_stops_whenever_there_are_faults(tmp_path, call):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat 5,5,5,5,cat\n")
    with pytest.raises(DataError, match="1 finding") as error:
        call.txt(strict=True)
    assert error.value.exit_code == 3 and any("under 1 pixel" in text for text in call.said)
    call.said.clear()
    with pytest.raises(DataError, match="1 finding"):
        call.txt(strict=True)
    assert any("under 1 pixel" in text for text in call.said), "named again, though nothing is converted now"
    assert not call.txt().converted


@pytest.mark.parametrize("text, message", [
    ("gone.png 0,0,9,9,cat\n", "no usable image.*gone.png"), ("", "is empty"), ("a.png\n", "no class")])
def test_nothing_usable(tmp_path, call, text, message):
    txt_tree(tmp_path, text)
    with pytest.raises(DataError, match=message):
        call.txt()
    assert call.kept() == []



# --- real data

def test_real_coco(tmp_path, shared):
    root = shared("coco")
    split = prepare_split("train", "coco", mindrecord_dir=str(tmp_path), classes=COCO_CLASSES, coco_root=root,
                          strict=True, log=lambda text: None)
    assert (split.count, sum(split.boxes_per_class), split.finding_count) == (220, 1947, 0)
    rows = rows_of(split)
    assert [int(row["index"]) for row in rows] == list(range(220)), "one file: row number = index"
    assert sum(row["labels"][0] == -1 for row in rows) == 3 and sum(row["crowd"].sum() for row in rows) == 19
    source = json.load(open(f"{root}/annotations/instances_train2017.json", encoding="utf-8"))
    truth = json.load(open(split.ground_truth, encoding="utf-8"))
    assert [image["id"] for image in truth["images"]] == [image["id"] for image in source["images"]]

    def content(data):
        return sorted((item["image_id"], item["category_id"], item["bbox"], item["area"], item["iscrowd"])
                      for item in data["annotations"])
    assert content(truth) == content(source)


def test_real_voc_names_its_two_faulty_boxes(tmp_path, shared):
    for name, images, boxes in (("train", 205, 2804), ("val", 87, 1137)):
        split = prepare_split(name, "voc", mindrecord_dir=str(tmp_path), classes=[], voc_root=shared("bccd"),
                              log=lambda text: None)
        assert (split.count, sum(split.boxes_per_class), split.finding_count) == (images, boxes, 1)
        assert "under 1 pixel" in split.summary
