"""Exports a detector as ONNX and proves with onnxruntime that the file computes the same.

MindSpore writes the graph (opset 11). It gives an output that also feeds another node no name of ours, so the outputs
are renamed here.
"""
import os
from contextlib import suppress

import mindspore as ms
import numpy as np

from src.errors import EnvironmentFault, OptionError, SSDError
from src.export.mindir import (
    FREE_TRIAL,
    TOLERANCE,
    difference_of,
    keep,
    name_aside,
    plain_name,
    random_images,
    require_finite,
)
from src.export.onnx_graph import all_nodes, cut, for_each_image, free_batch, join, with_opset_of
from src.inference.description import DETECTIONS, RAW, detector_arguments
from src.inference.exported import run_cell
from src.inference.onnx_session import import_optional, open_session
from src.machine.compat import refuse_old
from src.models.detector import RawDetector, TracedDetector
from src.models.fold import fold_norms

DRAWN = 200  # detections an image in the comparison of the post-processing


def export_onnx(model, meta, path, batch_size, raw, lower=None):
    """Writes path (.onnx) and its .json. Returns the content of the .json.

    model: fresh, its norms are folded (models/fold.py). batch_size: images a call, 0 for a file that takes any number.
    lower: function ModelProto of the network, batch_size -> the same in fewer bits (quantize.py); its outputs are
    then not held to TOLERANCE.
    The file is written aside and renamed after onnx.checker and onnxruntime took it and it agreed with the network
    within TOLERANCE. Logits and deltas are compared on random pixels, the post-processing on drawn logits and deltas: a
    network that sees noise may find nothing, or give equal scores, between which MindSpore chooses at random. Raises
    SSDError when it does not agree, NotFiniteError when either gives NaN or infinity, OptionError where MindSpore knows
    no ONNX for an operator of the network.
    """
    refuse_old("--file_format=ONNX")
    onnx = import_optional("onnx")
    import_optional("onnxruntime")
    images, aside = random_images(model, batch_size or FREE_TRIAL), name_aside(path)
    expected = require_finite(run_cell(RawDetector(model), images))
    fold_norms(model.network)
    cell = RawDetector(model) if raw else TracedDetector(model, **detector_arguments(meta))
    cell.set_train(False)
    try:
        traced = images if batch_size else images[:1]
        graph = name_outputs(write_graph(onnx, cell, traced, aside, path), RAW if raw else (*DETECTIONS, *RAW))
        parts = cut(graph, [["images"], RAW] if raw else [["images"], RAW, DETECTIONS])
        parts = change(parts, batch_size, lower)
        difference = 0.0 if raw else compare_finish(cell, parts[1], len(images))
        network = difference_of(expected, run_graph(parts[0], images))
        if max(difference, 0.0 if lower else network) > TOLERANCE:
            raise SSDError(f"the exported file differs from the network by {max(difference, network):.3g}; nothing was "
                           "kept")
        outputs = check_whole(onnx, parts, images, 1 if batch_size == 0 else len(images), aside)
        return keep(aside, path, [batch_size or None, *images.shape[1:]], outputs, {
            **meta, "raw": raw, "largest_difference": max(difference, network), **describe_graph(onnx.load(aside))})
    except (ValueError, onnx.checker.ValidationError) as error:
        raise SSDError(f"the exported file cannot be used: {' '.join(str(error).split())[:300]}") from error
    finally:
        with suppress(OSError):
            os.remove(aside)


def change(parts, batch_size, lower):
    """Network and post-processing as traced, the latter absent in a raw file -> as they are written."""
    network, *finish = parts
    network = network if batch_size else free_batch(network)
    network = lower(network, batch_size) if lower else network
    finish = [with_opset_of(network, one) for one in finish]
    return [network, *(finish if batch_size else map(for_each_image, finish))]


def check_whole(onnx, parts, images, least, aside):
    """Joins the parts into the file `aside`; returns its outputs, which must be those of the parts one by one.

    The file is run on the first `least` images, and on all. Raises ValidationError, ValueError, SSDError.
    """
    onnx.save(join(*parts) if len(parts) == 2 else parts[0], aside)
    onnx.checker.check_model(aside, full_check=True)
    session = open_session(aside)
    for count in sorted({least, len(images)}):
        outputs = session.run(None, {"images": images[:count]})
        wanted = run_graph(parts[0], images[:count])
        wanted = run_graph(parts[1], *wanted) if len(parts) == 2 else wanted
        if difference_of(wanted, outputs) > TOLERANCE:
            raise SSDError("the network and the post-processing give other outputs together than in turn; nothing was "
                           "kept")
    return outputs


def describe_graph(model):
    """{"opset": {domain: version}, "operators": names in order} of a ModelProto."""
    return {"opset": {one.domain or "ai.onnx": one.version for one in model.opset_import},
            "operators": sorted({node.op_type for node in all_nodes(model.graph)})}


def run_graph(model, *arrays):
    """The outputs of a ModelProto for arrays in the order of its inputs."""
    session = open_session(model.SerializeToString())
    return session.run(None, {one.name: array for one, array in zip(session.get_inputs(), arrays)})


def write_graph(onnx, cell, images, aside, path):
    """The graph as MindSpore writes it, through the file `aside`. Raises EnvironmentFault, OptionError."""
    try:
        with plain_name(aside) as name:
            ms.onnx.export(cell, ms.Tensor(images), file_name=name, input_names=["images"])
        return onnx.load(aside)
    except OSError as error:
        raise EnvironmentFault(f"'{path}' could not be written: {error.strerror}") from error
    except RuntimeError as error:
        raise OptionError(f"this network cannot be written as ONNX ({' '.join(str(error).split())[:150]}); "
                          "use --file_format=MINDIR") from error


def name_outputs(graph, names):
    """graph with its outputs called `names` wherever they are made and used."""
    renamed = {output.name: name for output, name in zip(graph.graph.output, names)}
    for node in graph.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [renamed.get(name, name) for name in ends]
    for output in graph.graph.output:
        output.name = renamed[output.name]
    return graph


def compare_finish(cell, finish, batch_size):
    """The largest difference between the post-processing of a Detector and its graph, on drawn logits and deltas."""
    shapes = [[side.dim_value for side in one.type.tensor_type.shape.dim] for one in finish.graph.input]
    drawn = draw_predictions(batch_size, *shapes[0][1:])
    wanted = [one.asnumpy() for one in cell.finish(*(ms.Tensor(one) for one in drawn))]
    return difference_of(wanted, run_graph(finish, *drawn))


def draw_predictions(batch_size, anchors, num_classes):
    """logits [B, A, C] and deltas [B, A, 4] of DRAWN overlapping objects of three classes an image, no score twice."""
    rng = np.random.default_rng(0)
    count = min(DRAWN, anchors)
    logits = np.full((batch_size, anchors, num_classes), -200, np.float32)  # a score of 0 by sigmoid and by softmax
    logits[..., 0] = 0
    for image in logits:
        first = rng.integers(anchors - count + 1)
        score = rng.permutation(np.linspace(0.02, 0.98, count))
        label = 1 + np.arange(count) % min(3, num_classes - 1)
        image[np.arange(first, first + count), label] = np.log(score / (1 - score))
    return logits, rng.normal(0, 0.5, (batch_size, anchors, 4)).astype(np.float32)
