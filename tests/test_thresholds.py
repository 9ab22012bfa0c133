"""From which score on boxes are worth showing: by hand, in a checkpoint, and in predictions."""
import json

import mindspore as ms
import numpy as np
import pytest

from src.errors import DataError
from src.evaluation.mistakes import judge
from src.evaluation.thresholds import MIN_BOXES, SCORES, choose_scores, score_curves, scores_by_class
from src.inference.description import shown_fields
from src.inference.found import Detections
from src.training.saver import Saver
from src.training.state import RunState
from src.weights import checkpoint

CAT, DOG = 7, 2


def truth_of(*boxes, images=1):
    """A COCO dict of images of 100 x 100 pixels; boxes: (image, category, x) of 10 x 10 pixels."""
    return {"images": [{"id": number, "width": 100, "height": 100, "file_name": "a"} for number in range(images)],
            "annotations": [{"image_id": image, "category_id": category, "bbox": [x, 0, 10, 10]}
                            for image, category, x in boxes],
            "categories": [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}]}


def found_of(*boxes):
    return [{"image_id": image, "category_id": category, "bbox": [x, 0, 10, 10], "score": score}
            for image, category, x, score in boxes]


TRUTH = truth_of((0, CAT, 0), (0, CAT, 20), (0, DOG, 40))
# two right cats, an invented cat between them, a dog taken for a cat, and the right dog below that
FOUND = found_of((0, CAT, 0, 0.9), (0, CAT, 60, 0.8), (0, CAT, 20, 0.5), (0, CAT, 40, 0.3), (0, DOG, 40, 0.29))


def at(score):
    return int(np.flatnonzero(np.isclose(SCORES, score))[0])


def test_curves_by_hand():
    curves = score_curves(judge(TRUTH, FOUND), 2)
    assert curves.boxes.tolist() == [2, 1, 3]
    for score, right, found in ((0.01, [2, 1, 3], [4, 1, 5]), (0.29, [2, 1, 3], [4, 1, 5]),
                                (0.3, [2, 0, 2], [4, 0, 4]), (0.31, [2, 0, 2], [3, 0, 3]),
                                (0.8, [1, 0, 1], [2, 0, 2]), (0.81, [1, 0, 1], [1, 0, 1]),
                                (0.91, [0, 0, 0], [0, 0, 0])):
        assert curves.right[at(score)].tolist() == right and curves.found[at(score)].tolist() == found, score
    assert curves.precision[at(0.5)][0] == pytest.approx(2 / 3) and np.isnan(curves.precision[at(0.5)][1])
    assert curves.recall[at(0.81)].tolist() == [0.5, 0, pytest.approx(1 / 3)]
    assert curves.f1[at(0.5)][0] == pytest.approx(0.8)  # precision 2/3, recall 1


def test_the_middle_of_the_best_scores_is_chosen():
    curves = score_curves(judge(TRUTH, FOUND), 2)
    # all together: 3 right of 5 found, 3 there: 0.75 up to 0.29, which is the lowest score found; then 4/7, 4/6, ..
    assert choose_scores(curves, ["cat", "dog"]) == {"draw_score": 0.29, "class_scores": {}}
    boxes = [(image, CAT, 0) for image in range(MIN_BOXES)]
    truth = truth_of(*boxes, (0, DOG, 40), images=MIN_BOXES)
    found = found_of(*((*box, 0.6) for box in boxes), (1, CAT, 50, 0.4), (2, CAT, 50, 0.2))
    chosen = choose_scores(score_curves(judge(truth, found), 2), ["cat", "dog"])
    # best from 0.41 to 0.60; one dog is too few for a score of its own
    assert chosen == {"draw_score": 0.51, "class_scores": {"cat": 0.51}}
    assert json.loads(json.dumps(chosen)) == chosen


@pytest.mark.parametrize("truth, found", [
    (TRUTH, []), (truth_of(), []), (truth_of(), FOUND), (TRUTH, found_of((0, DOG, 80, 0.9))),
    # one right of 17 found: F1 2 / (17 + 3), one tenth
    (TRUTH, found_of((0, CAT, 0, 0.5), *[(0, DOG, 80, 0.5)] * 16))])
