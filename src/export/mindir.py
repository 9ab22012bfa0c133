"""Writes MindIR files."""
from __future__ import annotations

import mindspore as ms
import numpy as np

from src.export.trial import Trial, difference_of, refuse_difference
from src.inference.exported import open_mindir, run_cell
from src.models.detector import AnyBatchDetector, Detector, RawDetector, TracedDetector


def write_mindir(trial: Trial, path: str) -> tuple[list[np.ndarray], float, dict]:
    """Writes the graph into path and compares it. Returns its outputs, the largest difference, and no facts."""
    model, thresholds, shape = trial.model, trial.thresholds, [trial.batch_size or None, *trial.images.shape[1:]]
    if trial.raw:
        cell = twin = RawDetector(model)
    else:
        cell = Detector(model, **thresholds) if trial.batch_size else AnyBatchDetector(model, **thresholds)
        twin = TracedDetector(model, **thresholds)  # gives the outputs of cell, and logits and deltas
    cell.set_train(False)
    pixels = ms.Tensor(trial.images) if trial.batch_size else ms.Tensor(shape=shape, dtype=ms.uint8)
    try:
        ms.export(cell, pixels, file_name=path, file_format="MINDIR")
    except RuntimeError as error:  # so MindSpore says that a file cannot be written
        raise OSError(str(error)) from error
    file, difference = open_mindir(path, shape), 0.0
    for images in trial.batches():
        expected, outputs = run_cell(twin, images), file(images)
        before_fold = [output[:len(images)] for output in trial.expected]
        difference = max(difference, difference_of(before_fold, expected[-2:]),
                         difference_of(expected[:len(outputs)], outputs))
    refuse_difference(difference)
    return outputs, difference, {}
