"""What a detector got right and wrong: by hand, and as a section of the page of results."""
import os
import re
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from conftest import ROOT, coco_tree

from src.config import read_options, save_options, split_options
from src.data.prepare import prepare_split
from src.evaluation.mistakes import Objects, add_confusion, describe_mistakes, find_mistakes
from src.evaluation.plots import plot_pr_curves
from src.files import read_json
from src.metrics import evaluate_boxes, write_metrics
from src.training.log import RunLog

SCRIPT = os.path.join(ROOT, "scripts", "results_page.py")
LEFT, RIGHT, SMALL = (0.0, 0.0, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9), (0.95, 0.0, 1.0, 0.05)


def objects(*rows):
    """Rows of box, label, weight."""
    return Objects(np.array([row[0] for row in rows], float).reshape(-1, 4), np.array([row[1] for row in rows], int),
                   np.array([row[2] for row in rows], float))


@pytest.mark.parametrize("true, found, right, confused, missed, false", [
    ([(LEFT, 1, 1)], [(LEFT, 1, 0.9)], [(0, 0)], [], [], []),
    ([(LEFT, 1, 1)], [], [], [], [0], []),
    ([], [(LEFT, 1, 0.9)], [], [], [], [0]),
    ([], [], [], [], [], []),
    ([(LEFT, 1, 1)], [(RIGHT, 1, 0.9)], [], [], [0], [0]),
    # of two on one object the better one is right
    ([(LEFT, 1, 1)], [(LEFT, 1, 0.5), (LEFT, 1, 0.9)], [(0, 1)], [], [], [0]),
    # the right class comes before a better score of a wrong one
    ([(LEFT, 1, 1)], [(LEFT, 2, 0.9), (LEFT, 1, 0.5)], [(0, 1)], [], [], [0]),
    ([(LEFT, 1, 1)], [(LEFT, 2, 0.9)], [], [(0, 0)], [], []),
    # a crowd need not be found, and to find it is not wrong
    ([(LEFT, 1, 0)], [], [], [], [], []),
    ([(LEFT, 1, 0)], [(LEFT, 1, 0.9), (RIGHT, 1, 0.8)], [], [], [], [1]),
    # 0..0.4 and 0..0.2 wide: half of it, IoU .5
    ([(LEFT, 1, 1)], [((0.0, 0.0, 0.2, 0.4), 1, 0.9)], [(0, 0)], [], [], []),
    ([(LEFT, 1, 1)], [((0.0, 0.0, 0.19, 0.4), 1, 0.9)], [], [], [0], [0]),
])
def test_mistakes_by_hand(true, found, right, confused, missed, false):
    mistakes = find_mistakes(objects(*true), objects(*found))
    assert mistakes == (right, confused, missed, false)
    assert mistakes.count == len(confused) + len(missed) + len(false)


