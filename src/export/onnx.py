"""Writes ONNX files (opset 11). MindSpore writes the graph; here its outputs get names, and its batch becomes free."""
from __future__ import annotations

import os
from typing import TYPE_CHECKING

import mindspore as ms
import numpy as np

from src.errors import OptionError, SSDError
from src.export import onnx_graph
from src.export.onnx_graph import describe_graph, run_graph
from src.export.trial import Trial, difference_of, refuse_difference
from src.inference.description import DETECTIONS, RAW
from src.inference.onnx_session import import_optional, open_session
from src.models.detector import RawDetector, TracedDetector
from src.progress import quiet

if TYPE_CHECKING:
    from onnx import ModelProto

DRAWN = 200  # detections per image in the comparison of the post-processing


def write_onnx(trial: Trial, path: str) -> tuple[list[np.ndarray], float, dict]:
    """Writes the graph into path and compares it in onnxruntime. Returns its outputs, the largest difference, facts.

    Logits and deltas are compared on random pixels, the post-processing on drawn logits and deltas: a network that sees
    noise may find nothing, or give equal scores, between which MindSpore chooses at random. Raises SSDError for a
    difference, OptionError where MindSpore knows no ONNX for an operator of the network.
    """
    onnx = import_optional("onnx")
    import_optional("onnxruntime")
    cell = RawDetector(trial.model) if trial.raw else TracedDetector(trial.model, **trial.thresholds)
    cell.set_train(False)
    try:
        parts = build_parts(trace(cell, trial.batches()[0], path), trial)
        difference = 0.0 if trial.raw else compare_finish(cell, parts[1], len(trial.images))
        refuse_difference(difference)
        difference = max(difference, difference_of(trial.expected, run_graph(parts[0], trial.images)))
        if not trial.quantize:
            refuse_difference(difference)
        joined = parts[0] if trial.raw else onnx_graph.join(*parts)
        onnx.save(joined, path)
        onnx.checker.check_model(path, full_check=True)
        return compare_joined(parts, trial, path), difference, describe_graph(joined)
    except (ValueError, onnx.checker.ValidationError) as error:
        raise SSDError(f"the exported file cannot be used: {' '.join(str(error).split())[:300]}") from error


def trace(cell: ms.nn.Cell, images: np.ndarray, path: str) -> ModelProto:
    """The ModelProto that MindSpore makes of a cell, through the file path. Raises OptionError, OSError."""
    try:
        with quiet():  # it logs what is raised here
            ms.onnx.export(cell, ms.Tensor(images), file_name=path, input_names=["images"])
    except RuntimeError as error:
        raise OptionError(f"this network cannot be written as ONNX ({' '.join(str(error).split())[:150]}); "
                          "use --file_format=MINDIR") from error
    if not os.path.isfile(path):  # on a full disk it logs an error and returns
        raise OSError("MindSpore wrote no file; is the disk full?")
    return import_optional("onnx").load(path)


def build_parts(model: ModelProto, trial: Trial) -> list[ModelProto]:
    """A traced ModelProto -> the network and, unless raw, the post-processing, as they are written."""
    onnx_graph.name_outputs(model, RAW if trial.raw else (*DETECTIONS, *RAW))
    network, *finish = onnx_graph.cut(model, [["images"], RAW] if trial.raw else [["images"], RAW, DETECTIONS])
    if trial.batch_size == 0:
        network = onnx_graph.free_batch(network)
    if trial.quantize:
        network = trial.quantize(network, trial.batch_size)
    finish = [onnx_graph.with_opset_of(network, part) for part in finish]
    if trial.batch_size == 0:
        finish = [onnx_graph.for_each_image(part) for part in finish]
    return [network, *finish]


def compare_joined(parts: list[ModelProto], trial: Trial, path: str) -> list[np.ndarray]:
    """The outputs of the file path. Raises SSDError where they are not those of its parts one by one."""
    session = open_session(path)
    for images in trial.batches():
        outputs, expected = session.run(None, {"images": images}), [images]
        for part in parts:
            expected = run_graph(part, *expected)
        refuse_difference(difference_of(expected, outputs))
    return outputs


def compare_finish(cell: TracedDetector, finish: ModelProto, batch_size: int) -> float:
    """The largest difference between the post-processing of a Detector and its graph, on drawn logits and deltas."""
    _, anchors, num_classes = (side.dim_value for side in finish.graph.input[0].type.tensor_type.shape.dim)
    drawn = draw_predictions(batch_size, anchors, num_classes)
    expected = [output.asnumpy() for output in cell.finish(*(ms.Tensor(array) for array in drawn))]
    return difference_of(expected, run_graph(finish, *drawn))


def draw_predictions(batch_size: int, anchors: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """logits [B, A, C] and deltas [B, A, 4] of DRAWN overlapping objects of three classes per image, no score twice."""
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
