"""eval.py and export.py, and data in other formats."""
import json
import os
import re
import shutil
from collections import Counter

import numpy as np
import pytest
from programs import CLASSES, COCO_NAMES, is_picture, read_json, read_rows, run, succeed

# --- evaluation and export

def test_evaluation_repeats_the_one_during_training(trained, evaluated):
    metrics = read_json(evaluated, "metrics.json")
    best = max((row for row in read_rows(trained.folder) if "AP" in row), key=lambda row: row["AP"])
    for name in ("AP", "AP50", "AP75"):
        assert metrics[name] == pytest.approx(best[name], abs=1e-6)


def test_evaluation_writes_metrics_detections_and_pictures(place, evaluated):
    metrics = read_json(evaluated, "metrics.json")
    assert set(COCO_NAMES) <= metrics.keys() and sorted(metrics["per_class"]) == sorted(CLASSES)
    assert metrics["AR100"] > 0
    assert metrics["evaluation"] == {
        "protocol": "COCO", "max_detections": 100, "split": "val2017", "images": 7, "model": "ssd300_mobilenet_v2",
        "min_score": 0.01, "nms_threshold": 0.6, "nms_candidates": 1000, "max_boxes": 100, "resize": "bilinear"}
    truth = read_json(place.coco, "annotations", "instances_val2017.json")
    detections = read_json(evaluated, "detections.json")
    assert {one["image_id"] for one in detections} <= {one["id"] for one in truth["images"]}
    assert {one["category_id"] for one in detections} <= {1, 2, 3, 4}
    for name in ("pr_curves.png", "per_class.png", "predictions.png"):
        assert is_picture(evaluated / name)


def test_export_compares_and_describes_itself(exported):
    meta = read_json(exported.path.with_suffix(".json"))
    assert "loaded again and compared" in exported.text and meta["largest_difference"] <= 1e-4
    assert meta["classes"] == CLASSES and meta["image_size"] == 64 and meta["batch_size"] == 3
    assert list(meta["outputs"]) == ["boxes", "scores", "labels", "count"]
    assert not [name for name in os.listdir(exported.path.parent) if name.startswith(".")]


def compare_detections(one, two):
    """Asserts that two detections.json hold the same boxes of the same images."""
    ids = [[(row["image_id"], row["category_id"]) for row in rows] for rows in (one, two)]
    assert ids[0] and ids[0] == ids[1]
    assert np.allclose([row["score"] for row in one], [row["score"] for row in two], atol=1e-5)
    assert np.allclose([row["bbox"] for row in one], [row["bbox"] for row in two], atol=1e-2)


def test_the_exported_file_scores_the_same_in_other_batches(place, evaluated, exported):
    # three batches of 3 for seven images: a dropped or doubled image would show in the numbers
    text = succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={exported.path}", "--report=True")
    folder = exported.path.parent / "eval"
    assert "shows what is right and wrong" in text
    assert "The model finds" in (folder / "report.html").read_text()
    metrics, expected = (read_json(path, "metrics.json") for path in (folder, evaluated))
    for name in COCO_NAMES:
        assert metrics[name] == pytest.approx(expected[name], abs=1e-6)
    compare_detections(read_json(folder, "detections.json"), read_json(evaluated, "detections.json"))


@pytest.mark.long
@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_batch_size_does_not_matter(place, trained, evaluated, size):
    out = place.folder / f"batch{size}"
    succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={trained.best}", f"--eval_batch_size={size}",
            f"--output_path={out}")
    compare_detections(read_json(out, "eval", "detections.json"), read_json(evaluated, "detections.json"))
    assert read_json(out, "eval", "metrics.json") == read_json(evaluated, "metrics.json")


@pytest.mark.long
def test_first_images_only(place, trained):
    out = place.folder / "first"
    text = succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={trained.best}", "--eval_images=2",
                   f"--output_path={out}")
    assert "on 2 images" in text and {one["image_id"] for one in read_json(out, "eval", "detections.json")} <= {1, 2}


@pytest.mark.long
def test_a_raw_export_gives_logits_and_is_not_evaluated(place, trained):
    path = place.folder / "raw" / "ssd"
    succeed(place, "export.py", f"--checkpoint_file_path={trained.best}", f"--file_name={path}", "--raw=True")
    outputs = read_json(f"{path}.json")["outputs"]
    assert outputs["logits"]["shape"] == [1, 96, 5] and outputs["deltas"]["shape"] == [1, 96, 4]
    done = run(place, "eval.py", *place.data, f"--checkpoint_file_path={path}.mindir")
    assert done.returncode == 2 and "--raw=True" in done.stderr and done.stderr.count("\n") == 1


# --- what was typed for the training is not typed again

