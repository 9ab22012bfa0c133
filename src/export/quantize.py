"""ONNX networks in fewer bits: float16, or 8 bit whole numbers with ranges measured on pictures."""
import importlib
import logging
import os
import tempfile

import numpy as np

from src.errors import DataError
from src.export.onnx_graph import constants, drop_unused
from src.inference.onnx_session import import_optional
from src.progress import quiet

OPSET = 13  # the first in which each channel of weights has a scale of its own
LENGTH = ["Pow", "ReduceSum", "Greater", "Max", "Where", "Sqrt", "Div"]  # operators of L2Norm: float32, as in training
QUANTIZED = ["Conv", "Add", "Relu", "Clip", "MaxPool"]


def to_float16(model, batch_size):
    """The ModelProto of a network with weights and maps in float16; logits and deltas come out as float32."""
    float16 = importlib.import_module("onnxruntime.transformers.float16")
    return join_lengths(float16.convert_float_to_float16(
        model, keep_io_types=True, op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *LENGTH]))


def join_lengths(model):
    """Takes away the way through float16 from one operator of LENGTH to the next, in place; returns the model.

    The conversion puts a Cast to float32 before each operator it leaves in float32 and one to float16 behind it.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        for place, name in enumerate(node.input):
            way = [makers.get(name)]
            while way[-1] is not None and way[-1].op_type == "Cast":
                way.append(makers.get(way[-1].input[0]))
            if node.op_type in LENGTH and way[-1] is not None and way[-1].op_type in LENGTH:
                node.input[place] = way[-1].output[0]
    used = {name for node in graph.node for name in node.input} | {one.name for one in graph.output}
    kept = [node for node in graph.node if not used.isdisjoint(node.output)]
    del graph.node[:]
    graph.node.extend(kept)
    return model


class Int8:
    """Function ModelProto of a network, images a call (0 for any number) -> the same with convolutions in 8 bits.

    Static, as onnxruntime's quantization has it: QuantizeLinear and DequantizeLinear around each operator, a scale for
    each channel of weights, ranges of the maps the smallest and largest values on `pictures`, [n, S, S, 3] uint8. The
    convolutions that give logits and deltas stay in float32.
    """

    def __init__(self, pictures):
        self.pictures = pictures

    def __call__(self, model, batch_size):
        quantization = importlib.import_module("onnxruntime.quantization")
        model = drop_unused(import_optional("onnx").version_converter.convert_version(model, OPSET))
        name_nodes(model)
        kind = quantization.QuantType
        import_optional("onnxruntime").set_default_logger_severity(3)
        with tempfile.TemporaryDirectory() as folder, quiet(logging.WARNING):
            path = os.path.join(folder, "network.onnx")
            quantization.quantize_static(
                model, path, Feed(self.pictures, batch_size or 1), per_channel=True, op_types_to_quantize=QUANTIZED,
                activation_type=kind.QUInt8, weight_type=kind.QInt8, nodes_to_exclude=last_convolutions(model))
            return import_optional("onnx").load(path)


def name_nodes(model):
    """Gives each node a name of its own, by which it can be left out."""
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"


def last_convolutions(model):
    """Names of the convolutions behind which there is nothing but another order of their values."""
    makers, found = {node.output[0]: node for node in model.graph.node}, []
    waiting, held = [output.name for output in model.graph.output], constants(model.graph)
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.op_type == "Conv":
            found.append(node.name)
        elif node is not None:
            waiting += [name for name in node.input if name not in held]
    return found


class Feed:
    """What onnxruntime's calibration asks for its next input; a last batch that is not full is filled up."""

    def __init__(self, pictures, batch_size):
        if not len(pictures):
            raise DataError("there is no picture to measure ranges on; --val_data_type must name a split with pictures")
        self.batches = iter([np.resize(pictures[start:start + batch_size], (batch_size, *pictures.shape[1:]))
                             for start in range(0, len(pictures), batch_size)])

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}
