"""Checkpoints that describe themselves: parameters and one JSON text with model, classes and the state of the run."""
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
        folder = os.path.dirname(path) or "."
        there = sorted(name for name in os.listdir(folder) if name.endswith(".ckpt")) if os.path.isdir(folder) else []
        raise OptionError(f"checkpoint '{path}' is not a file" + (f"; there is {', '.join(there)}" if there else ""))
    try:
        values = ms.load_checkpoint(path)
    except (ValueError, RuntimeError, TypeError, AttributeError, EOFError) as error:
        raise DataError(f"checkpoint '{path}' is damaged or no MindSpore checkpoint "
                        f"({os.path.getsize(path)} bytes); use another one") from error
    meta = values.pop(META, None)
    return {name: as_array(value) for name, value in values.items()}, json.loads(str(meta)) if meta is not None else {}


def as_array(value):
    """numpy form of what load_checkpoint returns for a parameter or a number."""
    return value.asnumpy() if hasattr(value, "asnumpy") else np.asarray(value)


def save_run(folder, name, parameters, meta, keep=0):
    """Writes folder/name.ckpt; with keep, removes all but the newest `keep` numbered ones (epoch_*.ckpt)."""
    save(os.path.join(folder, f"{name}.ckpt"), parameters, meta)
    numbered = sorted(one for one in os.listdir(folder) if one.startswith("epoch_"))
    for old in numbered[:-keep] if keep else []:
        os.remove(os.path.join(folder, old))