def test_confusion_and_words():
    true = objects((LEFT, 1, 1), (RIGHT, 2, 1), (SMALL, 1, 1), ((0.5, 0.0, 0.9, 0.4), 1, 1))
    found = objects((LEFT, 1, 0.9), (RIGHT, 1, 0.8), ((0.0, 0.5, 0.4, 0.9), 2, 0.7))
    mistakes, matrix = find_mistakes(true, found), np.zeros((3, 3), int)
    add_confusion(matrix, true, found, mistakes=mistakes)
    # rows: nothing, cat, dog; columns the same: two cats missed, one dog taken for a cat, one dog invented
    assert matrix.tolist() == [[0, 0, 1], [2, 1, 0], [0, 1, 0]]
    assert describe_mistakes(true, found, mistakes=mistakes, classes=["cat", "dog"]) == (
        "2 of 4 missed (1 of them small), 1 of a wrong class (dog taken for cat), 1 false alarm")
    nothing = find_mistakes(objects(), objects())
    assert describe_mistakes(objects(), objects(), mistakes=nothing, classes=[]) == "nothing is wrong"


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def made(tmp_path):
    """The folder of a run that was never run: two images of 40 x 20 pixels, and what was found in them."""
    cat, ant = 7, 2
    root = coco_tree(tmp_path, [(5, [0, 0, 16, 8], cat, {}), (5, [20, 10, 16, 8], ant, {}),
                                (3, [38, 0, 2, 1], cat, {})])
    folder = tmp_path / "run"
    (folder / "eval").mkdir(parents=True)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text("model: ssd300_mobilenet_v2\n")
    options = read_options([f"--config_path={recipe}", f"--coco_root={root}", "--val_data_type=train2017",
                            f"--mindrecord_dir={tmp_path / 'mindrecord'}", f"--output_path={folder}", "--lr=0.01"])
    save_options(options, folder / "config.yaml")
    log = RunLog()
    log.open(str(folder))
    log.write({"device": "CPU", "train_images": 2, "batch": 1, "image_size": 300, "commit": "abc1234",
               "time": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - 120))})
    for step, loss in ((1, 3.0), (2, 2.0)):
        log.write({"step": step, "epoch": step, "loss": loss}, "train")
        log.write({"step": step, "epoch": step, "AP": 0.1 * step, "AP50": 0.2 * step}, "eval")
    log.close()
    split = prepare_split(**split_options(options, "val"), classes=["ant", "cat"], log=lambda text: None)  # as train.py
    truth = read_json(split.ground_truth)
    found = [{"image_id": 5, "category_id": category, "bbox": box, "score": score} for box, category, score in (
        ([0, 0, 16, 8], cat, 0.9), ([20, 10, 16, 8], cat, 0.8), ([0, 12, 16, 8], ant, 0.7),
        ([0, 12, 16, 8], ant, 0.3))]  # the last is below draw_score
    evaluated = evaluate_boxes(truth, found)
    metrics = {**evaluated.metrics(), "evaluation": {"model": "ssd300_mobilenet_v2", "split": "train2017", "images": 2}}
    write_metrics(str(folder / "eval"), metrics, found)
    plot_pr_curves(evaluated, path=str(folder / "eval" / "pr_curves.png"))
    return folder


def test_a_section_of_a_run(made, tmp_path):
    folder = tmp_path / "section"
    done = run(made, f"--output={folder}", "--machine=a test")
    assert done.returncode == 0 and "converting" not in done.stdout, done.stderr + done.stdout
    text = (folder / "section.md").read_text()
    assert "ssd300_mobilenet_v2 on train2017, CPU" in text and "commit abc1234" in text
    assert "Machine: a test. 2 images to train on, 2 to evaluate, 300 pixels." in text
    assert re.search(r"2 steps of 1 images, [23]\.\d minutes with evaluations. AP 0\.", text)
    assert "python train.py --config_path=config/tiny.yaml --coco_root=DATA --val_data_type=train2017 --lr=0.01" in text
    assert str(tmp_path) not in text, "no path of this machine"
    # one of two cats found (precision 1 up to recall .5: 51 of 101 points), the small one missed; the ant is a cat
    assert "| cat | 2 | 0.505 | 0.505 | 1 | 1 | 1 |" in text and "| ant | 1 | 0.000 | 0.000 | 0 | 1 | 1 |" in text
    assert ("| | ant | cat | nothing |\n|---|---|---|---|\n| ant | 0 | 1 | 0 |\n| cat | 0 | 1 | 1 |\n"
            "| nothing | 1 | 0 |  |") in text
    assert "1 of a wrong class (ant taken for cat), 1 false alarm.*" in text
    assert text.index("ant taken for cat") < text.index("1 of 1 missed (1 of them small)"), "the worst comes first"
    for name in ("curves.png", "pr_curves.png", "worst_1.jpg", "worst_2.jpg"):
        assert f"]({name})" in text
        image = cv2.imread(str(folder / name))
        assert image is not None and image.std() > 1 and os.path.getsize(folder / name) < 150_000


def test_a_folder_without_an_evaluation_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("model: ssd300_mobilenet_v2\n")
    done = run(tmp_path, f"--output={tmp_path / 'out'}")
    assert done.returncode == 3 and done.stderr.count("\n") == 1 and "run eval.py first" in done.stderr
    assert not (tmp_path / "out").exists()
