"""What a report says of an evaluation: numbers by hand, sentences, and the page with its pictures."""
import base64
import importlib
import json
import os
import re
import sys

import cv2
import numpy as np
import pytest
from programs import ROOT, started

from src import metrics
from src.drawing import draw_boxes
from src.errors import DataError
from src.evaluation import diagnosis as module
from src.evaluation import eval_page
from src.evaluation.diagnosis import SizeRange, class_precision, confused_pairs, diagnose, reliable_from, size_ranges
from src.evaluation.mistakes import judge
from src.evaluation.plots import plot_pr_curves
from src.evaluation.summary import calibration_words, join_words, size_words, summarize
from src.metrics import evaluate_boxes
from src.weights import checkpoint

CAT, DOG = 7, 2  # dogs come first for the engines, cats in the data
ABOUT = {"file": "best.ckpt", "data": "pets", "model": "ssd300", "split": "val", "images": 2, "min_score": 0.05}


def look(truth, detections, engine="hotcoco", **more):
    return diagnose(truth, detections, evaluate_boxes(truth, detections, engine), **more)


def annotation(image, category, box, **more):
    return {"image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], **more}


def dataset(annotations, images=2, names=("cat", "dog")):
    return {"images": [{"id": number, "width": 200, "height": 100, "file_name": f"{number}.png"}
                       for number in range(images)],
            "annotations": annotations, "categories": [{"id": CAT, "name": names[0]}, {"id": DOG, "name": names[1]}]}


def found(image, category, box, score):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


LEFT, MIDDLE, RIGHT, SMALL = [0, 0, 40, 40], [60, 0, 40, 40], [120, 0, 60, 90], [0, 80, 10, 10]
TRUTH = dataset([annotation(0, CAT, LEFT), annotation(0, DOG, MIDDLE), annotation(1, CAT, SMALL)])
# the cat is right, the dog is a cat, an invented dog; the small cat is missed
FOUND = [found(0, CAT, LEFT, 0.9), found(0, CAT, MIDDLE, 0.8), found(0, DOG, RIGHT, 0.85)]


def test_numbers_by_hand():
    diagnosis = look(TRUTH, FOUND, draw_score=0.4)
    # one right of one found at 0.9: F1 2 / (1 + 3); from 0.8 on 2 / (3 + 3)
    assert diagnosis.chosen["draw_score"] == 0.88 and diagnosis.limits.tolist() == [0.88, 0.88]
    assert diagnosis.matrix.tolist() == [[0, 0, 0], [1, 1, 0], [1, 0, 0]]
    typed = look(TRUTH, FOUND, draw_score=0.5, typed=True)
    assert typed.limits.tolist() == [0.5, 0.5] and typed.chosen == diagnosis.chosen
    assert typed.matrix.tolist() == [[0, 0, 1], [1, 1, 0], [0, 1, 0]]
    assert (typed.right, typed.boxes, typed.found) == (1, 3, 3) and confused_pairs(typed) == [("dog", "cat", 1)]
    # cat: precision 1 up to recall .5, 51 of 101 points; the engines have dogs first, the data cats
    assert class_precision(typed) == pytest.approx([51 / 101, 0])
    assert class_precision(typed, 1)[0] == 0 and class_precision(typed, 2)[0] == pytest.approx(1)
    assert np.isnan(class_precision(typed, 3)[0])


def test_the_engine_runs_once(tmp_path, monkeypatch):
    evaluated = evaluate_boxes(TRUTH, FOUND)
    monkeypatch.setattr(metrics, "run_engine", None)
    plot_pr_curves(evaluated, path=str(tmp_path / "curves.png"))
    assert diagnose(TRUTH, FOUND, evaluated, draw_score=0.4).errors and (tmp_path / "curves.png").exists()


def test_errors_and_calibration_come_from_hotcoco_alone():
    with_hotcoco = look(TRUTH, FOUND, draw_score=0.5)
    assert set(with_hotcoco.errors) == set(module.ERRORS) and with_hotcoco.errors["Miss"] > 0
    scores = {round(each["bin_lower"], 1): each["avg_accuracy"] for each in with_hotcoco.bins if each["count"]}
    assert scores == {0.8: 0, 0.9: 1}
    without = look(TRUTH, FOUND, draw_score=0.5, engine="pycocotools")
    assert without.errors == {} and without.bins == []
    assert class_precision(without) == pytest.approx(class_precision(with_hotcoco))


@pytest.mark.parametrize("mark", ["iscrowd", "difficult"])
def test_a_crowd_or_difficult_box_need_not_be_found(mark):
    truth = dataset([annotation(0, CAT, LEFT), annotation(0, CAT, RIGHT, **{mark: 1})])
    diagnosis = look(truth, [found(0, CAT, LEFT, 0.9), found(0, CAT, RIGHT, 0.9)], draw_score=0.4)
    assert diagnosis.matrix.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert class_precision(diagnosis)[0] == pytest.approx(1)
    assert sum(each.boxes for each in diagnosis.sizes) == 1


def row_of_boxes(side, count, hits):
    """count boxes of a side, one an image, and what is found: the first `hits` of them."""
    box = [0, 0, side, side]
    return [annotation(number, CAT, box) for number in range(count)], [found(number, CAT, box, 0.9)
                                                                       for number in range(hits)]


def test_ranges_of_sizes():
    annotations, results = [], []
    for side, count, hits in ((20, 12, 3), (30, 4, 4), (50, 12, 12), (90, 3, 3)):
        there, here = row_of_boxes(side, count, hits)
        annotations, results = annotations + there, results + here
    images = judge(dataset(annotations, images=12), results)
    # the boxes of one image overlap: 20 lies in 50, but with an IoU of .16
    assert size_ranges(images) == [SizeRange(0, 23, 12, 3), SizeRange(23, np.inf, 19, 19)]
    assert [each.name for each in size_ranges(images)] == ["<23", "23+"]
    assert size_ranges(judge(dataset([]), [])) == []
    assert size_ranges(judge(dataset([annotation(0, CAT, SMALL)]), [])) == [SizeRange(0, np.inf, 1, 0)]


@pytest.mark.parametrize("shares, index", [
    ([10], 0), ([5], None), ([], None), ([2, 9, 9], 1), ([9, 2, 9], 2), ([2, 8, 7, 9], 1), ([9, 9, 5], None)])
def test_from_which_size_on_it_is_reliable(shares, index):
    assert reliable_from([SizeRange(number, number + 1, 10, hits) for number, hits in enumerate(shares)]) == index


def test_sentences():
    sentences = summarize(look(TRUTH, FOUND, draw_score=0.5, typed=True))
    assert sentences[0] == ("The model finds 1 of 3 objects (33%). Of the 3 boxes it draws, 1 are right and 2 are "
                            "wrong (67%).")
    assert "It takes 1 object(s) for another class, but no class for one certain other class often." in sentences
    assert "size" not in " ".join(sentences), "three objects do not tell"
    assert "when boxes with a score of 0.88 or more are shown." in " ".join(sentences)
    assert summarize(look(dataset([]), FOUND, draw_score=0.5))[0].startswith("No object is marked")
    assert summarize(look(TRUTH, [], draw_score=0.5))[0].startswith("The model finds none of the 3 objects")
    assert [join_words(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


@pytest.mark.parametrize("hits, words", [
    ((12, 12), "It finds small objects as well as large ones."),
    ((3, 6), "At no size does it find 80% of the objects; it finds most of those from 23 pixels on (50%)."),
    ((9, 6), "At no size does it find 80% of the objects; it finds most of those below 23 pixels (75%)."),
    ((3, 12), "It is reliable from a size of about 23 x 23 pixels on: it finds 100% of the objects of that size or "
              "larger, and 25% of the smaller ones.")])
def test_sentences_on_sizes(hits, words):
    assert size_words([SizeRange(0, 23, 12, hits[0]), SizeRange(23, np.inf, 12, hits[1])]) == words


def bins_of(*rows):
    return [{"count": count, "avg_confidence": score, "avg_accuracy": right} for count, score, right in rows]


@pytest.mark.parametrize("rows, words", [
    ([], ""), ([(9, 0.9, 0.1)], ""),
    ([(5000, 0.02, 0.01), (50, 0.5, 0.45), (300, 0.9, 0.8)], "A score says about how probable it is"),
    # many boxes with hardly any score hide nothing: they are right as seldom as they say in every model
    ([(5000, 0.02, 0.01), (50, 0.5, 0.1), (40, 0.85, 0.5)], "boxes are right less often than it says"),
    ([(50, 0.3, 0.8), (40, 0.6, 0.9)], "boxes are right more often than it says")])
def test_sentences_on_what_a_score_is_worth(rows, words):
    said = calibration_words(bins_of(*rows))
    assert words in said and bool(said) == bool(words)


def test_sentences_on_sizes_and_classes():
    annotations, results = [], []
    for side, category, hits in ((20, CAT, 2), (40, DOG, 12)):
        there, here = row_of_boxes(side, 12, hits)
        annotations += [{**item, "category_id": category} for item in there]
        results += [{**item, "category_id": category} for item in here]
    results += [found(number, DOG, [0, 0, 20, 20], 0.9) for number in range(4, 8)]
    text = " ".join(summarize(look(dataset(annotations, images=12), results, draw_score=0.5)))
    assert "It is best at dog (100% found) and weakest at cat (17%)." in text
    assert "It takes cat for dog (4 times)." in text
    assert ("reliable from a size of about 23 x 23 pixels on: it finds 100% of the objects of that size or larger, and "
            "17% of the smaller ones.") in text


@pytest.fixture
def images(tmp_path):
    """The folder of two grey images of 200 x 100 pixels."""
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((100, 200, 3), 90, np.uint8))
    return tmp_path


def page_of(images, truth, detections, **more):
    path = images / "report.html"
    diagnosis = look(truth, detections, draw_score=0.5, typed=True)
    eval_page.write_eval_page(str(path), diagnosis, metrics={"AP": 0.25, "per_class": {}}, about=ABOUT,
                              image_dir=str(images), **more)
    return path.read_text()


def test_the_page(images):
    truth = dataset(TRUTH["annotations"], names=("<cat>", "dog"))
    text = page_of(images, truth, FOUND, notes=["a note & more"])
    assert "<title>ssd300 on pets, val</title>" in text and "0.250" in text and "a note &amp; more" in text
    assert "<td>&lt;cat&gt;</td>" in text and "<cat>" not in text
    assert "1 of a wrong class (dog taken for &lt;cat&gt;), 1 false alarm" in text.replace("&#39;", "'")
    assert "1 of 1 missed (1 of them small)" in text
    for title in ("Precision and recall", "F1 over the score", "Found by size", "What costs most", "What a score is"):
        assert title in text
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(addresses) == 5 + 2 * 2 and all(address.startswith("data:image/") for address in addresses)
    assert not re.search(r"<script|https?://(?!www.w3.org)", re.sub(r'"data:[^"]*"', "", text))


def test_colours_of_the_pictures(images):
    judged = judge(TRUTH, FOUND)[0]
    pixels = np.full((100, 200, 3), 90, np.uint8)
    there, here = eval_page.draw_truth(pixels, judged, ["cat", "dog"]), eval_page.draw_found(pixels, judged,
                                                                                          ["cat", "dog"])
    assert tuple(there[20, 40]) == tuple(here[20, 40]) == eval_page.RIGHT
    assert tuple(there[20, 100]) == tuple(here[20, 100]) == eval_page.WRONG
    assert tuple(here[60, 120]) == eval_page.FALSE and tuple(there[60, 120]) == (90, 90, 90)
    small = eval_page.draw_truth(pixels, judge(TRUTH, FOUND)[1], ["cat", "dog"])
    assert tuple(small[80, 5]) == eval_page.MISSED


@pytest.mark.parametrize("truth, detections", [(TRUTH, []), (dataset([]), []), (dataset([]), FOUND)])
def test_a_page_of_almost_nothing(images, truth, detections):
    text = page_of(images, truth, detections)
    assert "Average precision by class and size" in text and "nan" not in text.split("<main>")[1].split("data:")[0]


def test_a_page_whose_images_are_gone(tmp_path):
    text = page_of(tmp_path, TRUTH, FOUND)
    assert "image/jpeg" not in text and "Precision and recall" in text


def test_a_page_stays_small():
    assert 2 * (eval_page.NUM_WORST + eval_page.NUM_BEST) * eval_page.MAX_BYTES * 4 / 3 < 4_000_000


def test_a_label_that_may_be_missing():
    one, two = judge(TRUTH, [*FOUND, found(0, CAT, [2, 2, 40, 40], 0.95)])
    words = eval_page.what_is_wrong(one, ["cat", "dog"])
    # the dog in the free corner; the second box on the cat is none
    assert words.endswith("2 false alarms; is a label missing where the score is 0.8 or more (1)?")
    assert eval_page.what_is_wrong(two, ["cat", "dog"]) == "1 of 1 missed (1 of them small)"


def test_many_classes_in_the_matrix():
    count = 30
    matrix = np.zeros((count + 1, count + 1), int)
    matrix[np.arange(count + 1), np.arange(count + 1)] = 5
    matrix[0, 0], matrix[29, 30] = 0, 3
    empty = look(TRUTH, FOUND, draw_score=0.5)._replace(matrix=matrix, classes=[f"c{n}" for n in range(1, 31)])
    table = eval_page.matrix_table(empty)
    assert len(table["names"]) == eval_page.MAX_MATRIX + 1 and table["left_out"] == count - eval_page.MAX_MATRIX
    row = dict(table["rows"])["c29"]
    assert {"c29", "c30"} <= set(table["names"]) and [cell[0] for cell in row][-3:] == [5, 3, 0]


def test_own_texts_and_colours_of_boxes():
    drawn = draw_boxes(np.full((100, 200, 3), 90, np.uint8), np.array([[0.1, 0.1, 0.4, 0.9]]), [1],
                       colors=[(1, 2, 3)], texts=[""])
    assert tuple(drawn[50, 20]) == (1, 2, 3)
    rows, _ = np.nonzero((drawn != 90).any(axis=2))
    assert rows.min() >= 8, "nothing is written above the box"


# --- the score to use goes into the file that was evaluated

@pytest.fixture
def keep():
    return importlib.import_module("eval").keep_scores


CHOSEN = {"draw_score": 0.42, "class_scores": {"cat": 0.3}}


def run_with(tmp_path):
    """A folder of a run with a checkpoint that describes itself."""
    (tmp_path / "run" / "ckpt").mkdir(parents=True)
    for name in ("config.yaml", "log.jsonl"):
        (tmp_path / "run" / name).write_text("")
    path = str(tmp_path / "run" / "ckpt" / "best.ckpt")
    checkpoint.save(path, [], {"model": "m"})
    return path


def test_a_checkpoint_of_a_run_takes_the_score(keep, tmp_path):
    path, said = run_with(tmp_path), []
    keep(path, CHOSEN, said.append)
    assert checkpoint.load(path)[1] == {"model": "m", **CHOSEN}
    assert said == [f"score to use: 0.42; '{path}' now holds it, and predict.py draws from it on"]
    assert sorted(os.listdir(tmp_path / "run")) == ["ckpt", "config.yaml", "log.jsonl"]


HOLDER = """
import sys, time
sys.path.insert(0, {root!r})
from src.training.run_folder import hold_run_folder
with hold_run_folder({run!r}, resume=True):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_checkpoint_of_a_living_run_stays(keep, tmp_path):
    path, said = run_with(tmp_path), []
    before = open(path, "rb").read()
    code = HOLDER.format(root=ROOT, run=str(tmp_path / "run"))
    with started(sys.executable, "-c", code) as holder:  # a lock belongs to a process
        assert holder.stdout.readline() == "held\n"
        keep(path, CHOSEN, said.append)
    assert open(path, "rb").read() == before
    assert "give predict.py --draw_score=0.42" in said[0] and "in use by a run" in said[0]


def test_an_exported_file_takes_the_score_in_its_json(keep, tmp_path):
    (tmp_path / "ssd.onnx").write_bytes(b"graph")
    (tmp_path / "ssd.json").write_text('{"model": "m"}')
    keep(str(tmp_path / "ssd.onnx"), CHOSEN, lambda text: None)
    assert json.loads((tmp_path / "ssd.json").read_text()) == {"model": "m", **CHOSEN}
    assert (tmp_path / "ssd.onnx").read_bytes() == b"graph"


def test_weights_of_another_program_stay(keep, tmp_path):
    said, path = [], tmp_path / "other.ckpt"
    path.write_bytes(b"no checkpoint")
    keep(str(path), CHOSEN, said.append)
    assert path.read_bytes() == b"no checkpoint" and "--draw_score=0.42" in said[0] and "\n" not in said[0]
    with pytest.raises(DataError):
        checkpoint.amend(str(path), CHOSEN)


def test_pictures_are_below_their_limit(images):
    noise = np.random.default_rng(0).integers(0, 256, (100, 200, 3), np.uint8)
    cv2.imwrite(str(images / "0.png"), cv2.resize(noise, (1600, 800), interpolation=cv2.INTER_NEAREST))
    shown = eval_page.show(judge(TRUTH, FOUND)[:1], str(images), classes=["cat", "dog"])
    for address in shown[0]["pictures"]:
        data = base64.b64decode(address.partition(",")[2])
        assert len(data) < eval_page.MAX_BYTES
        assert max(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape) <= eval_page.SIDE
