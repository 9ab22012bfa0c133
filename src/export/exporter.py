"""Exports a detector as MindIR or ONNX, and keeps the file only after it computed the same as the network."""
from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator

import numpy as np

from src.errors import EnvironmentFault, OptionError
from src.export.mindir import write_mindir
from src.export.onnx import write_onnx
from src.export.trial import Trial, require_finite
from src.files import folder_aside, write_atomic
from src.inference.description import DETECTIONS, FORMATS, RAW, RESIZES, Description, detector_arguments, sidecar_of
from src.inference.exported import run_cell
from src.machine.compat import refuse_old
from src.models.detector import RawDetector
from src.models.fold import fold_norms
from src.models.ssd import Model

WRITERS = {".mindir": write_mindir, ".onnx": write_onnx}


def export_model(model: Model, meta: Description, path: str, *, batch_size: int, raw: bool,
                 quantize: Callable | None = None) -> dict:
    """Writes path (.mindir or .onnx) and its .json. Returns the content of the .json.

    model: it cannot be trained afterwards, for its norms are folded (models/fold.py). batch_size: images per call, 0:
    any number. raw: logits and deltas, not detections. quantize: of quantize.py, for ONNX. Raises SSDError when file
    and network give different outputs, NotFiniteError for NaN or infinity.
    """
    ending = os.path.splitext(path)[1]
    if batch_size == 0 or ending == ".onnx":
        refuse_old("--export_batch_size=0" if batch_size == 0 else "--file_format=ONNX")
    shape = batch_size or 2, model.image_size, model.image_size, 3  # a file for any number is tried with one and two
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    expected = require_finite(run_cell(RawDetector(model), images))
    fold_norms(model.network)
    trial = Trial(model, detector_arguments(meta), batch_size, raw, quantize, images, expected)
    target = os.path.abspath(path)
    try:
        with file_aside(target) as aside:
            outputs, difference, graph = WRITERS[ending](trial, aside)
            facts = {**meta, "raw": raw, "largest_difference": difference, **graph, "format": FORMATS[ending],
                     "batch_size": batch_size, **describe_arrays(trial, outputs, RESIZES[meta["resize"]])}
            write_atomic(sidecar_of(target), json.dumps(facts, indent=1).encode())
            os.chmod(aside, 0o644)  # MindSpore lets only the owner read
            os.replace(aside, target)
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())[:200]
        raise EnvironmentFault(f"'{path}' could not be written: {reason}") from error
    return facts


def describe_arrays(trial: Trial, outputs: list[np.ndarray], resizing: str) -> dict:
    """Shapes and types of inputs and outputs, for the .json; the first side is None for any number of images."""
    arrays = dict(zip(("images", *(RAW if trial.raw else DETECTIONS)), (trial.images, *outputs)))
    about = {name: {"shape": [trial.batch_size or None, *array.shape[1:]], "dtype": str(array.dtype)}
             for name, array in arrays.items()}
    images = {**about.pop("images"), "layout": f"NHWC, RGB, 0..255, {resizing}"}
    return {"outputs": about, "inputs": {"images": images}}


@contextlib.contextmanager
def file_aside(path: str) -> Iterator[str]:
    """The name of a new file for path (absolute) in the working folder, which lies beside path until the end.

    MindSpore's exports refuse spaces and all letters but a to z in a path, and leave files when they fail.
    """
    before = os.getcwd()
    with folder_aside(path) as folder:
        os.chdir(folder)
        try:
            yield f"aside{os.path.splitext(path)[1]}"
        finally:
            os.chdir(before)


def refuse_neighbour(path: str, facts: dict) -> None:
    """Raises OptionError where a file in the other format shares the .json beside path, and its facts would be lost.

    The same facts (a second format of one checkpoint) may be written again, by another version of this repository too.
    """
    stem, ending = os.path.splitext(path)
    others = [stem + other for other in FORMATS if other != ending and os.path.isfile(stem + other)]
    if not others:
        return
    try:
        with open(sidecar_of(path), encoding="utf-8") as file:
            held = dict(json.load(file))
    except (OSError, ValueError, TypeError):
        return  # there is none, or it describes nothing
    for key, value in facts.items():
        if key != "version" and key in held and held[key] != value:
            raise OptionError(f"'{sidecar_of(path)}' describes '{others[0]}' with {key} {str(held[key])[:100]}, not "
                              f"{str(value)[:100]}; choose another --file_name, or remove '{others[0]}'")
