"""Which detections are wanted: scores by class as typed, and the classes to keep."""
import numpy as np
import pytest

from src.errors import OptionError
from src.inference.found import Detections, read_scores, score_words, shown_scores
from src.text import listed

CLASSES = ["person", "traffic light", "ratio 1:2", "a,b"]
STORED = {"draw_score": 0.4, "class_scores": {"person": 0.7}}


@pytest.mark.parametrize("text, draw_score, class_scores", [
    ("", 0.4, {"person": 0.7}), ("0.5", 0.5, {}), ("0", 0, {}),
    ("traffic light:0.3", 0.4, {"person": 0.7, "traffic light": 0.3}),
    ("0.5,person:0.3, ratio 1:2:0.6", 0.5, {"person": 0.3, "ratio 1:2": 0.6}), ("'a,b:0.1',1e-1", 0.1, {"a,b": 0.1})])
def test_scores_as_typed(text, draw_score, class_scores):
    assert read_scores(text, CLASSES, STORED) == {"draw_score": draw_score, "class_scores": class_scores}


@pytest.mark.parametrize("text, words", [
    *((text, "expected a score") for text in ("1.5", "-1", "nan", "person", "person:", "0.1,0.2", "person:2")),
    ("persn:0.2", "'persn' is not a class of this model; did you mean 'person'"),
    ("ship:0.2", "'ship' is not a class of this model; it knows person, traffic light")])
def test_scores_that_are_none(text, words):
    with pytest.raises(OptionError, match=words):
        read_scores(text, CLASSES, STORED)


def test_long_lists_are_cut():
    assert listed(CLASSES) == "person, traffic light, ratio 1:2, a,b"
    assert listed([str(number) for number in range(21)]).endswith(", 18, 19 and 1 more")


def test_only_some_classes():
    assert shown_scores(CLASSES, [], STORED).tolist() == [0.7, 0.4, 0.4, 0.4]
    scores = shown_scores(CLASSES, ["a,b", "person"], STORED)
    assert scores.tolist() == [0.7, np.inf, np.inf, 0.4]
    found = Detections(np.zeros((4, 4)), np.array([0.9, 0.8, 0.6, 0.4]), np.array([2, 1, 1, 4])).from_scores(scores)
    assert found.scores.tolist() == [0.8, 0.4] and found.labels.tolist() == [1, 4]
    with pytest.raises(OptionError, match="--only_classes: 'Person' is not a class of .*did you mean 'person'"):
        shown_scores(CLASSES, ["Person"], STORED)


def test_scores_in_words():
    assert score_words(np.array([0.4, np.inf, 0.4])) == "with a score of at least 0.4 (--draw_score)"
    assert score_words(np.array([0.4, 0.15, np.inf])) == "with at least the score of their class (0.15 to 0.4)"
