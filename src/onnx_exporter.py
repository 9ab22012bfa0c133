"""Exports a detector as ONNX and proves with onnxruntime that the file computes the same.

MindSpore writes the graph (opset 11). It gives an output that also feeds another node no name of ours, so the outputs
are renamed here.
"""
import os
from contextlib import suppress

import mindspore as ms
import numpy as np

from src.detector import Detector, RawDetector
from src.errors import EnvironmentFault, OptionError, SSDError
from src.exporter import DETECTIONS, RAW, THRESHOLDS, TOLERANCE, keep, name_aside, random_images
from src.onnx_session import import_optional, open_session

DRAWN = 200  # detections an image in the comparison of the post-processing


class TracedDetector(Detector):
    """A Detector that also gives logits and deltas, which makes the border between its two parts known by name."""

    def construct(self, images):
        logits, deltas = self.network(self.normalize(images))
        return (*self.finish(logits, deltas), logits, deltas)


def export_onnx(model, meta, path, batch_size, raw):
    """Writes path (.onnx) and its .json. Returns the content of the .json.

    model: fresh; MindSpore cannot write a network with BatchNorm twice. The file is written aside and renamed after
    onnx.checker and onnxruntime took it and it agreed with the network within TOLERANCE (see `compare`). Raises
    SSDError when it does not, OptionError where MindSpore knows no ONNX for an operator of the network.
    """
    onnx = import_optional("onnx")
    import_optional("onnxruntime")
    cell = RawDetector(model) if raw else TracedDetector(model, *(meta[name] for name in THRESHOLDS))
    cell.set_train(False)
    images, aside = random_images(model, batch_size), name_aside(path)
    try:
        graph = name_outputs(write_graph(onnx, cell, images, aside, path), RAW if raw else (*DETECTIONS, *RAW))
        outputs, difference = compare(onnx, cell, graph, images, raw)
        if not raw:
            del graph.graph.output[len(DETECTIONS):]
        onnx.save(graph, aside)
        onnx.checker.check_model(aside)
        loaded = open_session(aside).run(None, {"images": images})
        difference = max(difference, difference_of(outputs[:len(loaded)], loaded))
        if difference > TOLERANCE:
            raise SSDError(f"the exported file differs from the network by {difference:.3g}; nothing was kept")
        opset = {one.domain or "ai.onnx": one.version for one in graph.opset_import}
        return keep(aside, path, images, loaded, {
            **meta, "raw": raw, "largest_difference": difference, "opset": opset,
            "operators": sorted({node.op_type for node in graph.graph.node})})
    except (ValueError, onnx.checker.ValidationError) as error:
        raise SSDError(f"the exported file cannot be used: {' '.join(str(error).split())[:300]}") from error
    finally:
        with suppress(OSError):
            os.remove(aside)


def write_graph(onnx, cell, images, aside, path):
    """The graph as MindSpore writes it, through the file `aside`. Raises EnvironmentFault, OptionError."""
    try:
        ms.onnx.export(cell, ms.Tensor(images), file_name=aside, input_names=["images"])
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


def compare(onnx, cell, graph, images, raw):
    """Outputs of the graph on random pixels, and its largest difference from the cell.

    Logits and deltas are compared on these pixels. The post-processing is compared on drawn ones of both: a network
    that sees noise may find nothing, or give equal scores, between which MindSpore chooses at random.
    """
    outputs = open_session(graph.SerializeToString()).run(None, {"images": images})
    expected = [one.asnumpy() for one in cell(ms.Tensor(images))]
    difference = difference_of(expected[-2:], outputs[-2:])
    if not raw:
        drawn = draw_predictions(*expected[-2].shape)
        tail = onnx.utils.Extractor(graph).extract_model(list(RAW), list(DETECTIONS))
        found = open_session(tail.SerializeToString()).run(None, dict(zip(RAW, drawn)))
        wanted = [one.asnumpy() for one in cell.finish(*(ms.Tensor(one) for one in drawn))]
        difference = max(difference, difference_of(wanted, found))
    return outputs, difference


def difference_of(expected, found):
    """The largest difference between two lists of arrays, as a share of the largest value where that exceeds 1."""
    return max(float(np.abs(a.astype(float) - b).max() / max(1, np.abs(a).max())) for a, b in zip(expected, found))


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
