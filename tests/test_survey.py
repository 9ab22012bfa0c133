"""The report of a data set: counts and findings by hand, identical images, and the page with its pictures."""
import os
import re
from collections import Counter

import cv2
import numpy as np
import pytest
from conftest import coco_tree
from programs import succeed

from src.anchor_fit import Fit
from src.config import read_options, split_options
from src.data.findings import Finding
from src.data.prepare import data_name, prepare_split
from src.data.survey import Finder, Survey, box_of, identical_images, measure, survey_split
from src.evaluation import data_page
from src.evaluation.data_page import AnchorFit, anchor_words, summarize, write_data_page
from src.page import mark_options

CAT, ANT = 7, 2


def survey_of(tmp_path, boxes, split="train"):
    """The Survey of the images of coco_tree with these boxes."""
    root = coco_tree(tmp_path, boxes)
    options = read_options([f"--coco_root={root}", f"--{split}_data_type=train2017",
                            f"--mindrecord_dir={tmp_path / 'mindrecord'}"])
    return survey_split(prepare_split(**split_options(options, split), classes=[], log=lambda text: None))


BOXES = [(5, [0, 0, 16, 8], CAT, {}), (5, [20, 10, 16, 8], CAT, {}), (3, [0, 0, 40, 10], ANT, {}),
         (3, [0, 0, 40, 20], ANT, {"iscrowd": 1}), (3, [30, 10, 20, 5], CAT, {}), (3, [1, 1, 0, 0], CAT, {})]


def test_measures_by_hand(tmp_path):
    survey = survey_of(tmp_path, BOXES)
    numbers = measure(survey)
    # the crowd and the box without an area are left out; cat is in both images
    assert survey.classes == ["ant", "cat"] and numbers.boxes.tolist() == [1, 3] and numbers.images.tolist() == [1, 2]
    assert sorted(numbers.per_image.tolist())[-2:] == [2, 2] and numbers.per_image.sum() == 4
    assert sorted(numbers.aspects.round(3).tolist()) == [2, 2, 4, 4]
    assert sorted(numbers.sides.round(2).tolist()) == [10, 11.31, 11.31, 20]
    assert survey.counts == {"box clipped": 1, "box dropped": 1}


def test_findings_that_were_not_kept_count_too(tmp_path):
    survey = survey_of(tmp_path, BOXES)
    path = tmp_path / "report.csv"
    path.write_text("kind,file,box,reason\nbox dropped,a.jpg,#3,under 1 pixel\nbox dropped,,,and 12 more\n")
    split = type("Split", (), {"report": str(path), "name": "train", "root": ".", "image_dir": survey.image_dir,
                               "ground_truth": os.path.join(tmp_path, "truth.json")})
    (tmp_path / "truth.json").write_text("{}")
    read = survey_split(split)
    assert read.counts == {"box dropped": 13}
    assert read.findings == [Finding("box dropped", "a.jpg", box="#3", reason="under 1 pixel")]


def plain_survey(folder, names, classes=("cat",), annotations=(), findings=(), split="train"):
    """A Survey made by hand, of grey images of 40 x 20 pixels."""
    os.makedirs(folder, exist_ok=True)
    for shade, name in enumerate(names, 60 + len(split)):
        if not os.path.exists(os.path.join(folder, name)):
            cv2.imwrite(os.path.join(folder, name), np.full((20, 40, 3), shade, np.uint8))
    truth = {"images": [{"id": number, "file_name": name, "height": 20, "width": 40}
                        for number, name in enumerate(names)],
             "annotations": [{"image_id": image, "category_id": category, "bbox": box, "iscrowd": 0}
                             for image, category, box in annotations],
             "categories": [{"id": number, "name": name} for number, name in enumerate(classes)]}
    return Survey(split, str(folder), truth, str(folder), list(findings), Counter(finding.kind for finding in findings))


def test_identical_images(tmp_path):
    train = plain_survey(tmp_path / "a", ["1.png", "2.png", "3.png"])
    (tmp_path / "a" / "copy.png").write_bytes((tmp_path / "a" / "2.png").read_bytes())
    train.truth["images"].append({"id": 9, "file_name": "copy.png", "height": 20, "width": 40})
    os.makedirs(tmp_path / "b")
    (tmp_path / "b" / "same.png").write_bytes((tmp_path / "a" / "3.png").read_bytes())
    val = plain_survey(tmp_path / "b", ["same.png", "4.png"], split="val")
    val.truth["images"].append({"id": 8, "file_name": "gone.png", "height": 20, "width": 40})
    # the pair in two splits comes first
    assert identical_images([train, val]) == [[("train", "3.png"), ("val", "same.png")],
                                              [("train", "2.png"), ("train", "copy.png")]]
    assert identical_images([val]) == []


