"""What must hold of boxes, matching, NMS, augmentation and losses for any input; more of them with --long=FILE."""
import mindspore as ms
import numpy as np
import pytest
from harness import fuzz
from hypothesis import strategies as st
from test_nms_ties import ANCHORS, CLASSES, LOGITS, SIDE, THRESHOLDS, VALUES, check_greedy, pixel_model
from test_policies import NAMES

from src import boxes as box_ops
from src.data.policies import build_policy
from src.data.transforms import Sample, augment
from src.export.exporter import export_model
from src.inference.description import describe, detector_arguments
from src.inference.exported import run_cell
from src.inference.predictor import load_exported
from src.losses import DetectionLoss, FocalLoss, MultiBoxLoss, QualityFocalLoss, VarifocalLoss
from src.machine.compat import without_initial_weights
from src.matching import MATCHING_RULES, Matcher
from src.models.detector import Detector
from src.models.ssd import BUILDERS, build_model

SEEDS = st.integers(0, 2**32 - 1)


def random_boxes(rng, count, least=1e-3):
    """Corner boxes [count, 4] inside the image, from tiny ones to all of it."""
    size = np.clip(rng.random((count, 2)) ** 4, least, 1)
    corner = rng.random((count, 2)) * (1 - size)
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


# --- boxes


@pytest.mark.parametrize("name", BUILDERS)
def test_every_anchor_of_every_model_gives_back_what_it_encodes(name):
    with without_initial_weights():
        anchors = build_model(name, 3).anchors
    assert np.isfinite(anchors).all() and (anchors[:, 2:] > 0).all()
    boxes = random_boxes(np.random.default_rng(0), len(anchors))
    deltas = box_ops.encode(boxes, anchors)
    assert np.isfinite(deltas).all() and deltas.dtype == np.float32
    assert np.abs(box_ops.decode(deltas, anchors) - boxes).max() < 2e-5
    own = box_ops.to_corners(anchors)
    assert np.abs(box_ops.encode(own, anchors)).max() < 1e-3, "an anchor is itself without deltas"


def test_overlaps_are_symmetric_and_lie_in_0_to_1(examples):
    def check(seed, count):
        rng = np.random.default_rng(seed)
        first = random_boxes(rng, count, least=0)
        first[rng.random(count) < 0.1, 2:] = 0  # reversed
        second = np.concatenate([first, random_boxes(rng, 20), first.round(1)])
        overlap = box_ops.iou(first, second)
        assert (overlap >= 0).all() and (overlap <= 1 + 1e-6).all()
        assert np.array_equal(overlap, box_ops.iou(second, first).T)
        sound = box_ops.area(first) > 1e-10
        assert np.allclose(np.diag(overlap)[sound], 1, atol=1e-5)

    fuzz("property: IoU", examples(2000), SEEDS, st.integers(0, 50), read=check)


# --- matching


def many(rng, count, kind):
    """Boxes [count, 4] that are hard to tell apart."""
    boxes = random_boxes(rng, count)
    if kind == "identical" and count:
        boxes[:] = boxes[0]
    elif kind == "nested" and count:
        inset = np.linspace(0, 0.45, count)[:, None]
        boxes = np.concatenate([inset + np.zeros((count, 2)), 1 - inset + np.zeros((count, 2))], axis=1).astype(
            np.float32
        )
    elif kind == "touching":
        side = 1 / 15
        corner = np.stack(np.divmod(np.arange(count), 15), axis=1) * side
        boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    elif kind == "tiny":
        boxes[:, 2:] = boxes[:, :2] + 1e-4
    return boxes


@pytest.fixture(scope="module", params=["ssd300_mobilenet_v2", "ssd300_vgg16"])
def anchors(request):
    with without_initial_weights():
        return build_model(request.param, 3).anchors


@pytest.mark.parametrize("rule", MATCHING_RULES)
def test_matching_of_any_number_of_boxes(anchors, rule, examples):
    matcher, corners = Matcher(anchors, 0.5, rule), box_ops.to_corners(anchors)

    def check(seed, count, kind):
        rng = np.random.default_rng(seed)
        boxes, given = many(rng, count, kind), rng.integers(1, 81, count).astype(np.int32)
        labels, targets = matcher(boxes, given)
        assert labels.shape == (len(anchors),) and set(labels.tolist()) <= {0, *given.tolist()}
        assert np.isfinite(targets).all() and not targets[labels == 0].any()
        positive, owned, _ = matcher.match(boxes, given)
        assert (np.diff(positive) > 0).all() and np.array_equal(labels[positive], owned), "an anchor has one object"
        owner = matcher.rule.owners(boxes)
        assert ((owner >= -1) & (owner < count)).all()
        if rule == "atss":
            assert count > len(anchors) or set(owner[owner >= 0]) == set(range(count)), "no object is lost"
        elif count:
            # each object's best anchor is some object's, and whoever lost it lost it to one with the same best anchor
            best = box_ops.iou(boxes, corners).argmax(axis=1)
            assert (owner[best] >= 0).all()
            lost = np.setdiff1d(np.arange(count), owner)
            assert all((best == best[number]).sum() > 1 for number in lost)

    kinds = st.sampled_from(["random", "identical", "nested", "touching", "tiny"])
    counts = st.sampled_from([0, 1, 2, 3, 7, 30, 100, 200])
    fuzz(f"property: matching {rule}, {len(anchors)} anchors", examples(300), SEEDS, counts, kinds, read=check)


# --- NMS and the forms of a detector


