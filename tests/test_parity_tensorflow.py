"""Against real outputs of TensorFlow's Object Detection API with seeded weights, imported from checkpoints of its kind.

Its index files are real; a checkpoint of TensorFlow 2 gets an object graph written here, whose bytes are not among the
parity data.
"""
import json
import os
import shutil

import mindspore as ms
import numpy as np
import pytest
from exact import use_float64
from parity import load_folder
from weight_writers import save_bundle

from src.classes import COCO_CATEGORY_IDS
from src.data.resize import resize
from src.models.detector import Detector
from src.models.layers import Normalize
from src.models.ssd import build_model
from src.weights.files import open_weights
from src.weights.formats.crc32c import masked_crc32c
from src.weights.formats.protobuf import read_fields
from src.weights.formats.tensor_bundle import read_table, to_entry
from src.weights.load import assign, translate_weights
from src.weights.names import convert_weights, guess_source

MODELS = {"ssd_mobilenet_v2_fpnlite_320": "ssd_mobilenet_v2_fpnlite",
          "ssd_mobilenet_v2_fpnlite_640": "ssd_mobilenet_v2_fpnlite",
          "ssd_mobilenet_v2_320": "ssd300_mobilenet_v2_tf2",
          "ssd_mobilenet_v1_fpn_640": "ssd_mobilenet_v1_fpn_tf2", "ssd_resnet50_v1_fpn_640": "ssd_resnet50_fpn_tf2",
          "ssd_mobilenet_v1_fpn_640_tf1": "ssd_mobilenet_v1_fpn_tf1",
          "ssd_resnet50_v1_fpn_640_tf1": "ssd_resnet50_fpn_tf1"}
X_FIRST = [1, 0, 3, 2]  # theirs is y first
CLASSES = 91            # theirs have the numbers of COCO's categories, with gaps
BYTES = {"float32": 4, "int64": 8}
# Our networks computed in float64 are as far from their float32 as noise.json says: they are the same networks. In
# float32 we differ from them by the rounding of both, which lies where each adds up in another order.
SAME, ROUNDED = 1.001, 3.0  # times the noise


def index_entries(folder):
    """The entries of numbers in the real index of a folder, by key."""
    path = next(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".index"))
    with open(path, "rb") as file:
        entries = {key: to_entry(key, read_fields(value)) for key, value in read_table(file.read()) if key}
    return path, {key: entry for key, entry in entries.items() if entry.dtype in (1, 9)}


def write_checkpoint(folder, arrays, names, place):
    """A checkpoint at `place`: their index with a data file for TensorFlow 1, else one with an object graph."""
    path, entries = index_entries(folder)
    assert {key: (entry.shape, entry.checksum) for key, entry in entries.items()} == {
        key: (list(array.shape), masked_crc32c(array.tobytes())) for key, array in arrays.items()}
    if names:
        return save_bundle(place, arrays, [names[key] for key in sorted(arrays)])
    shutil.copyfile(path, f"{place}.index")
    with open(f"{place}.data-00000-of-00001", "wb") as file:
        for key, entry in entries.items():
            file.seek(entry.offset)
            file.write(arrays[key].tobytes())
    return str(place)


