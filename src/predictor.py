"""One way to get boxes out of a model, whether it is in memory, in a checkpoint or in an exported file."""
import json
import os
from dataclasses import replace
from functools import partial

import mindspore as ms
import numpy as np
from google.protobuf.message import DecodeError
from mindspore.train.mind_ir_pb2 import ModelProto

from src import checkpoint
from src.compile_cache import use_cache
from src.data.transforms import resize
from src.detector import Detector
from src.errors import DataError, OptionError
from src.exporter import THRESHOLDS, open_mindir, run_cell, sidecar_of
from src.models.ssd import build_model
from src.onnx_session import open_session
from src.pretrained import import_command, load_whole
from src.weights import published_thresholds

FIXED = ("model", "image_size", "width", "classes")  # what the weights are made for
FREE = (*THRESHOLDS, "resize")  # what whoever evaluates may choose


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


def describe(model, classes, thresholds, **more):
    """What a checkpoint or an exported file says about itself, JSON-able. thresholds: a dict with FREE."""
    return {"model": model.name, "image_size": model.image_size, "width": model.width, "classes": list(classes),
            "mean": list(model.mean), "std": list(model.std), "score": model.score,
            **{name: thresholds[name] for name in FREE}, "mindspore": ms.__version__, **more}


def from_model(model, classes, thresholds, batch_size):
    """A Predictor that shares the network of a Model. thresholds: dict of FREE."""
    detector = Detector(model, *(thresholds[name] for name in THRESHOLDS))
    return Predictor(partial(run_cell, detector), batch_size, describe(model, classes, thresholds))


def load_model(path, options):
    """The Model of a checkpoint with its weights, and its description.

    A checkpoint of ours knows model, size, width, classes and thresholds; what is typed on the command line wins for
    thresholds and must agree for the rest. Any other file of weights takes model and classes from the options, and its
    thresholds are those its source evaluates with.
    """
    if path.endswith(tuple(READERS)):
        raise OptionError(f"'{path}' is an exported file; give the .ckpt that it was made from")
    meta = checkpoint.load(path)[1] if path.endswith(".ckpt") else {}
    refuse_other(path, meta, options, FIXED)
    facts = {key: meta.get(key, options[key]) for key in FIXED}
    if not facts["classes"]:
        command = import_command(path)  # raises where it is no file of weights
        raise OptionError(f"'{path}' does not say its classes; " + (
            f"make a checkpoint of it by {command} and give that, or add the --model named there and --classes"
            if command else
            "give --classes=name,name,... or --classes=coco (and --model), or make a checkpoint of it by "
            "import_weights.py; a backbone alone is for --pre_trained"))
    model = build_model(facts["model"], len(facts["classes"]) + 1, facts["image_size"], facts["width"])
    model = replace(model, score=meta.get("score", model.score))
    source = load_foreign(model, path) if not meta else load_whole(model.network, path, model.name)
    known = meta if source == "ours" else published_thresholds(source)
    held = {key: known[key] for key in FREE if key in known and key not in options.typed}
    return model, describe(model, facts["classes"], {**options, **held})


def load_foreign(model, path):
    """load_whole of a file that does not say its model. Its OptionError names the command for what the file holds."""
    try:
        return load_whole(model.network, path, model.name)
    except OptionError as error:
        command = import_command(path)
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


def refuse_version(path, ending, version):
    """Raises OptionError for a .mindir of another great version of MindSpore, which cannot be run by this."""
    if ending == ".mindir" and version.split(".")[0] != ms.__version__.split(".")[0]:
        raise OptionError(f"'{path}' was exported by MindSpore {version}, this is {ms.__version__}; export it with "
                          "this one from its checkpoint")


def read_mindir(path, shape):
    """The graph of a .mindir as open_mindir gives it; a graph for one number of images checks that itself."""
    with open(path, "rb") as file:
        ModelProto.FromString(file.read())  # ms.load would print lines of its own about a damaged file
    return open_mindir(path, shape)


def read_onnx(path, shape):
    """The graph of an .onnx, run by onnxruntime on the CPU. Raises ValueError where its input is not of that shape."""
    session = open_session(path)
    taken = [None if isinstance(side, str) else side for side in session.get_inputs()[0].shape]
    if taken != shape:
        raise ValueError(f"the file takes images {taken}, the .json says {shape}")
    return lambda images: session.run(None, {"images": images})


READERS = {".mindir": read_mindir, ".onnx": read_onnx}
