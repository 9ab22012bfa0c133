"""NMS of equal scores against brute force: the cell in both modes, MindIR and ONNX, one image a call and any number."""
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src import boxes as box_ops
from src.export.exporter import export_model
from src.inference.description import describe, detector_arguments
from src.inference.exported import run_cell
from src.inference.predictor import load_exported
from src.models.detector import AnyBatchDetector, Detector
from src.models.ssd import Model

ANCHORS, CLASSES, SIDE = 30, 4, 16  # classes with background
THRESHOLDS = {"min_score": 0.2, "nms_threshold": 0.4, "nms_candidates": 1000, "max_boxes": 100, "resize": "bilinear"}
LOGITS, VALUES = ANCHORS * CLASSES, 3 * SIDE * SIDE


class FromPixels(nn.Cell):
    """A network whose outputs are its input: the first values are logits, those behind them deltas."""

    def construct(self, images):
        values = images.reshape((images.shape[0], VALUES))
        logits = values[:, :LOGITS].reshape((images.shape[0], ANCHORS, CLASSES))
        return logits, values[:, LOGITS:2 * LOGITS].reshape((images.shape[0], ANCHORS, 4)) * 0.02


def pixel_model(score):
    """A Model of FromPixels with random anchors; it has no parameters and compiles at once."""
    rng = np.random.default_rng(0)
    anchors = np.concatenate([rng.uniform(0.3, 0.7, (ANCHORS, 2)), rng.uniform(0.1, 0.4, (ANCHORS, 2))], 1)
    return Model(name="ssd300_vgg16", network=FromPixels(), anchors=anchors.astype(np.float32), image_size=SIDE,
                 num_classes=CLASSES, mean=(128.0,) * 3, std=(4.0,) * 3, score=score)


@pytest.fixture(scope="module", params=["sigmoid", "softmax"])
def model(request):
    return pixel_model(request.param)


def images():
    """Pictures [5, S, S, 3]: logits of -32 .. 31.75 that tie in all ways."""
    rng = np.random.default_rng(1)
    planes = np.full((5, VALUES), 128)
    planes[:, LOGITS:2 * LOGITS] = rng.integers(98, 158, (5, LOGITS))
    logits = planes[:, :LOGITS].reshape(5, ANCHORS, CLASSES)
    logits[0, :, 1:] = rng.integers(126, 131, (ANCHORS, CLASSES - 1))   # five values
    logits[1] = 128                                                     # all the same
    logits[2] = rng.choice([0, 255], (ANCHORS, CLASSES))                # scores of exactly 1 and 0
    logits[3] = 128 + 4 * rng.normal(0, 8, (ANCHORS, CLASSES)).round()  # whole logits, as of a coarse type
    logits[4, :, 0], logits[4, ::2, 1] = 0, 255                         # one class, half of the anchors sure
    return planes.reshape(5, 3, SIDE, SIDE).transpose(0, 2, 3, 1).astype(np.uint8)


def pairs_of(model, image):
    """Every (anchor, class) pair above the threshold: scores, labels, boxes."""
    values = ((image.astype(np.float64) - 128) / 4).transpose(2, 0, 1).ravel()
    logits, deltas = values[:LOGITS].reshape(-1, CLASSES), values[LOGITS:2 * LOGITS].reshape(-1, 4) * 0.02
    if model.score == "sigmoid":
        scores = 1 / (1 + np.exp(-logits))
    else:
        scores = np.exp(logits - logits.max(1, keepdims=True))
        scores /= scores.sum(1, keepdims=True)
    boxes = np.clip(box_ops.decode(deltas.astype(np.float32), model.anchors), 0, 1)
    anchor, label = np.nonzero(scores[:, 1:] > THRESHOLDS["min_score"])
    return scores[anchor, label + 1], label + 1, boxes[anchor]


