"""Reads files of weights of any format: recognised by content, opened once, and no code in them is executed.

A new format is a file in formats/ with a function that reads it, and a line in WEIGHT_FORMATS.
"""
from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from src.errors import DataError, OptionError
from src.weights.formats import caffe, frozen_graph, numpy_zip, pytorch, safetensors, tensor_bundle, tfjs


class WeightFile(NamedTuple):
    """What a file of weights holds, the same for every format."""
    path: str                      # as it was given
    kind: str                      # a kind of WEIGHT_FORMATS, or "mindspore"
    arrays: dict[str, np.ndarray]  # by the names that the file has
    meta: dict                     # what a checkpoint of this repository says of itself, {} for other files


class WeightFormat(NamedTuple):
    """A foreign format, recognised by a magic number.

    Several formats may begin with the same magic number: `read` returns None where the file is of another of them.
    """
    kind: str
    title: str     # for messages
    offset: int    # where in the file the magic number stands
    magic: bytes
    read: Callable[[BinaryIO], dict[str, np.ndarray] | None]


# The first whose `read` returns arrays is taken. PyTorch writes a zip file since version 1.6, before that pickles.
WEIGHT_FORMATS = (
    WeightFormat("torch", "PyTorch .pth", 0, b"PK\3\4", pytorch.read_archive),
    WeightFormat("npz", "NumPy .npz", 0, b"PK\3\4", numpy_zip.read),
    WeightFormat("safetensors", ".safetensors", 8, b"{", safetensors.read),
    WeightFormat("torch", "PyTorch .pth", 0, b"\x80", pytorch.read_pickles),
    WeightFormat("paddle", "Paddle .pdparams", 0, b"\x80", pytorch.read_paddle),
    WeightFormat("tfjs", "TensorFlow.js model.json (or its folder)", 0, b"{", tfjs.read),
    WeightFormat("caffe", "Caffe .caffemodel", 0, b"\n", caffe.read),
    WeightFormat("caffe", "Caffe .caffemodel", 0, b"\xa2\x06", caffe.read),  # of a network without a name
    WeightFormat("tensorflow", "TensorFlow checkpoint .index or SavedModel (or its folder)", 0, b"\0\0",
                 tensor_bundle.read),
    WeightFormat("tensorflow", "TensorFlow frozen graph .pb", 0, b"\n", frozen_graph.read),
)
INDEXES = ("variables/variables.index", "*.index", "checkpoint/*.index", "saved_model/variables/*.index")
KNOWN = ", ".join(dict.fromkeys([known.title for known in WEIGHT_FORMATS] + ["MindSpore .ckpt"]))


def open_weights(path: str) -> WeightFile:
    """The content of a weight file, or of a folder with one as places_in knows them.

    Names, axes and types are those of the file, but bfloat16 and quantized numbers become float32. Raises OptionError
    if the file is missing, DataError if it is damaged, of another format, or wants to run something.
    """
    place = existing_file(path)
    try:
        with open(place, "rb") as file:
            kind, arrays = read_foreign(file)
    except Exception as error:  # damaged bytes can raise any error
        reason = str(error)
        if not isinstance(error, DataError):
            verdict = "cannot be read" if isinstance(error, PermissionError) else "damaged or cut short"
            reason = f"{verdict} ({os.path.getsize(place)} bytes; {type(error).__name__}: {error})"
        raise DataError(f"weights '{place}': {' '.join(reason.split())[:300]}") from error
    if kind == "mindspore":
        from src.weights.checkpoint import load  # the only reader that needs MindSpore, which opens the file itself
        return WeightFile(path, kind, *load(place))
    if not arrays:
        raise DataError(f"weights '{place}': there are no tensors in it")
    return WeightFile(path, kind, {name: np.asarray(array, array.dtype.newbyteorder("="), "C")
                                   for name, array in arrays.items()}, meta={})


def existing_file(path: str) -> str:
    """The file at a path or in a folder. Raises OptionError, which names the checkpoints near by.

    TensorFlow says PREFIX of its PREFIX.index and PREFIX.data-*, and keeps variables/ beside saved_model.pb.
    """
    place = re.sub(r"\.data-\d+-of-\d+$", "", path)
    if os.path.basename(path) == "saved_model.pb":
        place = os.path.dirname(path) or "."
    for found in (f"{place}.index", place, *(places_in(place) if os.path.isdir(place) else ())):
        if os.path.isfile(found):
            return found
    folder = place if os.path.isdir(place) else os.path.dirname(place)
    checkpoints = sorted(str(found.relative_to(folder)) for pattern in ("*.ckpt", "ckpt/*.ckpt", *INDEXES)
                         for found in Path(folder).glob(pattern))
    remedy = f"one of the files in '{folder or '.'}': {', '.join(checkpoints)}" if checkpoints else f"a file of {KNOWN}"
    problem = "is not a file" if not os.path.isdir(path) else "is a folder" if checkpoints else "holds no weights"
    raise OptionError(f"'{path}' {problem}; give {remedy}")


def places_in(folder: str) -> list[str]:
    """Where the weights in a folder may be, the likeliest first: only those of which there is one of a kind."""
    kinds = [list(Path(folder).glob(pattern)) for pattern in ("model.json", *INDEXES, "frozen_inference_graph.pb")]
    return [str(found[0]) for found in kinds if len(found) == 1]


def read_foreign(file: BinaryIO) -> tuple[str, dict[str, np.ndarray]]:
    """The kind and the arrays of a file, none for a MindSpore checkpoint. Raises DataError for an unknown format."""
    for known in WEIGHT_FORMATS:
        file.seek(known.offset)
        if file.read(len(known.magic)) == known.magic:
            file.seek(0)
            arrays = known.read(file)
            if arrays is not None:
                return known.kind, arrays
    file.seek(0)
    if file.read(1) == b"\n" or file.name.endswith(".ckpt"):  # field 1 of the protobuf message
        return "mindspore", {}
    raise DataError(f"unknown format ({os.path.getsize(file.name)} bytes); known are {KNOWN}")


def open_newest(folder: str, say: Callable[[str], None]) -> WeightFile:
    """The checkpoint a run goes on from: last.ckpt, or where it is damaged, which say(text) tells, the one with the
    most steps; the times of files count for nothing, for a clock may be set back.

    Raises OptionError if none is left.
    """
    newest = None
    states = [path for path in Path(folder).glob("*.ckpt") if path.name != "diverged.ckpt"]
    for path in sorted(states, key=lambda state: (state.name == "last.ckpt", state.name), reverse=True):
        try:
            found = open_weights(str(path))
        except DataError as error:
            say(f"warning: {error}")
            continue
        if found.meta.get("steps_done", -1) > (newest.meta["steps_done"] if newest else -1):
            newest = found
        if newest and path.name == "last.ckpt":
            break
    if newest:
        return newest
    raise OptionError(f"--resume=True, but '{folder}' holds no undamaged checkpoint of a run; start again with "
                      "another --output_path")
