"""Changes to ONNX graphs: one cut between network and post-processing, and graphs for any number of images."""
import numpy as np

from src.inference.onnx_session import import_optional

INT64 = 7  # onnx.TensorProto.INT64
LAST = 2 ** 31 - 1  # an end of Slice behind all there is
FREE_SIDE = "n"  # name of the number of images in a graph that takes any


def all_nodes(graph):
    """The nodes of a GraphProto and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_nodes(attribute.g)


def constants(graph):
    """{name: array} of the initializers and Constant nodes of a GraphProto, and of sums of them: ends of Slice."""
    to_array = import_optional("onnx").numpy_helper.to_array
    held = {one.name: to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            held[node.output[0]] = to_array(node.attribute[0].t)
        elif node.op_type == "Add" and all(name in held for name in node.input):
            held[node.output[0]] = held[node.input[0]] + held[node.input[1]]
    return held


def cut(model, borders):
    """The parts of a ModelProto between neighbours of a list of names: [[inputs], [inner], [outputs]] gives two."""
    extractor = import_optional("onnx").utils.Extractor(model)
    parts = [extractor.extract_model(list(before), list(after)) for before, after in zip(borders, borders[1:])]
    for part in parts:
        del part.graph.value_info[:]  # sides that may change, and names that onnx.compose would change twice
    return parts


def with_opset_of(other, model):
    """model in the version of the operator set that other has: only such can be joined."""
    version = max(one.version for one in other.opset_import if one.domain in ("", "ai.onnx"))
    held = max(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    return model if held == version else import_optional("onnx").version_converter.convert_version(model, version)


def join(first, second):
    """One ModelProto of two with one operator set; the outputs of the first are the inputs of the second, by name."""
    onnx = import_optional("onnx")
    names = [output.name for output in first.graph.output]
    first.ir_version = second.ir_version = max(first.ir_version, second.ir_version)
    first = onnx.compose.add_prefix(first, "network/", rename_inputs=False, rename_outputs=False)
    whole = onnx.compose.merge_models(first, second, io_map=[(name, name) for name in names])
    sets = {one.domain: one.version for one in whole.opset_import}  # merge_models names those of both, one by one
    del whole.opset_import[:]
    whole.opset_import.extend(onnx.helper.make_opsetid(*one) for one in sets.items())
    return whole


def free_batch(model):
    """A network traced with one image, changed in place so that it takes any number; returns it.

    MindSpore writes the number of images into shapes of Reshape, ends of Slice and rows of zeros that pad a map.
    """
    graph, held = model.graph, constants(model.graph)
    for number, node in enumerate(graph.node):
        values = [held.get(name) for name in node.input]
        if node.op_type == "Reshape" and values[0] is None and values[1][0] == 1:
            give_constant(graph, node, 1, f"free_shape_{number}", [0, *values[1][1:]])  # 0: as many as came
        elif node.op_type == "Slice" and values[0] is None and values[1][0] == 0 and len(values[1]) > 1:
            give_constant(graph, node, 2, f"free_end_{number}", [LAST, *values[2][1:]])
        elif node.op_type == "Concat" and values[1] is None and is_zero(values[0]) and is_zero(values[-1]):
            axis, sides = node.attribute[0].i, [0] * (2 * values[0].ndim)
            sides[axis], sides[axis + values[0].ndim] = values[0].shape[axis], values[-1].shape[axis]
            node.op_type, node.input[:] = "Pad", [node.input[1], ""]
            del node.attribute[:]
            give_constant(graph, node, 1, f"free_pad_{number}", sides)
    free_sides([*graph.input, *graph.output])
    return drop_unused(model)


def give_constant(graph, node, place, name, values):
    """Makes whole numbers input `place` of a node, by a constant of their own: others may share the old one."""
    array = np.array(values, np.int64)
    graph.initializer.append(import_optional("onnx").numpy_helper.from_array(array, name))
    node.input[place] = name


def is_zero(array):
    """Whether it is an array, and of zeros."""
    return array is not None and not array.any()


def free_sides(infos):
    """Lets the first side of graph inputs and outputs be any number."""
    for info in infos:
        info.type.tensor_type.shape.dim[0].dim_param = FREE_SIDE


def drop_unused(model):
    """model without the initializers that no node takes; onnxruntime would name each."""
    used = {name for node in all_nodes(model.graph) for name in node.input}
    kept = [one for one in model.graph.initializer if one.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def for_each_image(model):
    """The post-processing of one image as one Scan over any number of them.

    model: each input and output has a first side of 1 in front, and fixed sides.
    """
    helper = import_optional("onnx").helper
    body, graph = import_optional("onnx").compose.add_prefix(model, "each/").graph, model.graph
    ends, before, behind = [], [], []
    for info, is_input in [(one, True) for one in body.input] + [(one, False) for one in body.output]:
        whole, row = info.name, f"{info.name}/row"
        shape = [side.dim_value for side in info.type.tensor_type.shape.dim]
        ends.append(helper.make_tensor_value_info(row, info.type.tensor_type.elem_type, shape[1:]))
        wanted = shape if is_input else shape[1:]  # Scan takes the first side away and puts it back
        body.initializer.append(helper.make_tensor(f"{row}_shape", INT64, [len(wanted)], wanted))
        made = helper.make_node("Reshape", [row if is_input else whole, f"{row}_shape"], [whole if is_input else row])
        (before if is_input else behind).append(made)
    count = len(before)
    loop = helper.make_graph([*before, *body.node, *behind], "each", ends[:count], ends[count:], body.initializer)
    del graph.node[:], graph.initializer[:]
    graph.node.append(helper.make_node("Scan", [one.name for one in graph.input], [one.name for one in graph.output],
                                       body=loop, num_scan_inputs=count))
    free_sides([*graph.input, *graph.output])
    return model
