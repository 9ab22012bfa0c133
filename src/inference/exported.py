"""Exported files as functions from pixels to arrays."""
from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import mindspore as ms
import numpy as np
from google.protobuf.message import DecodeError
from mindspore import nn
from mindspore.train.mind_ir_pb2 import ModelProto

from src.errors import DataError, OptionError
from src.inference.description import Description, sidecar_of
from src.inference.onnx_session import open_session
from src.weights.meta import EXPORTED, read_meta


def run_cell(cell: nn.Cell, *arrays: np.ndarray) -> list[np.ndarray]:
    """The outputs of a Cell for inference, arrays in and out."""
    cell.set_train(False)
    return [output.asnumpy() for output in cell(*(ms.Tensor(array) for array in arrays))]


def open_mindir(path: str, shape: list) -> Callable:
    """The graph of a .mindir as a function of images. shape: of its input, the first None for any number of images.

    A graph for any number is compiled once; without set_inputs MindSpore compiles it for each number that it meets, and
    fails at the second. A graph for one number checks its input itself.
    """
    with open(path, "rb") as file:
        ModelProto.FromString(file.read())  # ms.load would print lines of its own about a damaged file
    cell = nn.GraphCell(ms.load(path))
    if shape[0] is None:
        cell.set_inputs(ms.Tensor(shape=shape, dtype=ms.uint8))
    return partial(run_cell, cell)


def open_onnx(path: str, shape: list) -> Callable:
    """The graph of an .onnx, run by onnxruntime on the CPU. Raises ValueError where its input has another shape."""
    session = open_session(path)
    taken = [None if isinstance(side, str) else side for side in session.get_inputs()[0].shape]
    if taken != shape:
        raise ValueError(f"the file takes images {taken}, the .json says {shape}")
    return lambda images: session.run(None, {"images": images})


OPENERS = {".mindir": open_mindir, ".onnx": open_onnx}


def open_exported(path: str) -> tuple[Callable, Description]:
    """An exported file as a function of images, and its Description. Raises OptionError, DataError.

    The .json beside the file adds to a Description: batch_size (0: any number of images), inputs, outputs, raw.
    """
    sidecar, ending = sidecar_of(path), os.path.splitext(path)[1]
    for name in (path, sidecar):
        if not os.path.isfile(name):
            raise OptionError(f"'{name}' is not a file; export.py writes a {ending} and a .json beside it")
    try:
        with open(sidecar, encoding="utf-8") as file:
            meta = read_meta(file.read(), sidecar, EXPORTED)
        if ending == ".mindir" and meta["mindspore"].split(".")[0] != ms.__version__.split(".")[0]:
            raise OptionError(f"'{path}' was exported by MindSpore {meta['mindspore']}, this is {ms.__version__}; "
                              "export it with this one from its checkpoint")
        shape, side = meta["inputs"]["images"]["shape"], meta["image_size"]
        detect_batch, raw = OPENERS[ending](path, shape), meta["raw"]
        if shape != [meta["batch_size"] or None, side, side, 3]:
            raise ValueError(f"its images have the shape {shape}, which is of another image size or batch")
    except (ValueError, TypeError, KeyError, RuntimeError, DecodeError) as error:
        raise DataError(f"'{path}' or its .json is damaged: {' '.join(str(error).split())[:150]}") from error
    if raw:
        raise OptionError(f"'{path}' was exported with --raw=True and gives logits, not boxes; export it without")
    return detect_batch, meta
