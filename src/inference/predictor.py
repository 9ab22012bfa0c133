"""One way to get boxes out of a model, whether it is in memory, in a checkpoint or in an exported file."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import mindspore as ms
import numpy as np

from src.data.resize import resize
from src.errors import OptionError
from src.inference.description import (
    FIXED_FIELDS,
    SHOWN_FIELDS,
    THRESHOLDS,
    Description,
    build_described,
    describe,
    detector_arguments,
    shown_fields,
)
from src.inference.exported import OPENERS, open_exported, run_cell
from src.inference.found import Detections
from src.inference.tiles import WHOLE, cut, merge
from src.machine.compile_cache import use_cache
from src.models.detector import Detector
from src.models.outside import is_outside, may_run, same_model
from src.models.ssd import BUILDERS, Model
from src.weights.class_outputs import CHANNELS
from src.weights.files import WeightFile, open_weights
from src.weights.load import OURS, load_all
from src.weights.names import published_thresholds
from src.weights.recognise import import_command, recognise, source_facts, words_of_source

Say = Callable[[str], None]  # prints a line


class Predictor:
    """Images in, detections out, in batches of a fixed size (the graph is compiled for it; a short batch is padded).

    detect_batch: function images [batch_size, S, S, 3] -> the arrays of a Detector. meta: what the model says about
    itself; classes: names without background, label l is classes[l - 1]; resize: how images are brought to S x S.
    """

    def __init__(self, detect_batch: Callable, batch_size: int, meta: Description):
        self.detect_batch, self.batch_size, self.meta = detect_batch, batch_size, meta
        self.image_size, self.classes = meta["image_size"], meta["classes"]
        self.resize = meta.get("resize", "bilinear")

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """images [n, S, S, 3] uint8 RGB, n <= batch_size -> boxes [n, K, 4], scores and labels [n, K], count [n]."""
        padded = np.pad(images, ((0, self.batch_size - len(images)), (0, 0), (0, 0), (0, 0)))
        return [output[:len(images)] for output in self.detect_batch(padded)]

    def detect(self, image: np.ndarray, windows: np.ndarray = WHOLE) -> Detections:
        """What is in one RGB image [H, W, 3] of any size, seen in windows [n, 4] of it, as of tiles.py."""
        squares, exact = self.prepare(image, windows)
        return merge(self.detect_squares(squares), exact, self.meta)

    def prepare(self, image: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The windows [n, 4] of an image as the network takes them, [n, S, S, 3], and where these exactly are."""
        parts, exact = cut(image, windows)
        return np.stack([resize(part, self.image_size, self.resize) for part in parts]), exact

    def detect_squares(self, squares: np.ndarray) -> list[Detections]:
        """What is in each of squares [n, S, S, 3], any number of them."""
        found = []
        for start in range(0, len(squares), self.batch_size):
            boxes, scores, labels, counts = self(squares[start:start + self.batch_size])
            found += [Detections(boxes[row, :count], scores[row, :count], labels[row, :count])
                      for row, count in enumerate(counts)]
        return found


def from_model(model: Model, classes: Sequence[str], *, thresholds: Mapping, batch_size: int) -> Predictor:
    """A Predictor that shares the network of a Model. thresholds: a mapping with ADJUSTABLE_FIELDS."""
    detector = Detector(model, **detector_arguments(thresholds))
    return Predictor(partial(run_cell, detector), batch_size, describe(model, classes, thresholds))


def load_predictor(path: str, *, batch_size: int, defaults: Mapping, overrides: Mapping,
                   compile_cache: str = "", say: Say | None = None) -> Predictor:
    """A Predictor from a .ckpt, or from a .mindir or .onnx with its .json beside it. Raises OptionError, DataError.

    defaults, overrides, say: as for load_model. compile_cache: folder for compiled graphs, "" for none.
    """
    if not path:
        raise OptionError("--checkpoint_file_path is empty; give a .ckpt, a .mindir or an .onnx")
    if os.path.splitext(path)[1] in OPENERS:
        predict = load_exported(path, batch_size)
        refuse_contradiction(path, predict.meta, overrides, fields=(*FIXED_FIELDS, *THRESHOLDS))
        predict.resize = predict.meta["resize"] = overrides.get("resize", predict.resize)  # happens before the graph
        predict.meta.update(shown_fields(predict.meta, defaults, overrides=overrides))  # and this after it
        return predict
    model, meta = load_model(path, defaults=defaults, overrides=overrides, say=say)
    predict = from_model(model, meta["classes"], thresholds=meta, batch_size=batch_size)
    facts = {name: value for name, value in meta.items() if name not in SHOWN_FIELDS}  # what is compiled
    facts |= {"batch_size": batch_size, "device": ms.get_context("device_target")}
    use_cache(compile_cache, facts, model.network.get_parameters())
    return predict