def test_evaluation_takes_the_data_of_the_run(place, trained, evaluated, tmp_path):
    text = succeed(place, "eval.py", f"--checkpoint_file_path={trained.best}", f"--output_path={tmp_path}",
                   "--eval_batch_size=4", "--lr=0.1")
    assert f"data of the run, from run/config.yaml: --coco_root={place.coco}\n" in text
    assert "not used by eval.py: --lr" in text
    assert read_json(tmp_path, "eval", "metrics.json") == read_json(evaluated, "metrics.json")


def test_a_failed_evaluation_leaves_no_folder(place, trained, tmp_path):
    truth = read_json(place.coco, "annotations", "instances_val2017.json")
    for category in truth["categories"]:
        category["name"] += " of others"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(truth))
    (tmp_path / "val2017").mkdir()
    done = run(place, "eval.py", f"--checkpoint_file_path={trained.best}", f"--coco_root={tmp_path}",
               f"--output_path={tmp_path / 'new' / 'deep'}")
    assert done.returncode == 3 and done.stderr.count("\n") == 1 and not (tmp_path / "new").exists()
    assert f"the list is that of '{trained.best}'" in done.stderr and "--classes" not in done.stderr


# --- VOC and TXT

XML = ("<annotation><filename>{name}</filename><size><width>{width}</width><height>{height}</height></size>{boxes}"
       "</annotation>")
OBJECT = ("<object><name>{}</name><difficult>0</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
          "<ymax>{}</ymax></bndbox></object>")


@pytest.fixture(scope="session")
def others(place):
    """The drawn pictures as a VOC tree and as TXT: the options of each by dataset name."""
    root = place.folder / "others"
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for split in ("train", "val"):
        truth, names, lines = read_json(place.coco, "annotations", f"instances_{split}2017.json"), [], []
        for image in truth["images"]:
            name = f"{split}_{image['id']}"
            boxes = [(CLASSES[one["category_id"] - 1], *corners(one["bbox"])) for one in truth["annotations"]
                     if one["image_id"] == image["id"]]
            shutil.copy(place.coco / f"{split}2017" / image["file_name"], root / "JPEGImages" / f"{name}.jpg")
            xml = XML.format(name=f"{name}.jpg", boxes="".join(OBJECT.format(*box) for box in boxes),
                             width=image["width"], height=image["height"])
            (root / "Annotations" / f"{name}.xml").write_text(xml)
            names.append(name)
            lines.append(" ".join([f"{name}.jpg", *(",".join(map(str, (*box[1:], box[0]))) for box in boxes)]))
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
        (root / f"{split}.txt").write_text("\n".join(lines))
    recipe = f"--config_path={place.recipe}"
    texts = (f"--anno_path={root / 'train.txt'}", f"--val_anno_path={root / 'val.txt'}")
    return {"voc": (recipe, "--dataset=voc", f"--voc_root={root}"),
            "other": (recipe, "--dataset=other", f"--image_dir={root / 'JPEGImages'}", *texts)}


def corners(box):
    """x, y, w, h -> whole x1, y1, x2, y2."""
    return [round(value) for value in (box[0], box[1], box[0] + box[2], box[1] + box[3])]


@pytest.mark.parametrize("dataset", ["voc", "other"])
def test_other_formats_are_prepared(place, others, dataset):
    text = succeed(place, "prepare_data.py", *others[dataset])
    assert re.search("^train: 24 images", text, re.MULTILINE) and re.search("^val: 7 images", text, re.MULTILINE)
    truth = read_json(place.coco, "annotations", "instances_train2017.json")
    wanted = Counter(CLASSES[one["category_id"] - 1] for one in truth["annotations"])
    found = re.findall(r"^ +(\d+)  (\w+)$", text.split("\nval: ")[0], re.MULTILINE)
    assert {name: int(count) for count, name in found} == wanted
    # a second call finds everything ready
    assert "converting" not in succeed(place, "prepare_data.py", *others[dataset])


@pytest.mark.long
@pytest.mark.parametrize("dataset, names", [
    ("voc", ["mAP_11point", "mAP_area", "AP", "AP50", "AP75"]), ("other", COCO_NAMES)])
def test_other_formats_train_and_evaluate(place, others, dataset, names):
    folder = place.folder / f"run_{dataset}"
    text = succeed(place, "train.py", *others[dataset], f"--output_path={folder}", "--epoch_size=1")
    assert ("best mAP_area 0." if dataset == "voc" else "best AP 0.") in text
    succeed(place, "eval.py", *others[dataset], f"--checkpoint_file_path={folder / 'ckpt' / 'best.ckpt'}")
    metrics = read_json(folder, "eval", "metrics.json")
    assert set(names) <= metrics.keys() and sorted(metrics["per_class"]) == sorted(CLASSES)
    row = next(row for row in read_rows(folder) if names[0] in row or "AP" in row)
    shared = [name for name in names if name in row]
    assert shared and all(metrics[name] == pytest.approx(row[name], abs=1e-6) for name in shared)
