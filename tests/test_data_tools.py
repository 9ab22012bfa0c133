"""scripts/anchor_stats.py and scripts/list_categories.py on tiny data sets."""
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT, coco_tree, txt_tree
from programs import read_json

sys.path.insert(0, os.path.join(ROOT, "scripts"))
import anchor_stats  # (found by the line above)

from src.models.ssd import build_model

BOXES = [(5, [10, 5, 10, 5], 7, {}), (5, [0, 0, 40, 20], 2, {}), (3, [1, 1, 4, 4], 7, {"iscrowd": 1})]
XML = """<annotation><filename>a.png</filename><size><width>40</width><height>20</height></size>
<object><name>cat</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>
<object><name>cat</name><bndbox><xmin>3</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"""


def run(script, *arguments):
    """Runs a script as a user does."""
    return subprocess.run([sys.executable, os.path.join(ROOT, "scripts", script), *arguments], capture_output=True,
                          text=True, check=False)


def rows(done):
    """The lines of a table that start with a number, split at blanks."""
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines() if line.strip()[:1].isdigit()]


def test_categories_of_coco(tmp_path):
    coco_tree(tmp_path, BOXES)
    done = run("list_categories.py", f"--coco_root={tmp_path}")
    assert rows(done) == [["2", "ant", "1", "1", "0"], ["7", "cat", "2", "2", "1"]]
    assert "train2017: 2 images, 0 of them without boxes; 3 boxes of 2 classes" in done.stdout
    assert "only one split" in done.stdout and "crowd" in done.stdout
    part = run("list_categories.py", f"--coco_root={tmp_path}", "--classes=cat")
    assert rows(part)[0] == ["7", "cat", "2", "2", "1"] and "'ant' is not in the list" in part.stdout


def test_categories_of_voc(tmp_path):
    lists = "ImageSets/Main"
    for name, text in (("Annotations/a.xml", XML), (f"{lists}/train.txt", "a\n"), (f"{lists}/val.txt", "a\n")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "JPEGImages").mkdir()
    done = run("list_categories.py", "--dataset=voc", f"--voc_root={tmp_path}")
    assert rows(done) == [["1", "cat", "2", "1", "1"]] * 2 and "difficult" in done.stdout


def test_categories_of_txt(tmp_path):
    txt_tree(tmp_path, "a.png 1,2,9,9,dog 2,2,5,5,cat\nb.png\n")
    done = run("list_categories.py", "--dataset=other", f"--image_dir={tmp_path}/images",
               f"--anno_path={tmp_path}/train.txt")
    assert rows(done) == [["1", "cat", "1", "1"], ["2", "dog", "1", "1"]]
    assert "1 of them without boxes" in done.stdout


@pytest.mark.parametrize("script", ["list_categories.py", "anchor_stats.py"])
def test_errors_are_one_line_and_help_is_there(script, tmp_path):
    for arguments, code in ((["--coco_rot=x"], 2), ([f"--coco_root={tmp_path}/none"], 3)):
        done = run(script, *arguments)
        assert done.returncode == code and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    shown = run(script, "--help")
    assert shown.returncode == 0 and script in shown.stdout and "--coco_root" in shown.stdout


def test_misspelt_class_is_named(tmp_path):
    coco_tree(tmp_path, BOXES)
    done = run("list_categories.py", f"--coco_root={tmp_path}", "--classes=catt,ant")
    assert done.returncode == 2 and "there is 'cat'" in done.stderr


def test_boxes_of_a_ground_truth_file():
    truth = {"images": [{"id": 1, "width": 40, "height": 20}],
             "annotations": [{"image_id": 1, "bbox": [10, 5, 20, 30], "area": 9, "iscrowd": crowd} for crowd in (0, 1)]}
    boxes, areas, total = anchor_stats.read_boxes(truth, seed=1)
    assert boxes.tolist() == [[0.25, 0.25, 0.75, 1.0]] and areas.tolist() == [9] and total == 1
    truth["annotations"] *= 50
    boxes, _, total = anchor_stats.read_boxes(truth, seed=1, max_boxes=7)
    assert len(boxes) == 7 and total == 50
    truth["annotations"] = []
    assert anchor_stats.read_boxes(truth, seed=1)[0].shape == (0, 4)


def test_best_anchor_by_hand():
    anchors = np.array([[0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    boxes = np.array([[0, 0, 0.5, 0.25], [0, 0, 1, 1], [0, 0, 0.5, 0.5]] * 40)  # more than one chunk
    best, anchor = anchor_stats.best_overlaps(boxes, anchors)
    assert np.allclose(best[-3:], [0.5, 1, 1]) and anchor[-3:].tolist() == [0, 1, 0]


def test_size_classes_are_coco_s():
    chosen = anchor_stats.size_classes(np.array([1023, 1024, 9215, 9216]))
    assert {name: one.sum() for name, one in chosen.items()} == {"small": 1, "medium": 2, "large": 1, "all": 4}


def test_level_table_counts_the_best_anchors():
    model = build_model("ssd300_mobilenet_v2", 2, image_size=96,
                        width=0.25)  # 6 x 6 cells of 3 anchors, then 3 x 3 of 6
    text = anchor_stats.level_table(model, np.array([0, 107, 108, 161]))
    lines = [line for line in text.splitlines() if " x " in line]
    assert "2 = 50.0%" in lines[0] and "2 = 50.0%" in lines[1] and "0 = 0.0%" in lines[2]


def test_anchor_statistics_of_a_data_set(tmp_path):
    coco_tree(tmp_path, BOXES)
    done = run("anchor_stats.py", f"--coco_root={tmp_path}", "--model=ssd300_mobilenet_v2", "--image_size=96",
               "--width=0.25", f"--mindrecord_dir={tmp_path}/mr", f"--output_path={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    # 10 x 5 of 40 x 20 pixels are 24 x 24 of the network around 36, 36. Best is an anchor of 27.2 x 13.6 around 40, 40:
    # 21.6 * 13.6 = 293 shared of 576 + 369 - 293, an IoU of .45. The whole image is well matched.
    assert "train2017: 2 images, 2 boxes" in done.stdout and "IoU >= 0.5" in done.stdout
    table = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.split()}
    assert table["all"][1:3] == ["2", "50.0%"] and table["small"][1] == "2"
    assert float(table["all"][3]) > 0.44
    assert cv2.imread(f"{tmp_path}/out/anchor_stats.png").std() > 1
    path = f"{tmp_path}/out/anchors.json"
    fitted = ("--model=ssd300_mobilenet_v2", "--image_size=96", "--width=0.25", f"--anchors={path}")
    again = run("anchor_stats.py", f"--coco_root={tmp_path}", *fitted, f"--mindrecord_dir={tmp_path}/mr")
    table = {line.split()[0]: line.split() for line in again.stdout.splitlines() if line.split()}
    assert table["all"][1:3] == ["2", "100.0%"] and float(table["all"][3]) > 0.5
    first = read_json(path)["shapes"][0][0]
    shown = run("model_info.py", *fitted).stdout
    assert f"{first[0]:.0f}x{first[1]:.0f}" in shown.splitlines()[5]