def load_exported(path: str, batch_size: int = 1) -> Predictor:
    """A Predictor from an exported file. batch_size: of a file that takes any number of images."""
    detect_batch, meta = open_exported(path)
    return Predictor(detect_batch, meta["batch_size"] or batch_size, meta)


def load_model(path: str, *, defaults: Mapping, overrides: Mapping,
               say: Say | None = None) -> tuple[Model, Description]:
    """The Model of a weight file with its weights, and its Description.

    defaults: FIXED_FIELDS and ADJUSTABLE_FIELDS where the file does not say them. overrides: what the user typed, which
    must agree with FIXED_FIELDS of the file and wins for the rest. A foreign file is recognised by its tensors; its
    thresholds are those that its source evaluates with, and say(text) gets a line on what it was taken for.
    """
    if path.endswith(tuple(OPENERS)):
        raise OptionError(f"'{path}' is an exported file; give the .ckpt that it was made from")
    file = open_weights(path)
    meta = file.meta or recognised(file, defaults, overrides=overrides)
    refuse_contradiction(path, meta, overrides, fields=FIXED_FIELDS)
    fixed = {name: meta.get(name, defaults[name]) for name in FIXED_FIELDS}
    if is_outside(fixed["model"]):
        fixed["model"] = overrides.get("model") or found_outside(path, fixed["model"])
    if not fixed["classes"]:
        raise classes_missing(file, overrides.get("model", ""))
    model = build_described({**meta, **fixed})
    try:
        report = load_all(model.network, file, model.name)
    except OptionError as error:
        command = None if file.meta else import_command(file)
        if command is None:
            raise
        raise OptionError(f"{error}; the file fits by {command}") from error
    if say and report.source != OURS:
        say(words_of_source(file, model, report))
    known = file.meta if report.source == OURS else published_thresholds(report.source)
    thresholds = {**defaults, **known, **overrides, **shown_fields(known, defaults, overrides=overrides)}
    return model, describe(model, fixed["classes"], thresholds)


def recognised(file: WeightFile, defaults: Mapping, *, overrides: Mapping) -> Description:
    """What a foreign file with all of a detector is: its anchors and, where no classes are given, model and classes.

    {} where it is no such file, or its classes are not known by their number. Of a typed model only that is tried.
    """
    given = defaults["classes"]
    models = [defaults["model"]] if given or "model" in overrides else list(BUILDERS)
    found = recognise(file, models)
    classes = given or (CHANNELS.get(found.classes + 1) if found else ())
    if not found or not classes:
        return {}
    return {"model": found.model, "classes": list(classes), **source_facts(found.source, found.model)}


def found_outside(path: str, name: str) -> str:
    """The outside model that the weight file at `path` says it is of. Raises OptionError where its code may not run."""
    file, _, builder = name.rpartition(":")
    if may_run(name) and os.path.isfile(file):
        return name
    place = file if os.path.isfile(file) else f"FOLDER/{os.path.basename(file)}"
    raise OptionError(f"'{path}' is of a model outside this repository, built by code in '{file}'; if you trust that "
                      f"code, add --model={place}:{builder}")


def classes_missing(file: WeightFile, typed: str) -> OptionError:
    """The error of a weight file that does not say its classes. typed: --model, or ""."""
    found = recognise(file)
    if found and typed not in ("", found.model) and found.classes + 1 in CHANNELS:
        return OptionError(f"'{file.path}' is {found.words()}, but --model={typed}; leave the option out")
    command = import_command(file)
    if command:
        remedy = f"make a checkpoint of it by {command} and give that, or add the --model named there and --classes"
    else:
        remedy = ("give --classes=name,name,... or --classes=coco (and --model), or make a checkpoint of it by "
                  "import_weights.py; a backbone alone is for --pre_trained")
    return OptionError(f"'{file.path}' does not say its classes; {remedy}")


def refuse_contradiction(path: str, meta: Description, overrides: Mapping, *, fields: Iterable[str]) -> None:
    """Raises OptionError where a typed option (overrides) contradicts what the file says about itself."""
    for name in fields:
        if name not in overrides or name not in meta or overrides[name] == meta[name]:
            continue
        if name == "model" and same_model(overrides[name], meta[name]):
            continue
        if name == "image_size" and overrides[name] == 0:  # the size that the model is published for
            continue
        typed, held = overrides[name], meta[name]
        if name == "classes":
            typed, held = ",".join(typed)[:100], ",".join(held)[:100]
        remedy = " or export it again" if name in THRESHOLDS else ""
        raise OptionError(f"--{name}={typed}, but '{path}' holds {name} {held}; leave the option out{remedy}")
