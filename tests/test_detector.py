"""Post-processing by hand and against exact greedy NMS in numpy."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src import boxes as box_ops
from src.models.detector import Detector
from src.models.ssd import Model

ANCHORS = np.array([[0.25, 0.25, 0.2, 0.2], [0.26, 0.25, 0.2, 0.2], [0.75, 0.75, 0.2, 0.2]], np.float32)


class Stub(nn.Cell):
    """A network with known outputs."""

    def __init__(self, logits, deltas):
        super().__init__()
        self.logits, self.deltas = ms.Tensor(logits), ms.Tensor(deltas)

    def construct(self, images):
        return self.logits + images.sum() * 0, self.deltas * 1.0


def detect(logits, deltas, anchors=ANCHORS, score="sigmoid", **settings):
    """Runs a Detector on known logits [B, A, C] and deltas [B, A, 4]; returns numpy outputs."""
    model = Model(name="stub", network=Stub(logits, deltas), anchors=anchors, image_size=8,
                  num_classes=logits.shape[-1], score=score)
    cell = Detector(model, **settings)
    cell.set_train(False)
    return [output.asnumpy() for output in cell(ms.Tensor(np.zeros((len(logits), 8, 8, 3), np.uint8)))]


def logit(*probabilities):
    return np.log(np.array(probabilities) / (1 - np.array(probabilities)))


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"], autouse=True)
def mode(request):
    ms.set_context(mode=request.param)
    yield
    ms.set_context(mode=ms.GRAPH_MODE)


def test_nms_is_by_class_and_thresholds_hold():
    # background column first; anchors 0 and 1 overlap with IoU .9
    logits = logit([[0.9, 0.8, 0.01], [0.9, 0.7, 0.6], [0.9, 0.05, 0.3]]).astype(np.float32)
    boxes, scores, labels, count = detect(logits, np.zeros((1, 3, 4), np.float32), min_score=0.1, nms_threshold=0.6,
                                          max_boxes=5)
    assert count.tolist() == [3] and labels.tolist() == [[1, 2, 2, 0, 0]]
    assert np.allclose(scores[0], [0.8, 0.6, 0.3, 0, 0], atol=1e-6)
    assert np.allclose(boxes[0, :3], box_ops.to_corners(ANCHORS), atol=1e-6) and (boxes[0, 3:] == 0).all()


def test_softmax_scores_and_no_detection():
    logits = np.array([[[3.0, 0, 0]] * 3, [[0, 5.0, 0], [9, 0, 0], [9, 0, 0]]], np.float32)
    _, scores, labels, count = detect(logits, np.zeros((2, 3, 4), np.float32), score="softmax", min_score=0.5)
    assert count.tolist() == [0, 1] and labels[1, 0] == 1 and not labels[0].any()
    assert scores[1, 0] == pytest.approx(np.exp(5) / (np.exp(5) + 2))


def test_boxes_are_decoded_and_clipped():
    deltas = np.array([[[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, np.log(10) / 0.2, 0]]], np.float32)
    boxes, *_ = detect(logit([[0.1, 0.9], [0.1, 0.01], [0.1, 0.8]]).astype(np.float32), deltas, max_boxes=2)
    # dx 1 moves by .1 of the width .2; a width of 2 around .75 is clipped to the image
    assert np.allclose(boxes[0], [[0.17, 0.15, 0.37, 0.35], [0, 0.65, 1, 0.85]], atol=1e-6)


def greedy(scores, boxes, threshold, min_score):
    """Exact greedy NMS of one class: indices by descending score."""
    kept = []
    for index in np.argsort(-scores, kind="stable"):
        overlap = box_ops.iou(boxes[index][None], boxes[kept])[0]
        if scores[index] > min_score and not (overlap > threshold).any():
            kept.append(index)
    return kept


def test_equals_exact_greedy_nms_of_every_class():
    rng = np.random.default_rng(0)
    anchors = np.concatenate([rng.uniform(0.2, 0.8, (300, 2)), rng.uniform(0.1, 0.3, (300, 2))], 1).astype(np.float32)
    logits = rng.normal(-2, 1.5, (2, 300, 21)).astype(np.float32)
    deltas = rng.normal(0, 0.5, (2, 300, 4)).astype(np.float32)
    boxes, scores, labels, count = detect(logits, deltas, anchors, min_score=0.3, nms_threshold=0.5,
                                          topk_candidates=3000, max_boxes=3000)
    for image in range(2):
        decoded = np.clip(box_ops.decode(deltas[image], anchors), 0, 1)
        expected = {(label, index) for label in range(1, 21)
                    for index in greedy(1 / (1 + np.exp(-logits[image, :, label])), decoded, 0.5, 0.3)}
        found = set()
        for k in range(count[image]):
            label = labels[image, k]
            score = 1 / (1 + np.exp(-logits[image, :, label]))
            distance = np.abs(decoded - boxes[image, k]).sum(1) + np.abs(score - scores[image, k])
            found.add((label, int(distance.argmin())))
        assert found == expected and len(found) == count[image] > 100
        assert (np.diff(scores[image, :count[image]]) <= 0).all()


@pytest.mark.long
def test_anchor_and_class_of_the_last_of_many_pairs():
    # 30 million pairs: float32 counts exactly to 16.7 million only
    anchors = np.tile(ANCHORS[2:], (30000, 1))
    anchors[:, :2] = np.random.default_rng(0).uniform(0.2, 0.8, (30000, 2))
    logits = np.full((1, 30000, 1001), -200, np.float32)
    for place, (anchor, label) in enumerate([(29999, 1000), (29999, 1), (29998, 999), (16777, 217), (0, 1)]):
        logits[0, anchor, label] = 5 - place
    boxes, _, labels, count = detect(logits, np.zeros((1, 30000, 4), np.float32), anchors, max_boxes=5,
                                     topk_candidates=5)
    assert count.tolist() == [5] and labels.tolist() == [[1000, 1, 999, 217, 1]]
    assert np.allclose(boxes[0], box_ops.to_corners(anchors[[29999, 29999, 29998, 16777, 0]]), atol=1e-6)
