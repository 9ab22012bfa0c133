"""Exports a detector as MindIR and proves that the file computes the same. What any exported file says of itself."""
import json
import os

import mindspore as ms
import numpy as np
from mindspore import nn

from src.detector import Detector, RawDetector
from src.errors import EnvironmentFault, OptionError, SSDError
from src.files import write_whole

TOLERANCE = 1e-4  # the graph is the same; another fusion may round differently
FORMATS = {".mindir": "MINDIR", ".onnx": "ONNX"}
THRESHOLDS = ("min_score", "nms_threshold", "nms_candidates", "max_boxes")
RESIZES = {"bilinear": "resized bilinearly (OpenCV)", "antialias": "resized bilinearly with antialiasing (Pillow)"}
DETECTIONS, RAW = ("boxes", "scores", "labels", "count"), ("logits", "deltas")


def export_mindir(model, meta, path, batch_size, raw):
    """Writes path (.mindir) and its .json. Returns the content of the .json.

    Both are written aside and renamed only after the loaded file gave the outputs of the network on random pixels
    within TOLERANCE. Raises SSDError when it does not.
    """
    cell = RawDetector(model) if raw else Detector(model, *(meta[name] for name in THRESHOLDS))
    cell.set_train(False)
    images, aside = random_images(model, batch_size), name_aside(path)
    try:
        ms.export(cell, ms.Tensor(images), file_name=aside[:-len(".mindir")], file_format="MINDIR")
    except (OSError, RuntimeError) as error:
        raise EnvironmentFault(f"'{path}' could not be written: {' '.join(str(error).split())[:200]}") from error
    expected = [one.asnumpy() for one in cell(ms.Tensor(images))]
    reloaded = [one.asnumpy() for one in nn.GraphCell(ms.load(aside))(ms.Tensor(images))]
    difference = max(float(np.abs(a.astype(float) - b).max()) for a, b in zip(expected, reloaded))
    if difference > TOLERANCE:
        os.remove(aside)
        raise SSDError(f"the exported file differs from the network by {difference:.3g}; nothing was kept")
    return keep(aside, path, images, expected, {**meta, "raw": raw, "largest_difference": difference})


def random_images(model, batch_size):
    """The pixels a file is compared on: [B, S, S, 3] uint8."""
    return np.random.default_rng(0).integers(0, 256, (batch_size, model.image_size, model.image_size, 3), np.uint8)


def name_aside(path):
    """Where the file waits until it is proven, in the folder of path and with its ending."""
    return os.path.join(os.path.dirname(os.path.abspath(path)), f".writing.{os.path.basename(path)}")


def keep(aside, path, images, outputs, facts):
    """Renames a proven file to path and writes its .json, facts with inputs and outputs; returns that content.

    images, outputs: arrays as they went in and came out.
    """
    layout = f"NHWC, RGB, 0..255, {RESIZES[facts['resize']]}"
    names = RAW if facts["raw"] else DETECTIONS
    shapes = {name: {"shape": list(one.shape), "dtype": str(one.dtype)} for name, one in zip(names, outputs)}
    facts = {**facts, "format": FORMATS[os.path.splitext(path)[1]], "batch_size": len(images), "outputs": shapes,
             "inputs": {"images": {"shape": list(images.shape), "dtype": "uint8", "layout": layout}}}
    write_whole(sidecar_of(path), json.dumps(facts, indent=1).encode())
    os.chmod(aside, 0o644)  # MindSpore lets only the owner read
    os.replace(aside, path)
    return facts


def sidecar_of(path):
    """The .json beside an exported file."""
    return f"{os.path.splitext(path)[0]}.json"


def refuse_neighbour(path, facts):
    """Raises OptionError where the .json beside path tells other facts of a file in another format, and would be lost.

    The same facts (a second format of one checkpoint) may be written again.
    """
    stem, ending = os.path.splitext(path)
    try:
        with open(sidecar_of(path), encoding="utf-8") as file:
            held = json.load(file)
        other = next(key for key, name in FORMATS.items() if name == held.get("format", "MINDIR"))
    except (OSError, ValueError, AttributeError, StopIteration):
        return  # there is none, or it describes nothing
    if other == ending or not os.path.isfile(stem + other):
        return
    for key, value in facts.items():
        if key in held and held[key] != value:
            raise OptionError(f"'{sidecar_of(path)}' describes '{stem}{other}' with {key} {str(held[key])[:100]}, not "
                              f"{str(value)[:100]}; choose another --file_name")
