"""Exported files as functions from pixels to arrays."""
from functools import partial

import mindspore as ms
from mindspore import nn
from mindspore.train.mind_ir_pb2 import ModelProto

from src.errors import OptionError
from src.inference.onnx_session import open_session


def open_mindir(path, shape):
    """The graph of a .mindir as a function from array to arrays. shape: of its input, the first None for any number.

    A graph for any number is compiled once for all; left to itself MindSpore compiles it for each number it meets, and
    fails at the second.
    """
    cell = nn.GraphCell(ms.load(path))
    if shape[0] is None:
        cell.set_inputs(ms.Tensor(shape=shape, dtype=ms.uint8))
    return partial(run_cell, cell)


def run_cell(cell, *arrays):
    """The outputs of a Cell for inference, arrays in and out."""
    cell.set_train(False)
    return [output.asnumpy() for output in cell(*(ms.Tensor(one) for one in arrays))]


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