def test_where_hardly_a_box_is_right_no_score_is_chosen(truth, found):
    assert choose_scores(score_curves(judge(truth, found), 2), ["cat", "dog"]) == {}


def test_a_crowd_counts_neither_way():
    truth = truth_of((0, CAT, 0))
    truth["annotations"].append({"image_id": 0, "category_id": CAT, "bbox": [20, 0, 10, 10], "iscrowd": 1})
    curves = score_curves(judge(truth, FOUND[:1] + found_of((0, CAT, 20, 0.7))), 2)
    assert curves.boxes.tolist() == [1, 0, 1] and curves.found[0].tolist() == [1, 0, 1]


def test_each_class_is_drawn_from_its_own_score_on():
    limits = scores_by_class(["cat", "dog"], 0.5, {"dog": 0.2})
    assert limits.tolist() == [0.5, 0.2]
    found = Detections(np.zeros((4, 4)), np.array([0.5, 0.49, 0.2, 0.19]), np.array([1, 1, 2, 2])).from_scores(limits)
    assert found.scores.tolist() == [0.5, 0.2] and found.labels.tolist() == [1, 2] and found.boxes.shape == (2, 4)


def test_what_is_typed_counts_before_the_file_and_the_file_before_the_option():
    stored = {"draw_score": 0.3, "class_scores": {"cat": 0.6}}
    assert shown_fields(stored, {"draw_score": 0.4}, overrides={}) == stored
    assert shown_fields(stored, {"draw_score": 0.4}, overrides={"draw_score": 0.1}) == {
        "draw_score": 0.1, "class_scores": {}}
    assert shown_fields({}, {"draw_score": 0.4}, overrides={}) == {"draw_score": 0.4, "class_scores": {}}


def test_a_checkpoint_is_amended_and_its_weights_stay(tmp_path):
    path, half = str(tmp_path / "a.ckpt"), np.array([1.5, -2], np.float16)
    parameters = [ms.Parameter(ms.Tensor(half), name="half"),
                  ms.Parameter(ms.Tensor([0.1], ms.bfloat16), name="brain"),
                  ms.Parameter(ms.Tensor(np.array([3], np.int64)), name="count")]
    checkpoint.save(path, parameters, {"model": "m", "draw_score": 0.4})
    before = {name: (value.dtype, value.get_bytes())
              for name, value in ms.load_checkpoint(path).items() if name != checkpoint.META}
    checkpoint.amend(path, {"draw_score": 0.25, "class_scores": {"猫": 0.3}})
    after = ms.load_checkpoint(path, crc_check=True)
    meta = json.loads(str(after.pop(checkpoint.META)))
    assert meta == {"model": "m", "draw_score": 0.25, "class_scores": {"猫": 0.3}}
    assert {name: (value.dtype, value.get_bytes()) for name, value in after.items()} == before


def test_a_checkpoint_of_another_program_is_not_amended(tmp_path):
    path = str(tmp_path / "a.ckpt")
    ms.save_checkpoint([{"name": "a", "data": ms.Tensor([1.0])}], path)
    with pytest.raises(DataError, match="does not describe itself"):
        checkpoint.amend(path, {"draw_score": 0.25})


def test_the_best_checkpoint_of_a_run_has_the_scores_of_its_evaluation(monkeypatch):
    written = {}
    monkeypatch.setattr(checkpoint, "save_run", lambda folder, name, parameters, *, meta, keep: written.update(
        {name: meta}))
    saver = Saver(type("Step", (), {"get_parameters": list})(), "run", facts={"draw_score": 0.4})
    saver.save_best(RunState(2, 4), scores={"draw_score": 0.3, "class_scores": {}})
    saver.write("last", RunState(2, 4))
    assert written["best"]["draw_score"] == 0.3 and written["last"]["draw_score"] == 0.4
