"""ONNX networks in fewer bits: float16, or 8 bit integers with ranges measured on pictures."""
from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING

import numpy as np

from src.errors import DataError
from src.export.onnx_graph import constants, drop_unused
from src.files import scratch_folder
from src.inference.onnx_session import import_optional
from src.progress import quiet

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 13  # the first in which each channel of weights has a scale of its own
L2_NORM_OPERATORS = ["Pow", "ReduceSum", "Greater", "Max", "Where", "Sqrt", "Div"]  # in float32, as in training
INT8_OPERATORS = ["Conv", "Add", "Relu", "Clip", "MaxPool"]


def to_float16(model: ModelProto, batch_size: int) -> ModelProto:
    """The network with weights and maps in float16; logits and deltas come out as float32."""
    float16 = importlib.import_module("onnxruntime.transformers.float16")
    kept = [*float16.DEFAULT_OP_BLOCK_LIST, *L2_NORM_OPERATORS]
    return join_norms(float16.convert_float_to_float16(model, keep_io_types=True, op_block_list=kept))


def join_norms(model: ModelProto) -> ModelProto:
    """Takes away the way through float16 from one operator of L2Norm to the next, in place; returns the model.

    The conversion puts a Cast to float32 before each operator it leaves in float32 and one to float16 behind it.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type not in L2_NORM_OPERATORS:
            continue
        for place, name in enumerate(node.input):
            maker = makers.get(name)
            while maker is not None and maker.op_type == "Cast":
                name = maker.input[0]
                maker = makers.get(name)
            if maker is not None and maker.op_type in L2_NORM_OPERATORS:
                node.input[place] = name
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [node for node in graph.node if not used.isdisjoint(node.output)]
    del graph.node[:]
    graph.node.extend(kept)
    return model


class Int8:
    """Function of a network and the images per call (0 for any number) that gives it with convolutions in 8 bits.

    Static, as onnxruntime's quantization has it: QuantizeLinear and DequantizeLinear around each operator, a scale for
    each channel of weights, ranges of the maps the smallest and largest values on `images`, [n, S, S, 3] uint8. The
    convolutions that give logits and deltas stay in float32.
    """

    def __init__(self, images: np.ndarray):
        self.images = images

    def __call__(self, model: ModelProto, batch_size: int) -> ModelProto:
        onnx, quantization = import_optional("onnx"), importlib.import_module("onnxruntime.quantization")
        model = drop_unused(onnx.version_converter.convert_version(model, OPSET))
        for number, node in enumerate(model.graph.node):
            node.name = f"{node.op_type}_{number}"  # a name by which it can be excluded
        types = quantization.QuantType
        import_optional("onnxruntime").set_default_logger_severity(3)
        with scratch_folder() as folder, quiet(logging.WARNING):
            path = os.path.join(folder, "network.onnx")
            quantization.quantize_static(
                model, path, CalibrationReader(self.images, batch_size or 1), per_channel=True,
                op_types_to_quantize=INT8_OPERATORS, activation_type=types.QUInt8, weight_type=types.QInt8,
                nodes_to_exclude=last_convolutions(model))
            return onnx.load(path)


def last_convolutions(model: ModelProto) -> list[str]:
    """Names of the convolutions behind which values only change their order."""
    makers, found = {node.output[0]: node for node in model.graph.node}, []
    waiting, held = [output.name for output in model.graph.output], constants(model.graph)
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.op_type == "Conv":
            found.append(node.name)
        elif node is not None:
            waiting += [name for name in node.input if name not in held]
    return found


class CalibrationReader:
    """Gives onnxruntime's calibration batch by batch; a last batch that is not full is filled with copies."""

    def __init__(self, images: np.ndarray, batch_size: int):
        if len(images) == 0:
            raise DataError("ranges cannot be measured without pictures; --val_data_type must name a split that has "
                            "some")
        self.batches = iter([np.resize(images[start:start + batch_size], (batch_size, *images.shape[1:]))
                             for start in range(0, len(images), batch_size)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input of the network, None after the last."""
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}