@pytest.mark.parametrize("name, found", [
    ("1.jpg", "sub/1.jpg"), ("/data/Annotations/1.xml", "sub/1.jpg"), ("sub/1.jpg", "sub/1.jpg"), ("2.jpg", None),
    ("1.png", None), ("/x/sub/1.jpg", "sub/1.jpg"),
    ("annotation 3", None), ("list.txt:2", "b c.jpg"), ("list.txt:7", None), ("other.txt:1", None)])
def test_the_image_of_a_finding(tmp_path, name, found):
    (tmp_path / "list.txt").write_text("sub/1.jpg 1,2,3,4,cat\nb c.jpg\t5,6,7,8,cat\n")
    names = ["sub/1.jpg", "x/2.jpg", "y/2.jpg", "b c.jpg"]  # two are called 2.jpg
    truth = {"images": [{"file_name": each, "height": 5, "width": 6} for each in names], "categories": []}
    name = str(tmp_path / name) if name.startswith("list") else name
    place = Finder(Survey("train", "root", truth, "images", [], {})).find(Finding("kind", name, box=None, reason=""))
    assert place == (found and (os.path.join("images", found), 5, 6))


@pytest.mark.parametrize("box, corners", [
    ("#3 [10, 5, 30, 15]", [0.25, 0.25, 0.75, 0.75]), ("#3 [30, 15, 10, 5]", [0.25, 0.25, 0.75, 0.75]),
    ("#3 [-10, 5, 90, 15]", [0, 0.25, 1, 0.75]), ("#3 [20, 10, 20, 10]", [0.48, 0.48, 0.52, 0.52]),
    ("#3 [nan, 5, 3, 2]", None), ("#3 [1, 2]", None), ("#3 [a, b, c, d]", None), ("#3", None), (None, None)])
def test_the_box_of_a_finding(box, corners):
    found = box_of(Finding("kind", "a.jpg", box=box, reason=""), 20, 40)
    assert found.tolist() == ([pytest.approx(corners)] if corners else [])


def test_sentences(tmp_path):
    annotations = [(0, 0, [0, 0, 20, 10])] * 40 + [(0, 1, [0, 0, 10, 10])]
    train = plain_survey(tmp_path / "a", ["1.png", "2.png"], ("cat", "dog"), annotations)
    val = plain_survey(tmp_path / "a", ["1.png"], ("cat", "dog"), annotations[:1], split="val",
                       findings=[Finding("box dropped", "1.png", box="#1 [1, 1, 1, 1]", reason="under 1 pixel"),
                                 Finding("class without boxes", "val", box=None, reason="a note")])
    fit = Fit([], np.array([0.6, 0.4]), np.array([0.6, 0.6]))
    fit = AnchorFit("ssd at 300 pixels", False, "train", 0.5, fit, np.array([8, 9]))
    text = summarize([train, val], [measure(train), measure(val)], twins=identical_images([train, val]), anchors=fit)
    assert text == [
        "val has no image of dog: nothing can be learned or measured there.",
        "1 image(s) are in more than one split, so the validation is not fair: remove them from one.",
        "All images have 40 x 20 pixels.",
        "dog is rare: 1 box, where cat has 40; --class_balance repeats its images.",
        "Half of the boxes are smaller than 14 x 14 pixels, and 100% are small (below 32 x 32).",
        "The anchors of ssd at 300 pixels match 50.0% of the boxes of train (IoU of 0.5 or more).",
        "1 image(s) have no box; they count as images in which there is nothing.",
        "The check has 1 finding(s), which are shown below."]
    better = fit._replace(fit=fit.fit._replace(shapes=[np.ones((1, 2))]))
    assert anchor_words(better).endswith("; fitted ones (--anchors=auto) match 100.0%.")
    assert anchor_words(fit._replace(chosen=True)).startswith(
        "The anchors of ssd at 300 pixels, which --model=auto chooses, match 50.0%")


