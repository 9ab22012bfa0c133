"""Conversion: what is written, what is left out, when it is made anew, and how the ranks wait. Trees of tiny images."""
import json
import os
import shutil
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from src.data import convert, mindrecord
from src.data.images import decode_image
from src.data.mindrecord import SplitMissing, prepare_split
from src.errors import DataError, EnvironmentFault, OptionError, SSDError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHARED = os.path.join(ROOT, "..", "shared", "data")
needs_shared = pytest.mark.skipif(not os.path.isdir(SHARED), reason="needs ../shared/data")


def picture(path, height=20, width=40):
    """Writes a gray PNG."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def coco_tree(tmp_path, boxes, images=None):
    """train2017 with images 5 (a.png), 3 (b.png), both 40 x 20; boxes are (image id, bbox, category, extras)."""
    images = images or [{"id": number, "file_name": f"{name}.png", "height": 20, "width": 40}
                        for number, name in ((5, "a"), (3, "b"))]
    for image in images:
        picture(tmp_path / "train2017" / image["file_name"])
    data = {"images": images, "categories": [{"id": 7, "name": "cat"}, {"id": 2, "name": "ant"}],
            "annotations": [{"id": number, "image_id": image, "bbox": bbox, "category_id": category, **extra}
                            for number, (image, bbox, category, extra) in enumerate(boxes)]}
    os.makedirs(tmp_path / "annotations", exist_ok=True)
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(data))
    return str(tmp_path)


def txt_tree(tmp_path, text, images=("a.png", "b.png")):
    """images/ and train.txt."""
    os.makedirs(tmp_path / "images")
    for name in images:
        picture(tmp_path / "images" / name)
    (tmp_path / "train.txt").write_text(text)


class Caller:
    """prepare_split on the trees of a temporary folder; keeps what was logged."""

    def __init__(self, tmp_path):
        self.path, self.said = tmp_path, []

    def txt(self, classes=(), **options):
        options = {"image_dir": str(self.path / "images"), "anno_path": str(self.path / "train.txt"), **options}
        return prepare_split("train", "other", str(self.path / "mr"), list(classes), log=self.said.append, **options)

    def coco(self, classes=(), **options):
        return prepare_split("train", "coco", str(self.path / "mr"), list(classes), coco_root=str(self.path),
                             log=self.said.append, **options)

    def why(self):
        """The reason of the last conversion."""
        return [text for text in self.said if text.startswith("converting")][-1]

    def kept(self):
        """Names in the MindRecord folder."""
        return sorted(os.listdir(self.path / "mr"))


@pytest.fixture(name="call")
def caller(tmp_path):
    return Caller(tmp_path)


def rows_of(split):
    """All rows as dicts of numpy arrays, in order."""
    import mindspore.dataset as ds
    return list(ds.MindDataset(split.files, shuffle=False).create_dict_iterator(num_epochs=1, output_numpy=True))


# --- what is written

def test_rows_and_ground_truth(tmp_path, call):
    coco_tree(tmp_path, [(3, [-4, 5, 24, 10], 7, {"area": 100.5}), (3, [8, 0, 8, 20], 2, {"iscrowd": 1}),
                         (3, [0, 0, .5, 9], 2, {})])
    split = call.coco()
    assert (split.classes, split.category_ids) == (["ant", "cat"], [2, 7])
    assert (split.count, split.boxes_per_class) == (2, [1, 1])
    assert split.converted and split.faults == 2 and split.target == os.path.dirname(split.files[0])
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


def test_txt_ground_truth_is_clipped(tmp_path, call):
    txt_tree(tmp_path, "a.png -4,5,20,15,cat 7,7,7,7,cat\nb.png\n")
    split = call.txt()
    truth = json.load(open(split.ground_truth, encoding="utf-8"))
    assert [(item["bbox"], item["area"]) for item in truth["annotations"]] == [([0, 5, 20, 10], 200)]
    assert split.faults == 2 and "box clipped" in split.summary and "box dropped" in split.summary
    assert len(open(split.report, encoding="utf-8").readlines()) == 3


def test_difficult_is_kept(tmp_path):
    for folder in ("Annotations", "ImageSets/Main"):
        os.makedirs(tmp_path / folder)
    picture(tmp_path / "JPEGImages" / "x.png")
    (tmp_path / "ImageSets/Main/val.txt").write_text("x\n")
    (tmp_path / "Annotations/x.xml").write_text(
        "<annotation><object><name>cat</name><difficult>1</difficult><bndbox><xmin>4</xmin><ymin>2</ymin>"
        "<xmax>20</xmax><ymax>12</ymax></bndbox></object></annotation>")
    split = prepare_split("val", "voc", str(tmp_path / "mr"), [], voc_root=str(tmp_path), log=lambda text: None)
    assert rows_of(split)[0]["difficult"].tolist() == [1] and split.faults == 0
    annotation = json.load(open(split.ground_truth, encoding="utf-8"))["annotations"][0]
    assert (annotation["bbox"], annotation["difficult"], annotation["ignore"]) == ([4, 2, 16, 10], 1, 1)


def test_several_chunks_and_shards(tmp_path, call, monkeypatch):
    monkeypatch.setattr(convert, "CHUNK", 4)
    monkeypatch.setattr(convert, "SHARD_BYTES", 500)
    names = [f"{number}.png" for number in range(11)]
    txt_tree(tmp_path, "".join(f"{name} 0,0,{number + 1},9,cat\n" for number, name in enumerate(names)), names)
    split = call.txt()
    assert len(split.files) > 1 and split.count == 11
    rows = [(int(row["index"]), round(float(row["boxes"][0, 2]) * 40)) for row in rows_of(split)]
    assert sorted(rows) == [(number, number + 1) for number in range(11)]


# --- what is left out, and strict

def test_faulty_images_are_left_out(tmp_path, call):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\ngone.png 0,0,9,9,cat\nbad.png 0,0,9,9,cat\nb.png 0,0,9,9,cat\n")
    (tmp_path / "images/bad.png").write_text("not an image")
    split = call.txt()
    assert [int(row["index"]) for row in rows_of(split)] == [0, 1] and split.boxes_per_class == [2]
    assert [int(row["image_id"]) for row in rows_of(split)] == [1, 4]
    assert "gone.png' cannot be read" in split.summary and "bad.png' is no whole image" in split.summary
    assert not call.txt().converted
    picture(tmp_path / "images/gone.png")
    assert call.txt().count == 3 and "gone.png' could not be used and has changed" in call.why()


def test_wrong_size_is_reported_and_the_image_believed(tmp_path, call):
    coco_tree(tmp_path, [(5, [0, 0, 40, 20], 7, {})], [{"id": 5, "file_name": "a.png", "height": 40, "width": 80}])
    split = call.coco()
    row = rows_of(split)[0]
    assert (row["height"], row["width"], row["boxes"].tolist()) == (20, 40, [[0, 0, 1, 1]])
    assert "80 x 40 is written, the image has 40 x 20 pixels" in split.summary and split.faults == 1


def test_classes_without_boxes_are_a_note(tmp_path, call):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    split = call.txt(["cat", "dog"], strict=True)
    assert split.faults == 0 and "no training box is of class 'dog'" in split.summary


def test_strict_stops_whenever_there_are_faults(tmp_path, call):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat 5,5,5,5,cat\n")
    with pytest.raises(DataError, match="1 fault") as error:
        call.txt(strict=True)
    assert error.value.exit_code == 3 and any("under 1 pixel" in text for text in call.said)
    call.said.clear()
    with pytest.raises(DataError, match="1 fault"):
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


# --- when it is made anew

def test_reused_until_the_source_changes(tmp_path, call):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    assert call.txt().converted and not call.txt().converted and not call.txt(["cat"]).converted
    (tmp_path / "train.txt").write_text("a.png 0,0,9,9,cat\nb.png\n")
    split = call.txt()
    assert split.converted and split.count == 2 and "the annotations have changed" in call.why()
    assert call.txt(["dog", "cat"]).converted and "the list of classes has changed" in call.why()
    assert not call.txt(["dog", "cat"]).converted and call.txt().classes == ["cat"]
    assert len(call.kept()) == 1


def damage(split, kind):
    """Makes a conversion unusable."""
    manifest = os.path.join(split.target, "manifest.json")
    if kind == "half":
        with open(split.files[0], "r+b") as file:
            file.truncate(1000)
    elif kind == "schema":
        text = open(manifest, encoding="utf-8").read().replace('"schema": 1', '"schema": 0')
        open(manifest, "w", encoding="utf-8").write(text)
    elif kind == "broken manifest":
        open(manifest, "w", encoding="utf-8").write('{"schema": 1, ')
    else:
        os.remove({"db": split.files[0] + ".db", "manifest": manifest, "truth": split.ground_truth}[kind])


@pytest.mark.parametrize("kind, reason", [
    ("half", "has another size"), ("db", "data.mindrecord.db is missing"), ("truth", "ground_truth.json is missing"),
    ("manifest", "manifest is missing"), ("broken manifest", "broken"), ("schema", "another version")])
def test_damage_is_seen_and_mended(tmp_path, call, kind, reason):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    damage(call.txt(), kind)
    split = call.txt()
    assert split.converted and reason in call.why() and len(rows_of(split)) == 1
    assert not call.txt().converted


def test_leftovers_of_a_killed_conversion(tmp_path, call):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    target = call.txt().target
    os.rename(target, target + ".tmp")
    os.remove(target + ".tmp/manifest.json")
    assert call.txt().converted and call.kept() == [os.path.basename(target)]


def test_an_interrupted_conversion_leaves_nothing(tmp_path, call, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(convert, "mindrecord_row", interrupt)
        call.txt()
    assert call.kept() == [] and call.txt().converted


def test_folder_that_cannot_be_written(tmp_path, call, monkeypatch):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    (tmp_path / "mr").write_text("a file")
    with pytest.raises(EnvironmentFault, match="mindrecord_dir.*cannot be made") as error:
        call.txt()
    assert error.value.exit_code == 4
    (tmp_path / "mr").unlink()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(EnvironmentFault, match="0 MiB left"):
        call.txt()


# --- ranks

@pytest.fixture(name="quick")
def quick_polling(monkeypatch):
    monkeypatch.setattr(mindrecord, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(mindrecord, "SILENCE_SECONDS", 0.4)


class Waiter(threading.Thread):
    """Rank 1 in a thread: .result is its Split or its error."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call, self.result = call, None
        self.start()

    def run(self):
        try:
            self.result = self.call.txt(rank=1)
        except SSDError as error:
            self.result = error

    def end(self):
        """The result once it is there."""
        self.join(20)
        assert not self.is_alive()
        return self.result


