"""Changes to ONNX graphs: one cut between network and post-processing, and graphs for any number of images."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from src.inference.onnx_session import import_optional, open_session

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

INT64 = 7  # onnx.TensorProto.INT64
SLICE_END = 2 ** 31 - 1  # beyond the end of any axis
FREE_SIDE = "n"  # name of the number of images in a graph that takes any


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_nodes(attribute.g)


def constants(graph: GraphProto) -> dict[str, np.ndarray]:
    """The initializers and Constant nodes of a graph, and sums of them (ends of Slice), by name."""
    to_array = import_optional("onnx").numpy_helper.to_array
    held = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            held[node.output[0]] = to_array(node.attribute[0].t)
        elif node.op_type == "Add" and all(name in held for name in node.input):
            held[node.output[0]] = held[node.input[0]] + held[node.input[1]]
    return held


def name_outputs(model: ModelProto, names: Sequence[str]) -> None:
    """Renames the outputs of a model, in place: MindSpore does not keep the name of one that also feeds a node."""
    renamed = {output.name: name for output, name in zip(model.graph.output, names)}
    for node in model.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [renamed.get(name, name) for name in ends]
    for output in model.graph.output:
        output.name = renamed[output.name]


def cut(model: ModelProto, borders: Sequence[Sequence[str]]) -> list[ModelProto]:
    """The parts of a model between neighbours of a list of names: [[inputs], [inner], [outputs]] gives two."""
    extractor = import_optional("onnx").utils.Extractor(model)
    parts = [extractor.extract_model(list(before), list(after)) for before, after in zip(borders, borders[1:])]
    for part in parts:
        del part.graph.value_info[:]  # sides that may change, and names that onnx.compose would change twice
    return parts


def with_opset_of(other: ModelProto, model: ModelProto) -> ModelProto:
    """model in the version of the standard operator set that other has: only such models can be joined."""
    wanted = standard_opset(other)
    if standard_opset(model) == wanted:
        return model
    return import_optional("onnx").version_converter.convert_version(model, wanted)


def standard_opset(model: ModelProto) -> int:
    """The version of the standard operator set that a model uses."""
    return max(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))


def join(first: ModelProto, second: ModelProto) -> ModelProto:
    """One model of two in one operator set; the outputs of the first are the inputs of the second, by name."""
    onnx = import_optional("onnx")
    names = [output.name for output in first.graph.output]
    first.ir_version = second.ir_version = max(first.ir_version, second.ir_version)
    first = onnx.compose.add_prefix(first, "network/", rename_inputs=False, rename_outputs=False)
    joined = onnx.compose.merge_models(first, second, io_map=[(name, name) for name in names])
    versions = {opset.domain: opset.version for opset in joined.opset_import}  # merge_models lists each twice
    del joined.opset_import[:]
    joined.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())
    return joined


def free_batch(model: ModelProto) -> ModelProto:
    """A network traced with one image, changed in place so that it takes any number; returns it.

    MindSpore writes the number of images into shapes of Reshape, ends of Slice and rows of zeros that pad a map.
    """
    graph, held = model.graph, constants(model.graph)
    for number, node in enumerate(graph.node):
        values = [held.get(name) for name in node.input]
        zeros = [value is not None and not value.any() for value in values]
        if node.op_type == "Reshape" and values[0] is None and values[1][0] == 1:
            shape = [0, *values[1][1:]]  # 0: as many as came
            set_input(graph, node, 1, name=f"free_shape_{number}", values=shape)
        elif node.op_type == "Slice" and values[0] is None and values[1][0] == 0 and len(values[1]) > 1:
            set_input(graph, node, 2, name=f"free_end_{number}", values=[SLICE_END, *values[2][1:]])
        elif node.op_type == "Concat" and values[1] is None and zeros[0] and zeros[-1]:
            axis, dimensions = node.attribute[0].i, values[0].ndim
            widths = [0] * (2 * dimensions)
            widths[axis], widths[dimensions + axis] = values[0].shape[axis], values[-1].shape[axis]
            node.op_type, node.input[:] = "Pad", [node.input[1], ""]
            del node.attribute[:]
            set_input(graph, node, 1, name=f"free_pad_{number}", values=widths)
    free_sides([*graph.input, *graph.output])
    return drop_unused(model)


def set_input(graph: GraphProto, node: NodeProto, place: int, *, name: str, values: Sequence[int]) -> None:
    """Makes integers input `place` of a node, as a new constant: other nodes may share the old one."""
    graph.initializer.append(import_optional("onnx").numpy_helper.from_array(np.array(values, np.int64), name))
    node.input[place] = name


def free_sides(infos: Iterable[ValueInfoProto]) -> None:
    """Lets the first side of graph inputs and outputs be any number."""
    for info in infos:
        info.type.tensor_type.shape.dim[0].dim_param = FREE_SIDE


def run_graph(model: ModelProto, *arrays: np.ndarray) -> list[np.ndarray]:
    """The outputs of a model for arrays in the order of its inputs."""
    session = open_session(model.SerializeToString())
    return session.run(None, {node.name: array for node, array in zip(session.get_inputs(), arrays)})


def describe_graph(model: ModelProto) -> dict:
    """{"opset": {domain: version}, "operators": names in order} of a model."""
    return {"opset": {opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
            "operators": sorted({node.op_type for node in all_nodes(model.graph)})}


def drop_unused(model: ModelProto) -> ModelProto:
    """model without the initializers that no node takes; onnxruntime would warn of each."""
    used = {name for node in all_nodes(model.graph) for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def for_each_image(model: ModelProto) -> ModelProto:
    """The post-processing of one image as one Scan over any number of them.

    model: each input and output has a first side of 1 in front, and fixed sides.
    """
    onnx = import_optional("onnx")
    body, graph = onnx.compose.add_prefix(model, "each/").graph, model.graph
    inputs = [scan_row(info, body, is_input=True) for info in body.input]
    outputs = [scan_row(info, body, is_input=False) for info in body.output]
    nodes = [*(node for _, node in inputs), *body.node, *(node for _, node in outputs)]
    loop = onnx.helper.make_graph(nodes, "each", [row for row, _ in inputs], [row for row, _ in outputs],
                                  body.initializer)
    del graph.node[:], graph.initializer[:]
    names = [[info.name for info in infos] for infos in (graph.input, graph.output)]
    graph.node.append(onnx.helper.make_node("Scan", *names, body=loop, num_scan_inputs=len(inputs)))
    free_sides([*graph.input, *graph.output])
    return model


def scan_row(info: ValueInfoProto, body: GraphProto, *, is_input: bool) -> tuple[ValueInfoProto, NodeProto]:
    """What Scan gives or takes for an input or output of its body, and the Reshape between the two.

    Scan takes the first side, which the body has as 1, away and puts it back.
    """
    helper, tensor, row = import_optional("onnx").helper, info.type.tensor_type, f"{info.name}/row"
    shape = [side.dim_value for side in tensor.shape.dim]
    source, target, new_shape = (row, info.name, shape) if is_input else (info.name, row, shape[1:])
    body.initializer.append(helper.make_tensor(f"{row}_shape", INT64, [len(new_shape)], new_shape))
    reshape = helper.make_node("Reshape", [source, f"{row}_shape"], [target])
    return helper.make_tensor_value_info(row, tensor.elem_type, shape[1:]), reshape