class Reference:
    """One folder of the parity data, the network filled from its checkpoint, and all it computes."""

    def __init__(self, folder, root, place):
        self.seeded, self.meta, self.expected = load_folder(root, folder)
        with open(os.path.join(root, "noise.json"), encoding="utf-8") as file:
            self.noise = json.load(file)["float64_restatement"][folder]
        arrays, names = self.read_arrays()
        self.file = open_weights(write_checkpoint(os.path.join(root, folder), arrays, names, place / "ckpt-0"))
        self.name, self.size = MODELS[folder], self.meta["image_size"]
        self.model = build_model(self.name, CLASSES, image_size=self.size)
        self.report = assign(self.model.network, translate_weights(self.model.network, self.file))
        self.model.network.set_train(False)
        self.image = self.seeded.image(self.size, self.size)[None]
        self.outputs = self.run(Normalize(self.model.mean, self.model.std)(ms.Tensor(self.image)))
        self.logits, self.deltas = self.outputs["logits"], self.outputs["boxes"]

    def run(self, pixels):
        """All that the network makes of normalised pixels, by the names of the parity data."""
        network = self.model.network
        features = network.backbone(pixels)
        levels = network.neck(features)
        first = 0 if len(features) == 2 else 1  # theirs begin at stride 4, of which a pyramid takes nothing
        logits, deltas = network.head(levels)
        return {"preprocessed": pixels, **{f"backbone_{level + first}": one for level, one in enumerate(features)},
                **{f"pyramid_{level}": one for level, one in enumerate(levels)}, "logits": logits, "boxes": deltas}

    def run_exactly(self):
        """The same in float64."""
        pixels = (self.image - np.array(self.model.mean)) / np.array(self.model.std)
        with pytest.MonkeyPatch.context() as patch:
            use_float64(patch)
            return self.run(ms.Tensor(pixels.transpose(0, 3, 1, 2), ms.float64))

    def check(self, outputs, limit):
        """Whether outputs are theirs but for `limit` times the noise of each."""
        for name, ours, theirs in self.pairs(outputs):
            apart = np.abs(ours - theirs).max()
            assert apart <= limit * self.noise[name] + 1e-9, f"{name}: {apart / self.noise[name]} times the noise"

    def pairs(self, outputs):
        """Name in noise.json, ours and theirs of all that the parity data hold."""
        expected, rows = self.expected, self.expected["rows"]
        for name, one in outputs.items():
            if f"{name}_sample" in expected and name in self.noise:
                yield name, self.seeded.sample(one.asnumpy().transpose(0, 2, 3, 1)), expected[f"{name}_sample"]
        logits, deltas = (outputs[name].asnumpy()[0] for name in ("logits", "boxes"))
        assert np.isfinite(logits).all() and np.isfinite(deltas).all()
        yield "logits", logits[rows], expected["class_logits_rows"]
        yield "logit sums", logits.sum(1), expected["class_logits_sum"]
        if "box_encodings" in expected:
            yield "boxes", deltas, expected["box_encodings"][:, X_FIRST]
            yield "logit max", logits.max(1), expected["class_logits_max"]
        else:
            yield "boxes", deltas[rows], expected["box_encodings_rows"][:, X_FIRST]
            yield "box sums", deltas.sum(1), expected["box_encodings_sum"]

    def read_arrays(self):
        """Their arrays by key, and the names of the variables of TensorFlow 2."""
        draw = self.seeded.weight_for
        if "variables" in self.meta:
            arrays = {one["name"]: draw(one["tf2_key"], one["shape"], one["factor"], one["offset"])
                      for one in self.meta["variables"]}
            return {**arrays, "global_step": np.array(25000)}, {}
        entries = [entry for entry in self.meta["checkpoint_keys"] if entry["full_name"]]
        arrays = {one["key"]: np.array(2) if one["kind"] == "bookkeeping" else
                  draw(one["key"], one["shape"], one["factor"], one["offset"]) for one in entries}
        return arrays, {one["key"]: one["full_name"] for one in entries}


@pytest.fixture(scope="module", params=[pytest.param(folder, marks=pytest.mark.slow) if "640" in folder else folder
                                        for folder in MODELS])
def reference(request, shared, tmp_path_factory):
    ms.set_context(mode=ms.PYNATIVE_MODE)  # what lies between the parts is looked at
    place = tmp_path_factory.mktemp("checkpoint")
    reference = Reference(request.param, shared("..", "parity", "tensorflow"), place)
    shutil.rmtree(place)
    yield reference
    ms.set_context(mode=ms.GRAPH_MODE)


def test_all_of_the_checkpoint_is_used(reference):
    assert reference.report.complete and not reference.report.unused
    assert reference.report.source == ("tensorflow1" if reference.name.endswith("_tf1") else "tensorflow")
    if "parameters" in reference.meta:
        parameters = list(reference.model.network.get_parameters())
        assert sum(one.size for one in parameters) == reference.meta["parameters"]
        assert sum(one.size for one in parameters if one.requires_grad) == reference.meta["trainable_parameters"]


def test_the_network_in_exact_numbers_is_theirs(reference):
    reference.check(reference.run_exactly(), SAME)


def test_maps_and_outputs(reference):
    reference.check(reference.outputs, ROUNDED)
    if "class_logits_argmax" in reference.expected:
        found = reference.logits.asnumpy()[0].argmax(1)
        assert (found == reference.expected["class_logits_argmax"]).mean() > 0.999


def test_anchors(reference):
    if "anchors_cyxhw" in reference.expected:  # those of TensorFlow 1 are the same
        theirs = reference.expected["anchors_cyxhw"][:, X_FIRST]
        assert np.abs(reference.model.anchors - theirs).max() < 1e-6