def test_other_ranks_wait(tmp_path, call, quick, monkeypatch):
    monkeypatch.setattr(mindrecord, "SILENCE_SECONDS", 30)
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    waiter = Waiter(Caller(tmp_path))
    first = call.txt()
    second = waiter.end()
    assert second.files == first.files and first.converted and not second.converted
    assert call.txt(rank=3).count == 1, "nothing to wait for"


def test_other_ranks_do_not_take_a_stale_conversion(tmp_path, call, quick):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    call.txt()
    (tmp_path / "train.txt").write_text("a.png 0,0,9,9,dog\n")
    error = Waiter(Caller(tmp_path)).end()
    assert isinstance(error, EnvironmentFault) and "must share mindrecord_dir" in str(error)


# --- options

@pytest.mark.parametrize("dataset, options, message", [
    ("coco", {}, "--coco_root is empty"), ("voc", {}, "--voc_root is empty"),
    ("other", {"anno_path": "x"}, "--image_dir is empty"),
    ("coco", {"coco_root": "/no/such"}, "coco_root '/no/such' is not a folder"),
    ("other", {"anno_path": "no.txt", "image_dir": ROOT}, "anno_path 'no.txt' is missing"),
    ("coco", {"coco_root": ROOT, "split_name": "mine"}, "instances_mine.json' is missing; check --coco_root")])
