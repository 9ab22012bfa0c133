"""Exports a detector as MindIR and proves that the file computes the same. What any exported file says of itself."""
import contextlib
import json
import os
import tempfile

import mindspore as ms
import numpy as np

from src.errors import EnvironmentFault, NotFiniteError, OptionError, SSDError
from src.files import ASIDE, write_atomic
from src.inference.description import DETECTIONS, FORMATS, RAW, RESIZES, detector_arguments, sidecar_of
from src.inference.exported import open_mindir, run_cell
from src.machine.compat import refuse_old
from src.models.detector import AnyBatchDetector, Detector, RawDetector, TracedDetector
from src.models.fold import fold_norms

TOLERANCE = 1e-4  # float32 rounds differently where the order of operations differs
FREE_TRIAL = 2  # images a file for any number is compared on, after it was on one


def export_mindir(model, meta, path, batch_size, raw):
    """Writes path (.mindir) and its .json. Returns the content of the .json.

    model: its norms are folded (models/fold.py), so it cannot be trained afterwards. batch_size: images a call, 0 for a
    file that takes any number. Both files are written aside and renamed only after the loaded one gave the outputs of
    the network on random pixels within TOLERANCE. Raises SSDError when it does not, NotFiniteError.
    """
    if batch_size == 0:
        refuse_old("--export_batch_size=0")
    images, aside = random_images(model, batch_size or FREE_TRIAL), name_aside(path)
    before = require_finite(run_cell(RawDetector(model), images))
    fold_norms(model.network)
    thresholds = detector_arguments(meta)
    cell = RawDetector(model) if raw else (Detector if batch_size else AnyBatchDetector)(model, **thresholds)
    cell.set_train(False)
    shape = [batch_size or None, *images.shape[1:]]
    try:
        write_mindir(cell, ms.Tensor(images) if batch_size else ms.Tensor(shape=shape, dtype=ms.uint8), aside, path)
        twin, file = cell if raw else TracedDetector(model, **thresholds), open_mindir(aside, shape)
        counts = sorted({len(images) if batch_size else 1, len(images)})
        difference, found = compare_mindir(before, twin, file, [images[:count] for count in counts])
        return keep(aside, path, shape, found, {**meta, "raw": raw, "largest_difference": difference})
    finally:
        with contextlib.suppress(OSError):
            os.remove(aside)


def compare_mindir(before, twin, file, batches):
    """The largest difference between network and file, and what the file gave last. Raises SSDError, NotFiniteError.

    before: logits and deltas of the network as it was; twin: cell of the folded one, which gives the outputs of the
    file and then logits and deltas; file: function of images; batches: the images of each call.
    """
    difference = 0.0
    for images in batches:
        expected, found = run_cell(twin, images), file(images)
        difference = max(difference, difference_of([one[:len(images)] for one in before], expected[-2:]),
                         difference_of(expected[:len(found)], found))
    if difference > TOLERANCE:
        raise SSDError(f"the exported file differs from the network by {difference:.3g}; nothing was kept")
    return difference, found


def write_mindir(cell, pixels, aside, path):
    """The graph of a cell into the file `aside`. Raises EnvironmentFault, which names the path the user gave."""
    try:
        with plain_name(aside) as name:
            ms.export(cell, pixels, file_name=name, file_format="MINDIR")
    except (OSError, RuntimeError) as error:
        raise EnvironmentFault(f"'{path}' could not be written: {' '.join(str(error).split())[:200]}") from error


def difference_of(expected, found):
    """The largest difference between two lists of arrays, as a share of the largest value where that exceeds 1.

    Raises NotFiniteError, so that the result is a number.
    """
    require_finite(expected)
    require_finite(found, "the exported file")
    return max(float(np.abs(a.astype(float) - b).max() / max(1, np.abs(a).max())) for a, b in zip(expected, found))


def require_finite(outputs, whose="the network"):
    """The arrays `outputs`. Raises NotFiniteError where one holds NaN or infinity: no comparison would notice it."""
    if not all(np.isfinite(one).all() for one in outputs):
        raise NotFiniteError(f"{whose} gives NaN or infinity on the pixels it is compared on; nothing was kept")
    return outputs


def random_images(model, batch_size):
    """The pixels a file is compared on: [B, S, S, 3] uint8."""
    return np.random.default_rng(0).integers(0, 256, (batch_size, model.image_size, model.image_size, 3), np.uint8)


def name_aside(path):
    """Where the file of this process waits until it is proven, in the folder of path and with its ending."""
    return os.path.join(os.path.dirname(os.path.abspath(path)), f"{ASIDE}{os.getpid()}{os.path.splitext(path)[1]}")


@contextlib.contextmanager
def plain_name(path):
    """A name of path that MindSpore's exports take, which refuse spaces and all letters but a to z; valid inside only.

    It is relative to a temporary working folder, which also takes what MindSpore leaves when it fails.
    """
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(os.path.dirname(path), os.path.join(folder, "to"))
        os.chdir(folder)
        try:
            yield os.path.join("to", os.path.basename(path))
        finally:
            os.chdir(before)


def keep(aside, path, shape, outputs, facts):
    """Renames a proven file to path and writes its .json, facts with inputs and outputs; returns that content.

    shape: of the images, the first None for any number. outputs: arrays that came out.
    """
    layout = f"NHWC, RGB, 0..255, {RESIZES[facts['resize']]}"
    names = RAW if facts["raw"] else DETECTIONS
    shapes = {name: {"shape": [shape[0], *one.shape[1:]], "dtype": str(one.dtype)} for name, one in zip(names, outputs)}
    facts = {**facts, "format": FORMATS[os.path.splitext(path)[1]], "batch_size": shape[0] or 0, "outputs": shapes,
             "inputs": {"images": {"shape": shape, "dtype": "uint8", "layout": layout}}}
    write_atomic(sidecar_of(path), json.dumps(facts, indent=1).encode())
    os.chmod(aside, 0o644)  # MindSpore lets only the owner read
    os.replace(aside, path)
    return facts


def refuse_neighbour(path, facts):
    """Raises OptionError where a file in another format shares the .json beside path, and other facts would replace it.

    The same facts (a second format of one checkpoint) may be written again.
    """
    stem, ending = os.path.splitext(path)
    other = next((stem + one for one in FORMATS if one != ending and os.path.isfile(stem + one)), None)
    if other is None:
        return
    try:
        with open(sidecar_of(path), encoding="utf-8") as file:
            held = dict(json.load(file))
    except (OSError, ValueError, TypeError):
        return  # there is none, or it describes nothing
    for key, value in facts.items():
        if key in held and held[key] != value:
            raise OptionError(f"'{sidecar_of(path)}' describes '{other}' with {key} {str(held[key])[:100]}, not "
                              f"{str(value)[:100]}; choose another --file_name, or remove '{other}'")