def test_the_page(tmp_path):
    findings = [Finding("box dropped", "/x/1.xml", box="#1 [20, 10, 20, 10]", reason=f"reason {number} <b>")
                for number in range(12)] + [Finding("unknown image", "annotation 7", box=None, reason="no such image")]
    train = plain_survey(tmp_path / "a", [f"{number}.png" for number in range(40)], ("<cat>", "dog"),
                         [(3, 0, [0, 0, 20, 10]), (37, 1, [5, 5, 10, 10])], findings)
    val = plain_survey(tmp_path / "a", ["1.png"], ("<cat>", "dog"), split="val")
    path = tmp_path / "report.html"
    write_data_page(str(path), [train, val])
    text = path.read_text()
    assert "<title>a: train and val</title>" in text and "&lt;cat&gt;" in text and "<cat>" not in text
    assert "train: box dropped (12)" in text and "1.xml #1 [20, 10, 20, 10]: reason 0 &lt;b&gt;" in text
    assert text.count("<img") == 3 + data_page.MAX_OF_KIND + data_page.NUM_MOSAIC + 1, "charts, findings, mosaics"
    assert "annotation 7: no such image" in text and "reason 11" in text
    assert "train: 1.png = val: 1.png" in text
    assert "<figcaption>3.png" in text and "<figcaption>37.png" in text, "each class is in the mosaic"
    assert all(address.startswith("data:") for address in re.findall(r'src="([^"]*)"', text))


def test_pages_of_almost_nothing(tmp_path):
    survey = plain_survey(tmp_path, ["1.png"])
    write_data_page(str(tmp_path / "report.html"), [survey])
    assert "The check has no finding." in (tmp_path / "report.html").read_text()
    os.remove(tmp_path / "1.png")
    write_data_page(str(tmp_path / "report.html"), [survey])
    assert "<img" not in (tmp_path / "report.html").read_text()


def test_the_page_stays_small():
    pictures = 2 * data_page.NUM_MOSAIC + data_page.MAX_PICTURES
    assert pictures * data_page.MAX_BYTES * 4 / 3 < 4_000_000


def test_options_in_a_sentence():
    assert mark_options("use --anchors=auto; <b> --a.") == (
        "use <code>--anchors=auto</code>; &lt;b&gt; <code>--a</code>.")


def test_a_data_set_is_called_by_the_folder_that_holds_all_of_it(tmp_path):
    root = coco_tree(tmp_path / "cells", BOXES)
    options = read_options([f"--coco_root={root}", f"--mindrecord_dir={tmp_path / 'mindrecord'}"])
    split = prepare_split(**split_options(options, "train"), classes=[], log=lambda text: None)
    assert split.root == str(root) and data_name([split.root]) == "cells"
    assert data_name(["/x/cells/train", "/x/cells/valid"]) == "cells" and data_name(["/x", "/y"]) == "data"


def test_a_long_table_is_folded_behind_the_charts(tmp_path):
    names = [f"class {number}" for number in range(30)]
    survey = plain_survey(tmp_path, ["1.png"], names, [(0, number, [0, 0, 20, 10]) for number in range(30)])
    write_data_page(str(tmp_path / "report.html"), [survey])
    text = (tmp_path / "report.html").read_text()
    assert text.index("<h2>Charts") < text.index("<h2>Classes")
    # "all" and ten classes are shown
    assert "show all 31 rows" in text and text.count('<tr class="folded">') == 20
    short = plain_survey(tmp_path, ["1.png"], names[:12], [(0, 1, [0, 0, 20, 10])])
    write_data_page(str(tmp_path / "report.html"), [short])
    assert "<details" not in (tmp_path / "report.html").read_text(), "one row more is not worth a fold"


def test_the_model_is_the_one_that_would_be_trained(place, tmp_path):
    where = [option for option in place.data if not option.startswith("--config_path")]
    text = succeed(place, "prepare_data.py", *where, "--report=True", f"--output_path={tmp_path / 'out'}")
    model, size = re.search(r"chosen: (\w+) at (\d+) pixels", text).groups()
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"The anchors of {model} at {size} pixels, which <code>--model=auto</code> chooses, match" in page


def test_the_program_writes_it(place, tmp_path):
    text = succeed(place, "prepare_data.py", *place.data, "--report=True", f"--output_path={tmp_path / 'out'}")
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"{tmp_path / 'out' / 'report.html'} shows the data set" in text
    assert "The anchors of ssd300_mobilenet_v2 at 64 pixels match" in page and "Boxes that an anchor matches" in page