def test_options_that_lead_nowhere(tmp_path, dataset, options, message):
    with pytest.raises(DataError, match=message) as error:
        prepare_split("train", dataset, str(tmp_path), [], **options)
    assert not isinstance(error.value, SplitMissing)


@pytest.mark.parametrize("dataset, options, message", [
    ("coco", {"coco_root": ROOT}, "instances_val2017.json' is missing"),
    ("voc", {"voc_root": ROOT}, "val.txt' is missing"), ("other", {"image_dir": ROOT}, "--val_anno_path is empty")])
def test_a_split_that_nobody_named_may_be_missing(tmp_path, dataset, options, message):
    with pytest.raises(SplitMissing, match=message):
        prepare_split("val", dataset, str(tmp_path), [], **options)


def test_impossible_classes(tmp_path, call):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat\n")
    with pytest.raises(OptionError, match="background"):
        call.txt(["background", "cat"])


# --- prepare_data.py

def program(*arguments, python=()):
    """Runs prepare_data.py -> (exit code, stdout, stderr)."""
    done = subprocess.run([sys.executable, *python, os.path.join(ROOT, "prepare_data.py"), *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def test_program_converts_the_split_there_is(tmp_path):
    txt_tree(tmp_path, "a.png 0,0,9,9,cat 5,5,5,5,cat\nb.png 1,1,9,9,dog\n")
    common = ["--dataset=other", f"--image_dir={tmp_path}/images", f"--mindrecord_dir={tmp_path}/mr"]
    code, out, _ = program(*common, f"--anno_path={tmp_path}/train.txt")
    assert code == 0 and "train: 2 images, 2 boxes" in out and "under 1 pixel" in out and "        1  dog" in out
    assert "only one split: --val_anno_path is empty" in out
    code, _, err = program(*common, f"--anno_path={tmp_path}/train.txt", "--strict=True")
    assert code == 3 and err.startswith("error: --strict=True") and err.count("\n") == 1
    code, _, err = program(*common)
    assert code == 3 and "--anno_path is empty" in err


def test_program_help_is_light():
    code, out, err = program("--help", python=["-X", "importtime"])
    assert code == 0 and "--mindrecord_dir" in out and "mindspore" not in err


# --- real data

@needs_shared
def test_real_coco(tmp_path):
    root = os.path.join(SHARED, "coco")
    split = prepare_split("train", "coco", str(tmp_path), ["coco"], coco_root=root, strict=True, log=lambda text: None)
    assert (split.count, sum(split.boxes_per_class), split.faults) == (220, 1947, 0)
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


@needs_shared
def test_real_voc_names_its_two_faulty_boxes(tmp_path):
    for name, images, boxes in (("train", 205, 2804), ("val", 87, 1137)):
        split = prepare_split(name, "voc", str(tmp_path), [], voc_root=f"{SHARED}/bccd", log=lambda text: None)
        assert (split.count, sum(split.boxes_per_class), split.faults) == (images, boxes, 1)
        assert "under 1 pixel" in split.summary
