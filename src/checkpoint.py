"""Checkpoints that describe themselves: parameters and one JSON text with model, classes and the state of the run."""
import glob
import json
import os

import mindspore as ms
import numpy as np

from src.errors import DataError, EnvironmentFault, OptionError

META = "ssd_meta"


def save(path, parameters, meta):
    """Writes Parameter objects and meta (a JSON-able dict) aside and renames, so that a file is whole or absent."""
    aside = os.path.join(os.path.dirname(path), f".writing.{os.path.basename(path)}")
    rows = [{"name": one.name, "data": one} for one in parameters]
    try:
        ms.save_checkpoint(rows, aside, append_dict={META: json.dumps(meta)})
        os.chmod(aside, 0o644)  # MindSpore lets only the owner read
        os.replace(aside, path)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EnvironmentFault(f"checkpoint '{path}' could not be written: {reason}") from error


def load(path):
    """Reads a .ckpt -> {name: array}, meta (empty for a checkpoint that is not ours). Raises OptionError, DataError."""
    if not os.path.isfile(path):
        there = ", ".join(sorted(glob.glob("*.ckpt", root_dir=os.path.dirname(path) or ".")))
        raise OptionError(f"checkpoint '{path}' is not a file" + (f"; there is {there}" if there else ""))
    try:
        values = ms.load_checkpoint(path)
    except (ValueError, RuntimeError, TypeError, AttributeError, EOFError) as error:
        raise DataError(f"checkpoint '{path}' is damaged or no MindSpore checkpoint "
                        f"({os.path.getsize(path)} bytes); use another one") from error
    meta = json.loads(str(values.pop(META, "{}")))
    return {name: one.asnumpy() if hasattr(one, "asnumpy") else np.asarray(one) for name, one in values.items()}, meta


def save_run(folder, name, parameters, meta, keep=0):
    """Writes folder/name.ckpt; with keep, removes all but the newest `keep` numbered ones (epoch_*.ckpt)."""
    save(os.path.join(folder, f"{name}.ckpt"), parameters, meta)
    for old in sorted(glob.glob("epoch_*", root_dir=folder))[:-keep] if keep else []:
        os.remove(os.path.join(folder, old))
