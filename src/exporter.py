"""Exports a detector and proves that the file computes the same."""
import json
import os

import mindspore as ms
import numpy as np
from mindspore import nn

from src.detector import Detector, RawDetector
from src.errors import EnvironmentFault, SSDError
from src.metrics import write_whole

TOLERANCE = 1e-4  # the graph is the same; another fusion may round differently


def export_mindir(model, meta, path, batch_size, raw):
    """Writes path (.mindir) and its .json. Returns the content of the .json.

    Both are written aside and renamed only after the loaded file gave the outputs of the network on random pixels
    within TOLERANCE. Raises SSDError when it does not.
    """
    thresholds = [meta[name] for name in ("min_score", "nms_threshold", "nms_candidates", "max_boxes")]
    cell = RawDetector(model) if raw else Detector(model, *thresholds)
    cell.set_train(False)
    size = model.image_size
    images = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), np.uint8)
    aside = os.path.join(os.path.dirname(os.path.abspath(path)), f".writing.{os.path.basename(path)}")
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
    names = ("logits", "deltas") if raw else ("boxes", "scores", "labels", "count")
    outputs = {name: {"shape": list(one.shape), "dtype": str(one.dtype)} for name, one in zip(names, expected)}
    layout = "NHWC, RGB, 0..255, resized bilinearly"
    meta = {**meta, "raw": raw, "batch_size": batch_size, "largest_difference": difference, "outputs": outputs,
            "inputs": {"images": {"shape": list(images.shape), "dtype": "uint8", "layout": layout}}}
    write_whole(f"{os.path.splitext(path)[0]}.json", json.dumps(meta, indent=1).encode())
    os.chmod(aside, 0o644)  # MindSpore lets only the owner read
    os.replace(aside, path)
    return meta