def check_greedy(found, model, image):
    """Asserts that boxes, scores, labels, count of one image are greedy NMS of its pairs, equal ones in any order."""
    boxes, scores, labels, count = found
    all_scores, all_labels, all_boxes = pairs_of(model, image)
    kept = []
    for box, score, label in zip(boxes[:count], scores[:count], labels[:count]):
        fits = (all_labels == label) & (abs(all_scores - score) < 1e-5) & (abs(all_boxes - box).max(1) < 1e-5)
        assert fits.sum() == 1, "a pair that there is, and no other"
        kept.append(int(np.argmax(fits)))
    assert len(set(kept)) == count, "no pair twice"
    assert (np.diff(scores[:count]) <= 0).all() and not boxes[count:].any() and not scores[count:].any()
    overlap = box_ops.iou(all_boxes, all_boxes) * (all_labels[:, None] == all_labels)
    for index in range(len(all_scores)):
        above = [other for other in kept if other != index and overlap[index, other] > THRESHOLDS["nms_threshold"]]
        if index in kept:
            assert not above, "two that overlap"
        else:
            assert any(all_scores[other] >= all_scores[index] - 1e-5 for other in above), "lost without a stronger"


def check_all(detect, model, counts):
    """Checks a function of images [n, S, S, 3] for each number of images."""
    for count in counts:
        found = detect(images()[:count])
        for number in range(count):
            check_greedy([output[number] for output in found], model, images()[number])
        assert (found[3] > 3).all()


def brute_force(scores, labels, boxes):
    """Greedy NMS of candidates in their order -> numbers of those that stay."""
    kept = []
    for index in range(len(scores)):
        rivals = [other for other in kept if labels[other] == labels[index]]
        if scores[index] > THRESHOLDS["min_score"] and not (
                box_ops.iou(boxes[index][None], boxes[rivals])[0] > THRESHOLDS["nms_threshold"]).any():
            kept.append(index)
    return kept


@pytest.mark.parametrize("kind", [Detector, AnyBatchDetector])
def test_the_cell(mode, model, kind):
    cell = kind(model, **detector_arguments(THRESHOLDS))
    check_all(lambda pixels: run_cell(cell, pixels), model, (5,))
    logits, deltas = cell.network(cell.normalize(ms.Tensor(images())))
    scores, labels, boxes = (output.asnumpy() for output in cell.find_candidates(logits, deltas))
    found = run_cell(cell, images())
    for number in range(5):
        kept = brute_force(scores[number], labels[number], boxes[number])
        assert found[3][number] == len(kept)
        assert (found[0][number, :len(kept)] == boxes[number, kept]).all()
        assert (found[1][number, :len(kept)] == scores[number, kept]).all()
        assert (found[2][number, :len(kept)] == labels[number, kept] + 1).all()


@pytest.mark.parametrize("batch_size", [0, 5])
@pytest.mark.parametrize("ending", ["mindir", "onnx"])
def test_the_files(model, ending, batch_size, tmp_path):
    path = str(tmp_path / f"ssd.{ending}")
    export_model(model, describe(model, ["a", "b", "c"], THRESHOLDS), path, batch_size=batch_size, raw=False)
    check_all(load_exported(path).detect_batch, model, (5,) if batch_size else (1, 5))


def test_float16_logits_and_few_places(mode):
    """Logits as a float16 network gives them; the best of many equal pairs fill the few candidates and boxes."""
    rng = np.random.default_rng(2)
    anchors = np.concatenate([rng.uniform(0.1, 0.9, (400, 2)), rng.uniform(0.05, 0.2, (400, 2))], 1).astype(np.float32)
    model = SimpleNamespace(network=nn.Identity(), mean=(0,) * 3, std=(1,) * 3, anchors=anchors, num_classes=6,
                            score="sigmoid", clip_before_nms=True)
    cell = Detector(model, min_score=0.2, nms_threshold=0.4, topk_candidates=300, max_boxes=20)
    logits = ms.Tensor(rng.normal(0, 4, (1, 400, 6)).round().astype(np.float16))
    deltas = ops.zeros((1, 400, 4), ms.float16)
    scores, labels, boxes = (output.asnumpy()[0] for output in cell.find_candidates(logits.astype(ms.float32),
                                                                              deltas.astype(ms.float32)))
    kept = brute_force(scores, labels, boxes)[:20]
    found = [output.asnumpy()[0] for output in cell.finish(logits, deltas)]
    assert len(np.unique(scores)) < 20 == len(kept) == found[3]
    assert (found[0] == boxes[kept]).all() and (found[1] == scores[kept]).all() and (found[2] == labels[kept] + 1).all()
    best = np.sort(1 / (1 + np.exp(-logits.asnumpy()[0, :, 1:].astype(float))).ravel())[::-1][:300]
    assert np.allclose(scores, best, atol=1e-6)  # none that is better was left out
