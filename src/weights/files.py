"""The one door for files of weights: recognised by content, opened once, and nothing that they say is executed.

A new format is a file in formats/, with a function `matches` and a function `read`, and a line in WEIGHT_FORMATS.
"""
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from src.errors import DataError, OptionError
from src.weights.formats import numpy_zip, paddle, pytorch, safetensors, tfjs


class WeightFile(NamedTuple):
    """What a file of weights holds, whatever its format."""
    path: str                      # as it was given
    kind: str                      # a kind of WEIGHT_FORMATS, or "mindspore"
    arrays: dict[str, np.ndarray]  # by the names that the file has
    meta: dict                     # what a checkpoint of this repository says of itself, {} for all other files


class WeightFormat(NamedTuple):
    """A foreign format. Both functions take the file, opened at its beginning."""
    kind: str
    title: str                                       # what messages call it
    matches: Callable[[BinaryIO], bool]
    read: Callable[[BinaryIO], dict[str, np.ndarray]]  # may raise anything for damaged bytes


WEIGHT_FORMATS = (  # the first that matches reads the file
    WeightFormat("torch", "PyTorch .pth", pytorch.matches, pytorch.read),
    WeightFormat("npz", "NumPy .npz", numpy_zip.matches, numpy_zip.read),
    WeightFormat("safetensors", ".safetensors", safetensors.matches, safetensors.read),
    WeightFormat("paddle", "Paddle .pdparams", paddle.matches, paddle.read),
    WeightFormat("tfjs", "TensorFlow.js model.json (or its folder)", tfjs.matches, tfjs.read),
)
KNOWN = f"{', '.join(known.title for known in WEIGHT_FORMATS)} and MindSpore .ckpt"


def open_weights(path: str) -> WeightFile:
    """The content of a weight file, or of a folder with a model.json.

    Names, axes and types are those of the file, but bfloat16 and quantized numbers become float32, and a "module." that
    all names begin with (DataParallel) is dropped. Raises OptionError if there is no file, DataError if it is damaged,
    of another format, or asks for more than tensors.
    """
    place = existing_file(path)
    try:
        with open(place, "rb") as file:
            known = find_format(file)
            arrays = known.read(file) if known else {}
    except Exception as error:  # damaged bytes raise whatever they lead to
        raise DataError(f"weights '{place}': {reason_of(error, place)}") from error
    if known is None:
        from src.weights.checkpoint import load  # the only reader that needs MindSpore, which opens files by itself
        return WeightFile(path, "mindspore", *load(place))
    if not arrays:
        raise DataError(f"weights '{place}': there are no tensors in it")
    return WeightFile(path, known.kind, plain_arrays(arrays), meta={})


def reason_of(error: Exception, path: str) -> str:
    """Why a file could not be read, in one line."""
    if isinstance(error, DataError):
        reason = str(error)
    elif isinstance(error, PermissionError):
        reason = f"cannot be read: {error.strerror}"
    else:
        reason = f"damaged or cut short ({os.path.getsize(path)} bytes; {type(error).__name__}: {error})"
    return " ".join(reason.split())[:300]


def existing_file(path: str) -> str:
    """The file at a path, or the model.json in a folder. Raises OptionError, which names the checkpoints near by."""
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    if os.path.isdir(path):
        path = os.path.join(path, "model.json")
    if os.path.isfile(path):
        return path
    places = Path(folder), Path(folder, "ckpt")
    checkpoints = sorted(str(found.relative_to(folder)) for place in places for found in place.glob("*.ckpt"))
    remedy = f"one of the files in '{folder or '.'}': {', '.join(checkpoints)}" if checkpoints else f"a file of {KNOWN}"
    raise OptionError(f"'{path}' is not a file; give {remedy}")


def find_format(file: BinaryIO) -> WeightFormat | None:
    """The foreign format of an open file, None for a MindSpore checkpoint. Raises DataError for an unknown format."""
    for known in WEIGHT_FORMATS:
        file.seek(0)
        if known.matches(file):
            file.seek(0)
            return known
    file.seek(0)
    if file.read(1) == b"\n" or file.name.endswith(".ckpt"):  # field 1 of the protobuf message
        return None
    raise DataError(f"unknown format ({os.path.getsize(file.name)} bytes); known are {KNOWN}")


def plain_arrays(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Contiguous arrays in the byte order of this machine, by their names without a common "module."."""
    prefix = "module." if all(name.startswith("module.") for name in arrays) else ""
    return {name[len(prefix):]: np.asarray(array, array.dtype.newbyteorder("="), "C") for name, array in arrays.items()}


def open_newest(folder: str, say: Callable[[str], None]) -> WeightFile:
    """The checkpoint a run goes on from: last.ckpt, or where that is damaged the newest other one.

    say(text) is told which ones are damaged. Raises OptionError if none is left.
    """
    states = [path for path in Path(folder).glob("*.ckpt") if path.name != "diverged.ckpt"]
    for path in sorted(states, key=lambda state: (state.name != "last.ckpt", -state.stat().st_mtime)):
        try:
            found = open_weights(str(path))
        except DataError as error:
            say(f"warning: {error}")
            continue
        if "steps_done" in found.meta:
            return found
    raise OptionError(f"--resume=True, but '{folder}' holds no undamaged checkpoint of a run; start again with "
                      "another --output_path")
