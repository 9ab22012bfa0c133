"""Against real outputs of PaddleDetection's SSD-MobileNetV1-300 (VOC) with seeded weights."""
import mindspore as ms
import numpy as np
import pytest
from parity import bare_step, fill, load_folder

from src import boxes as box_ops
from src.losses import DetectionLoss, MultiBoxLoss
from src.lr_schedule import multistep
from src.matching import Matcher
from src.models.detector import Detector
from src.models.ssd import build_model
from src.optim import build_optimizer

BACKGROUND_FIRST = np.roll(np.arange(21), 1)  # theirs is the last class


class Reference:
    """The parity data and the network filled with its seeded weights."""

    def __init__(self, root):
        self.seeded, self.meta, self.expected = load_folder(root, "pd_ssd_mobilenet_v1_300")
        self.model = build_model("ssd300_mobilenet_v1", 21)
        self.matcher = Matcher(self.model.anchors, 0.5, "ssd")
        self.loss = DetectionLoss(MultiBoxLoss(empty_negatives=0.01))

    def fill(self, scale=1.0):
        fill(self.model.network, "paddle", {entry["name"]: self.seeded.weight_for(entry["name"], entry["shape"], scale)
                                            for entry in self.meta["parameters"]})

    def targets(self, cases):
        rows = [self.matcher(self.expected[f"case_{case}_boxes_xyxy"],
                             self.expected[f"case_{case}_labels"] + 1) for case in cases]
        return [np.stack(part) for part in zip(*rows)]


@pytest.fixture(scope="module")
def reference(shared):
    ms.set_context(mode=ms.GRAPH_MODE)
    return Reference(shared("..", "parity", "zoo_and_paddle"))


def test_anchors(reference):
    assert np.abs(box_ops.to_corners(reference.model.anchors) - reference.expected["anchors_xyxy"]).max() < 1e-6


@pytest.mark.parametrize("case", ["a", "b", "c", "empty"])
def test_matching(reference, case):
    (labels,), (targets,) = reference.targets([case])
    theirs = reference.expected[f"case_{case}_pos_anchor"]
    different = set(np.flatnonzero(labels)) ^ set(theirs)
    # the tiny box of case b lies inside 36 anchors of one area: which of them is best is decided by rounding
    assert len(different) <= (2 if case == "b" else 0) and (labels > 0).sum() == len(theirs)
    same = np.array([anchor not in different for anchor in theirs], bool)
    assert np.array_equal(labels[theirs[same]], reference.expected[f"case_{case}_pos_label"][same] + 1)
    difference = targets[theirs[same]] - reference.expected[f"case_{case}_pos_delta_cxcywh"][same]
    assert np.abs(difference).max(initial=0) < 2e-5


@pytest.mark.parametrize("case", ["a", "c", "empty"])
def test_loss(reference, case):
    deltas, logits = reference.seeded.random_outputs(2, 1917, 21)
    labels, targets = reference.targets([case])
    inputs = logits[:1][..., BACKGROUND_FIRST], deltas[:1], labels, targets
    total, cls, box, count = (float(output.asnumpy()) for output in reference.loss(*map(ms.Tensor, inputs)))
    theirs = reference.meta["loss"]["on_seeded_random_outputs"][case]
    assert count == theirs["num_positive"]
    assert total == pytest.approx(theirs["total_by_peer_float32"], rel=1e-6)
    assert cls * max(count, 1) == pytest.approx(theirs["conf_sum"], rel=1e-6)


@pytest.mark.parametrize("tag, scale, training, tolerance", [
    ("eval_s070", 0.7, False, 2e-5), ("train", 1.0, True, 2e-3)])
def test_network_outputs(reference, tag, scale, training, tolerance):
    reference.fill(scale)
    reference.model.network.set_train(training)
    image = ms.Tensor(reference.seeded.input_image(2, 300))
    logits, deltas = (output.asnumpy() for output in reference.model.network(image))
    reference.model.network.set_train(False)
    kept = reference.expected["kept_indices"]
    theirs = reference.expected[f"{tag}_logits"][..., BACKGROUND_FIRST]
    # two values normalise the last map of two images (anchors 1911 on): rounding grows there
    limit = np.where(kept >= 1911, 5, 1)[:, None] * tolerance
    assert (np.abs(logits[:, kept] - theirs) < limit).all()
    assert (np.abs(deltas[:, kept] - reference.expected[f"{tag}_deltas"]) < limit).all()


def test_detections(reference):
    """The detections of their network by our whole pipeline, decoding and NMS included."""
    reference.fill()
    detector = Detector(reference.model, min_score=0.01, nms_threshold=0.45, topk_candidates=4000, max_boxes=200)
    detector.set_train(False)
    logits, deltas = reference.model.network(ms.Tensor(reference.seeded.input_image(2, 300)))
    found = [output.asnumpy() for output in detector.finish(logits, deltas)]
    start = 0
    for image, number in enumerate(reference.expected["eval_det_num"]):
        box, score, label, count = (output[image] for output in found)
        theirs = reference.expected["eval_det"][start:start + number]
        start += number
        assert count == number == 200
        same = 0
        for row in theirs:  # class, score, x1, y1, x2, y2 in pixels of the image
            close = (label - 1 == row[0]) & (np.abs(score - row[1]) < 1e-3)
            same += close.any()
        assert same >= 0.99 * number


def test_learning_rates(reference):
    facts = reference.meta["lr"]
    milestones = [epoch * facts["steps_per_epoch"] for epoch in facts["milestones_epochs"]]
    rates = multistep(facts["base_lr"], milestones=milestones, factors=facts["gamma"],
                      total_steps=120 * facts["steps_per_epoch"])
    for step, value in facts["step_value"].items():
        assert rates[int(step)] == pytest.approx(value, rel=1e-9)


@pytest.mark.long
def test_training_steps(reference):
    """Three steps of RMSProp: convolutions of the body at a tenth of the rate, decay on the head alone."""
    run = reference.meta["trajectory"]
    reference.fill()
    network = reference.model.network
    before = {parameter.name: parameter.asnumpy().copy() for parameter in network.trainable_params()}
    optimizer = build_optimizer(network.trainable_params(), np.array(run["lr_used"], np.float32), kind="rmsprop",
                                momentum=0.0, weight_decay=5e-5, decay_exclude="body", body_lr=0.1)
    step = bare_step(reference.model, reference.loss, optimizer)
    batch = reference.seeded.input_image(2, 300), *reference.targets("ac")
    losses = []
    for number in range(3):
        losses.append(step(*batch))
        if number == 0:
            moved = {parameter.name: np.linalg.norm(parameter.asnumpy() - before[parameter.name])
                     for parameter in network.trainable_params()}
    assert losses[0] == pytest.approx(run["loss_before_step"][0], rel=2e-6)
    # where a gradient is mere rounding RMSProp divides it by its own size: later losses follow only roughly
    assert losses == pytest.approx(run["loss_before_step"], rel=3e-2)
    for theirs, ours in (("backbone.conv1._conv.weight", "backbone.features.0.0.weight"),
                         ("backbone.conv1._batch_norm.weight", "backbone.features.0.1.gamma"),
                         ("ssd_head.boxes0.weight", "head.box.0.weight"), ("ssd_head.boxes0.bias", "head.box.0.bias"),
                         ("ssd_head.scores0.weight", "head.cls.0.weight")):
        assert moved[ours] == pytest.approx(run["highlight"][theirs]["change_l2_after_step"][0], rel=1e-2), theirs