def score_maps(seed):
    """One picture [1, S, S, 3] whose pixels are logits and deltas: few values, so that scores and boxes are equal."""
    rng = np.random.default_rng(seed)
    planes = np.full(VALUES, 128)
    spread = rng.choice([0, 1, 10, 60])  # 0: all boxes are their anchors
    planes[LOGITS : 2 * LOGITS] = np.clip(rng.normal(128, spread, LOGITS), 0, 255)
    levels = rng.choice([2, 3, 8, 256])
    planes[:LOGITS] = rng.choice(np.linspace(0, 255, levels).round(), LOGITS)
    half = np.float16((planes[:LOGITS] - 128) / 4) * 4 + 128  # as a float16 network gives them
    planes[:LOGITS] = half
    return planes.reshape(1, 3, SIDE, SIDE).transpose(0, 2, 3, 1).astype(np.uint8)


@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
def test_all_forms_of_a_detector_find_what_brute_force_finds(score, tmp_path, examples):
    ms.set_context(mode=ms.GRAPH_MODE)
    model = pixel_model(score)
    cell = Detector(model, **detector_arguments(THRESHOLDS))
    forms = {"ckpt": lambda pixels: run_cell(cell, pixels)}
    for ending in ("mindir", "onnx"):
        path = str(tmp_path / f"ssd.{ending}")
        export_model(model, describe(model, ["a", "b", "c"], THRESHOLDS), path, batch_size=1, raw=False)
        forms[ending] = load_exported(path).detect_batch
    assert ANCHORS * (CLASSES - 1) <= THRESHOLDS["max_boxes"], "nothing is cut off"

    def check(seed):
        pixels, found = score_maps(seed), {}
        for name, detect in forms.items():
            found[name] = [output[0] for output in detect(pixels)]
            check_greedy(found[name], model, pixels[0])
        scores = [np.sort(outputs[1]) for outputs in found.values()]
        if len(np.unique(scores[0])) == len(scores[0]):  # no ties, so there is one answer
            assert all(np.allclose(scores[0], other, atol=1e-5) for other in scores)

    fuzz(f"property: NMS of ckpt, MindIR and ONNX, {score}", examples(500), SEEDS, read=check)


# --- augmentation


@pytest.mark.parametrize("name", NAMES)
def test_a_coloured_rectangle_is_found_where_its_box_is(name, examples):
    """A red rectangle on blue, anywhere: after a policy red lies where the box says, within 2 pixels."""
    policy = build_policy(name, 160)

    def check(seed):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(100, 260, 2)
        x1, y1 = int(rng.integers(0, width - 50)), int(rng.integers(0, height - 50))
        x2, y2 = int(rng.integers(x1 + 40, width + 1)), int(rng.integers(y1 + 40, height + 1))
        image = np.zeros((height, width, 3), np.uint8)
        image[:] = (20, 20, 230)
        image[y1:y2, x1:x2] = (230, 20, 20)
        box = np.array([[x1 / width, y1 / height, x2 / width, y2 / height]], np.float32)
        result, boxes, labels = augment(Sample(image, box, np.array([5], np.int32)), policy, size=160, rng=rng)
        assert result.shape == (160, 160, 3) and len(boxes) == len(labels) <= 1
        if not len(boxes):
            return  # a crop may leave so little of it that it does not count
        assert labels.tolist() == [5] and (boxes >= 0).all() and (boxes <= 1).all()
        redness = result[..., 0].astype(int) - result[..., 2]
        rows, columns = np.nonzero(redness > redness.max() / 2)
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert abs(boxes[0] * 160 - found).max() <= 2, (boxes * 160, found)

    fuzz(f"property: augmentation {name}", examples(10000), SEEDS, read=check)


# --- losses

LOSSES = {"focal": lambda gamma, alpha: FocalLoss(gamma, alpha),
          "quality": lambda gamma, alpha: QualityFocalLoss(gamma),
          "varifocal": lambda gamma, alpha: VarifocalLoss(gamma, alpha),
          "multibox": lambda gamma, alpha: MultiBoxLoss(gamma, alpha)}


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_and_gradients_are_finite(kind, examples):
    """For any gamma and alpha (multibox: ratio of negatives and share of empty images) and logits of any size."""
    ms.set_context(mode=ms.PYNATIVE_MODE)

    def check(seed, gamma, alpha, share, size):
        rng = np.random.default_rng(seed)
        labels = ((rng.random((2, 12)) < share) * rng.integers(1, 4, (2, 12))).astype(np.int32)
        logits = (rng.choice([-1, 0, 1, 0.5], (2, 12, 4)) * size).astype(np.float32)
        deltas, targets = (rng.normal(0, scale, (2, 12, 4)).astype(np.float32) for scale in (size, 3))
        loss = DetectionLoss(LOSSES[kind](gamma, alpha), rng.choice(["batch", "image"]))
        value, gradients = ms.value_and_grad(
            lambda first, second: loss(first, second, ms.Tensor(labels), ms.Tensor(targets))[0], (0, 1)
        )(ms.Tensor(logits), ms.Tensor(deltas))
        assert np.isfinite(value.asnumpy()) and all(np.isfinite(one.asnumpy()).all() for one in gradients)

    try:
        fuzz(f"property: loss {kind}", min(examples(200), 200), SEEDS, st.floats(0, 60), st.floats(0, 1),
             st.sampled_from([0, 0.1, 0.5, 1]), st.sampled_from([0.0, 1.0, 30.0, 1e3, 1e6]), read=check)
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
