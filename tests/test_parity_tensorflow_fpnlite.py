"""Against real outputs of ssd_mobilenet_v2_fpnlite of TensorFlow's Object Detection API with seeded weights."""
import mindspore as ms
import numpy as np
import pytest
from parity import fill, load_folder

from src.classes import COCO_CATEGORY_IDS
from src.models.detector import Detector
from src.models.layers import Normalize
from src.models.ssd import build_model
from src.weights.names import convert_weights

FOLDERS = {320: "ssd_mobilenet_v2_fpnlite_320", 640: "ssd_mobilenet_v2_fpnlite_640"}
X_FIRST = [1, 0, 3, 2]  # theirs is y first
CLASSES = 91            # theirs have the numbers of COCO's categories, with gaps


class Reference:
    """One folder of the parity data, the network filled with its seeded weights, and all it computes."""

    def __init__(self, size, root):
        self.seeded, self.meta, self.expected = load_folder(root, FOLDERS[size])
        entries = [entry for entry in self.meta["checkpoint_keys"] if entry["kind"] == "weight"]
        self.by_key = {entry["key"]: self.seeded.weight_for(entry["key"], entry["shape"], entry["factor"],
                                                            entry["offset"]) for entry in entries}
        self.by_name = {entry["full_name"]: self.by_key[entry["key"]] for entry in entries}
        self.model = build_model("ssd_mobilenet_v2_fpnlite", CLASSES, image_size=size)
        self.shapes = fill(self.model.network, "tensorflow", self.by_key)
        network = self.model.network.set_train(False)
        pixels = Normalize(self.model.mean, self.model.std)(ms.Tensor(self.seeded.image(size, size)[None]))
        self.maps = {"preprocessed": pixels}
        features = network.backbone(pixels)
        pyramid = network.neck(features)
        self.maps.update({f"backbone_{level + 1}": one for level, one in enumerate(features)})
        self.maps.update({f"pyramid_{level}": one for level, one in enumerate(pyramid)})
        self.logits, self.deltas = network.head(pyramid)


@pytest.fixture(scope="module", params=FOLDERS)
def reference(request, shared):
    ms.set_context(mode=ms.PYNATIVE_MODE)  # what lies between the parts is looked at
    yield Reference(request.param, shared("..", "parity", "tensorflow"))
    ms.set_context(mode=ms.GRAPH_MODE)


def test_both_kinds_of_names_are_known(reference):
    ours, left = convert_weights("tensorflow", reference.by_name, reference.shapes)
    theirs, _ = convert_weights("tensorflow", reference.by_key, reference.shapes)
    assert not left and ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_the_80_classes_of_coco_are_chosen(reference):
    kept = [0, *COCO_CATEGORY_IDS]
    shapes = {parameter.name: parameter.shape
              for parameter in build_model("ssd_mobilenet_v2_fpnlite", len(kept)).network.get_parameters()}
    ours, _ = convert_weights("tensorflow", reference.by_key, shapes)
    assert {name: array.shape for name, array in ours.items()} == shapes
    bias = next(array for name, array in reference.by_name.items() if name.endswith("ClassPredictor/bias"))
    assert np.array_equal(ours["head.cls_out.1.bias"].reshape(6, -1), bias.reshape(6, CLASSES)[:, kept])


def test_no_momentum_is_taken_for_a_weight(reference):
    slot = next(iter(reference.by_key)).replace("/.ATTRIBUTES", "/.OPTIMIZER_SLOT/optimizer/momentum/.ATTRIBUTES")
    ours, left = convert_weights("tensorflow", {slot: np.ones(128, np.float32)}, reference.shapes)
    assert not ours and left == [slot]


def test_anchors(reference):
    theirs = reference.expected["anchors_cyxhw"][:, X_FIRST]
    assert np.abs(reference.model.anchors - theirs).max() < 1e-6


def test_parameters(reference):
    trainable = sum(parameter.size for parameter in reference.model.network.trainable_params())
    assert trainable == reference.meta["trainable_parameters"]


def test_maps(reference):
    for name, one in reference.maps.items():
        ours = reference.seeded.sample(one.asnumpy().transpose(0, 2, 3, 1))
        assert np.abs(ours - reference.expected[f"{name}_sample"]).max() < 2e-5, name


def test_outputs(reference):
    expected, logits, deltas = reference.expected, reference.logits.asnumpy()[0], reference.deltas.asnumpy()[0]
    assert np.abs(logits[expected["rows"]] - expected["class_logits_rows"]).max() < 5e-5
    assert np.abs(logits.max(1) - expected["class_logits_max"]).max() < 5e-5
    assert np.abs(logits.sum(1) - expected["class_logits_sum"]).max() < 5e-4
    assert (logits.argmax(1) == expected["class_logits_argmax"]).mean() > 0.999
    assert np.abs(deltas - expected["box_encodings"][:, X_FIRST]).max() < 5e-5


def test_detections(reference):
    """All their rows: NMS of each class on boxes that are not clipped to the image."""
    detector = Detector(reference.model, min_score=1e-8, nms_threshold=0.6, topk_candidates=1000, max_boxes=100)
    box, score, label, count = (output.asnumpy()[0] for output in detector.finish(reference.logits, reference.deltas))
    expected = reference.expected
    assert count == 100 == len(expected["det_scores"])
    assert np.abs(score - expected["det_scores"]).max() < 1e-5
    theirs = expected["det_boxes_yxyx"][:, X_FIRST]
    for row, other in enumerate(expected["det_classes_from_0"] + 1):  # near scores may change places
        same = (label == other) & (np.abs(score - expected["det_scores"][row]) < 1e-5)
        assert (same & (np.abs(box - theirs[row]).max(1) < 1e-5)).any(), f"row {row}"


def test_decoded_boxes(reference):
    rows = reference.expected["decoded_rows"]
    detector = Detector(reference.model)
    boxes = detector.decode(reference.deltas[:, ms.Tensor(rows)], ms.Tensor(rows[None])).asnumpy()[0]
    theirs = reference.expected["decoded_boxes_yxyx_rows"][:, X_FIRST]
    assert np.abs(boxes - theirs.clip(detector.low, detector.high)).max() < 1e-5
