"""Checkpoints that describe themselves: parameters and one JSON text with model, classes and the state of the run."""
import contextlib
import json
import os
import re
from pathlib import Path

import mindspore as ms
import numpy as np

from src.errors import DataError, EnvironmentFault, OptionError
from src.files import folder_aside
from src.machine.compat import CHECKSUM, load_checkpoint
from src.progress import quiet

META = "ssd_meta"


def save(path, parameters, meta):
    """Writes Parameter objects and meta (a JSON-able dict) aside and renames, so that a file is whole or absent."""
    rows = [{"name": one.name, "data": one} for one in parameters]
    try:
        with folder_aside(path) as folder:  # MindSpore writes to another name still, and knows names in .ckpt only
            aside = os.path.join(folder, "aside.ckpt")
            with quiet():
                ms.save_checkpoint(rows, aside, append_dict={META: json.dumps(meta)}, **CHECKSUM)
            os.chmod(aside, 0o644)  # MindSpore lets only the owner read
            with open(aside, "rb") as file:
                os.fsync(file.fileno())  # else a crash of the machine can leave the new name with old bytes
            os.replace(aside, path)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EnvironmentFault(f"checkpoint '{path}' could not be written: {reason}") from error


def load(path):
    """Reads a .ckpt -> {name: array}, meta (empty for a checkpoint that is not ours). Raises OptionError, DataError."""
    if not os.path.isfile(path):
        there = ", ".join(sorted(one.name for one in Path(path).parent.glob("*.ckpt")))
        raise OptionError(f"checkpoint '{path}' is not a file" + (f"; there is {there}" if there else ""))
    try:
        with quiet():
            values = load_checkpoint(path)  # a file without a checksum passes
    except (ValueError, RuntimeError, TypeError, AttributeError, EOFError) as error:
        raise DataError(f"checkpoint '{path}' is damaged or no MindSpore checkpoint "
                        f"({os.path.getsize(path)} bytes); use another one") from error
    meta = json.loads(str(values.pop(META, "{}")))
    return {name: one.asnumpy() if hasattr(one, "asnumpy") else np.asarray(one) for name, one in values.items()}, meta


def load_newest(folder, say):
    """The state a run goes on from: last.ckpt, or where that is damaged the newest other one -> values, meta, path.

    say(text) tells which were damaged. Raises OptionError when none is left.
    """
    states = [path for path in Path(folder).glob("*.ckpt") if path.name != "diverged.ckpt"]
    for path in map(str, sorted(states, key=lambda one: (one.name != "last.ckpt", -one.stat().st_mtime))):
        try:
            values, meta = load(path)
        except DataError as error:
            say(f"warning: {error}")
            continue
        if "steps_done" in meta:
            return values, meta, path
    raise OptionError(f"--resume=True, but '{folder}' holds no checkpoint of a run that is whole; start anew with "
                      "another --output_path")


def save_run(folder, name, parameters, meta, keep=0):
    """Writes folder/name.ckpt; with keep, removes all but the newest `keep` numbered ones (epoch_NUMBER.ckpt)."""
    save(os.path.join(folder, f"{name}.ckpt"), parameters, meta)
    numbers = (re.fullmatch(r"epoch_(\d{4,})\.ckpt", old) for old in os.listdir(folder))
    for number in sorted((one[1] for one in numbers if one), key=int)[:-keep] if keep else []:
        with contextlib.suppress(OSError):  # one that cannot be removed is no reason to end a run
            os.remove(os.path.join(folder, f"epoch_{number}.ckpt"))
