"""One way to get boxes out of a model, whether it is in memory, in a checkpoint or in an exported file."""
import json
import os
from dataclasses import replace
from functools import partial

import numpy as np
from google.protobuf.message import DecodeError

from src.data.transforms import resize
from src.errors import DataError, OptionError
from src.inference.description import FIXED, FREE, THRESHOLDS, describe, detector_arguments, sidecar_of
from src.inference.exported import READERS, refuse_version, run_cell
from src.machine.compile_cache import use_cache
from src.models.detector import Detector
from src.models.ssd import build_model
from src.weights.files import WeightFile, open_weights
from src.weights.load import OURS, import_command, load_all
from src.weights.names import published_thresholds


class Predictor:
    """Images in, detections out, in batches of a fixed size (the graph is compiled for it; a short batch is padded).

    detect_batch: function images [batch_size, S, S, 3] -> the arrays of a Detector. meta: what the model says of
    itself; classes: names without background, label l is classes[l - 1].
    """

    def __init__(self, detect_batch, batch_size, meta):
        self.detect_batch, self.batch_size, self.meta = detect_batch, batch_size, meta
        self.image_size, self.classes = meta["image_size"], meta["classes"]
        self.resize = meta.get("resize", "bilinear")

    def __call__(self, images):
        """images [n, S, S, 3] uint8 RGB, n <= batch_size -> boxes [n, K, 4], scores and labels [n, K], count [n]."""
        padded = np.pad(images, ((0, self.batch_size - len(images)), (0, 0), (0, 0), (0, 0)))
        return [output[:len(images)] for output in self.detect_batch(padded)]

    def detect(self, image):
        """One RGB image [H, W, 3] of any size -> boxes [n, 4] (fractions), scores [n], labels [n]."""
        boxes, scores, labels, count = [one[0] for one in self(resize(image, self.image_size, self.resize)[None])]
        return boxes[:count], scores[:count], labels[:count]


def from_model(model, classes, thresholds, batch_size):
    """A Predictor that shares the network of a Model. thresholds: dict of FREE."""
    detector = Detector(model, **detector_arguments(thresholds))
    return Predictor(partial(run_cell, detector), batch_size, describe(model, classes, thresholds))


def load_model(path, options):
    """The Model of a checkpoint with its weights, and its description.

    A checkpoint of ours knows model, size, width, classes and thresholds; what is typed on the command line wins for
    thresholds and must agree for the rest. Any other file of weights takes model and classes from the options, and its
    thresholds are those its source evaluates with.
    """
    if path.endswith(tuple(READERS)):
        raise OptionError(f"'{path}' is an exported file; give the .ckpt that it was made from")
    file = open_weights(path)
    meta = file.meta
    refuse_other(path, meta, options, FIXED)
    facts = {key: meta.get(key, options[key]) for key in FIXED}
    if not facts["classes"]:
        command = import_command(file)
        raise OptionError(f"'{path}' does not say its classes; " + (
            f"make a checkpoint of it by {command} and give that, or add the --model named there and --classes"
            if command else
            "give --classes=name,name,... or --classes=coco (and --model), or make a checkpoint of it by "
            "import_weights.py; a backbone alone is for --pre_trained"))
    model = build_model(facts["model"], len(facts["classes"]) + 1, image_size=facts["image_size"], width=facts["width"])
    model = replace(model, score=meta.get("score", model.score))
    source = load_all(model.network, file, model.name) if meta else load_foreign(model, file)
    known = meta if source == OURS else published_thresholds(source)
    held = {key: known[key] for key in FREE if key in known and key not in options.typed}
    return model, describe(model, facts["classes"], {**options, **held})


def load_foreign(model, file: WeightFile) -> str:
    """load_all of a file that does not say its model. Its OptionError names the command for what the file holds."""
    try:
        return load_all(model.network, file, model.name)
    except OptionError as error:
        command = import_command(file)
        if command is None:
            raise
        raise OptionError(f"{error}; the file fits by {command}") from error


def load_predictor(path, options):
    """A Predictor from a .ckpt or from a .mindir or .onnx with its .json beside it. Raises OptionError, DataError."""
    if not path:
        raise OptionError("--checkpoint_file_path is empty; give a .ckpt, a .mindir or an .onnx")
    if os.path.splitext(path)[1] in READERS:
        predict = load_exported(path, options.eval_batch_size)
        refuse_other(path, predict.meta, options, (*FIXED, *THRESHOLDS))
        if "resize" in options.typed:  # happens before the graph
            predict.resize = options.resize
        return predict
    model, meta = load_model(path, options)
    predict = from_model(model, meta["classes"], meta, options.eval_batch_size)
    facts = {**predict.meta, "batch_size": options.eval_batch_size, "device": options.device_target}
    use_cache(options.compile_cache, facts, model.network.get_parameters())
    return predict


def refuse_other(path, meta, options, keys):
    """Raises OptionError where a typed option contradicts what the file says of itself; meta: that, {} if nothing."""
    for key in keys:
        value = options[key]
        if key not in options.typed or key not in meta or value == meta[key] or (key, value) == ("image_size", 0):
            continue
        typed, held = (",".join(one)[:100] if key == "classes" else one for one in (options[key], meta[key]))
        remedy = " or export it anew" if key in THRESHOLDS else ""
        raise OptionError(f"--{key}={typed}, but '{path}' holds {key} {held}; leave the option out{remedy}")


def load_exported(path, batch_size=1):
    """A Predictor from an exported file. batch_size: of one that takes any number of images."""
    sidecar, ending = sidecar_of(path), os.path.splitext(path)[1]
    for name in (path, sidecar):
        if not os.path.isfile(name):
            raise OptionError(f"'{name}' is not a file; export.py writes a {ending} and a .json beside it")
    try:
        with open(sidecar, encoding="utf-8") as file:
            meta = json.load(file)
        refuse_version(path, ending, meta["mindspore"])
        detect_batch = READERS[ending](path, meta["inputs"]["images"]["shape"])
    except (ValueError, TypeError, KeyError, RuntimeError, DecodeError) as error:
        raise DataError(f"'{path}' or its .json is damaged: {' '.join(str(error).split())[:150]}") from error
    if meta["raw"]:
        raise OptionError(f"'{path}' was exported with --raw=True and gives logits, not boxes; export it without")
    return Predictor(detect_batch, meta["batch_size"] or batch_size, meta)