def test_detections(reference):
    """All their rows: NMS of each class on boxes that are not clipped to the image."""
    detector = Detector(reference.model, min_score=1e-8, nms_threshold=0.6, topk_candidates=1000, max_boxes=100)
    box, score, label, count = (output.asnumpy()[0] for output in detector.finish(reference.logits, reference.deltas))
    expected = reference.expected
    near = max(ROUNDED * reference.noise["logits"], 1e-5)
    assert count == 100 == len(expected["det_scores"])
    assert np.abs(score - expected["det_scores"]).max() < near
    theirs = expected["det_boxes_yxyx"][:, X_FIRST]
    for row, other in enumerate(expected["det_classes_from_0"] + 1):  # near scores may change places
        same = (label == other) & (np.abs(score - expected["det_scores"][row]) < near)
        assert (same & (np.abs(box - theirs[row]).max(1) < near)).any(), f"row {row}"


def test_decoded_boxes(reference):
    if "decoded_rows" in reference.expected:
        rows = reference.expected["decoded_rows"]
        detector = Detector(reference.model)
        boxes = detector.decode(reference.deltas[:, ms.Tensor(rows)], ms.Tensor(rows[None])).asnumpy()[0]
        theirs = reference.expected["decoded_boxes_yxyx_rows"][:, X_FIRST]
        apart = np.abs(boxes - theirs.clip(detector.low, detector.high)).max()
        assert apart <= ROUNDED * reference.noise["decoded"]


@pytest.mark.parametrize("folder", [folder for folder in MODELS if not folder.endswith("_tf1")])
def test_pixels_are_resized_as_theirs(folder, shared):
    """Of noise, on which any other rule is far off; theirs are not rounded to whole numbers."""
    seeded, meta, expected = load_folder(shared("..", "parity", "tensorflow"), folder)
    size = meta["image_size"]
    model = build_model(MODELS[folder], 2, image_size=size)
    for method, mean in (("tensorflow", 0.35), ("bilinear", 20)):
        ours = (resize(seeded.image(375, 500, 6), size, method) - np.array(model.mean)) / model.std
        apart = np.abs(seeded.sample(ours, 2048) - expected["resized_sample"]) * model.std[0]
        assert mean / 10 < apart.mean() < mean, method


def test_the_80_classes_of_coco_are_chosen(reference):
    kept = [0, *COCO_CATEGORY_IDS]
    shapes = {parameter.name: parameter.shape for parameter in
              build_model(reference.name, len(kept), image_size=reference.size).network.get_parameters()}
    assert guess_source(reference.file.arrays, shapes) == reference.report.source
    ours, _ = convert_weights(reference.report.source, reference.file.arrays, shapes)
    assert {name: array.shape for name, array in ours.items()} == shapes
    theirs = next(array for name, array in reference.file.arrays.items()
                  if "Class" in name and name.endswith(("Predictor/bias", "Predictor/biases")))
    bias = next(array for name, array in ours.items() if "head.cls" in name and name.endswith("bias"))
    assert np.array_equal(bias.reshape(-1, len(kept)), theirs.reshape(-1, CLASSES)[:, kept])


def test_a_saved_model_names_the_same_variables(shared, tmp_path):
    """By numbers as keys; its object graph says what they are."""
    folder = "ssd_mobilenet_v2_320"
    seeded, meta, _ = load_folder(shared("..", "parity", "tensorflow"), folder)
    with open(shared("..", "parity", "tensorflow", folder, "saved_model_keys.json"), encoding="utf-8") as file:
        keys = {entry["key"]: entry["full_name"] for entry in json.load(file) if entry["full_name"]}
    by_name = {entry["full_name"]: seeded.weight_for(entry["key"], entry["shape"], entry["factor"], entry["offset"])
               for entry in meta["checkpoint_keys"] if entry["kind"] == "weight"}
    arrays = {key: by_name[name] for key, name in keys.items()}
    save_bundle(tmp_path / "saved_model" / "variables" / "variables", arrays, [keys[key] for key in sorted(keys)])
    file = open_weights(str(tmp_path))
    network = build_model(MODELS[folder], CLASSES).network
    assert file.arrays.keys() == by_name.keys() and assign(network, translate_weights(network, file)).complete


def test_no_momentum_is_taken_for_a_weight(reference):
    slots = {"tensorflow": "SGD/{}/momentum", "tensorflow1": "{}/Momentum"}[reference.report.source]
    arrays = {slots.format(name): array for name, array in reference.file.arrays.items() if array.ndim}
    ours, left = convert_weights(reference.report.source, arrays, {})
    assert not ours and left == list(arrays)
