"""Checkpoints that describe themselves: parameters, and one JSON text with model, classes and the state of the run."""
from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable

import mindspore as ms
import numpy as np

from src.errors import DataError, EnvironmentFault
from src.files import folder_aside
from src.machine.compat import CHECKSUM, load_checkpoint
from src.progress import quiet
from src.weights.meta import read_meta

META = "ssd_meta"


def save(path: str, parameters: Iterable[ms.Parameter], meta: dict) -> None:
    """Writes parameters and meta (JSON-able) aside, then renames: no half file remains. Raises EnvironmentFault."""
    rows = [{"name": parameter.name, "data": parameter} for parameter in parameters]
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


def load(path: str) -> tuple[dict[str, np.ndarray], dict]:
    """{name: array} and meta, {} if another program wrote the file. For files.open_weights alone. Raises DataError."""
    values, meta = read(path)
    return {name: value.asnumpy() if hasattr(value, "asnumpy") else np.asarray(value)
            for name, value in values.items()}, meta


def read(path: str) -> tuple[dict, dict]:
    """{name: Parameter or what else MindSpore stores} and meta of a checkpoint. Raises DataError."""
    try:
        with quiet():
            values = load_checkpoint(path)  # a file without a checksum passes
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes can raise any error
        raise DataError(f"checkpoint '{path}' is damaged or not a MindSpore checkpoint "
                        f"({os.path.getsize(path)} bytes); use another one") from error
    return values, read_meta(str(values.pop(META, "{}")), path)


def save_run(folder: str, name: str, parameters: Iterable[ms.Parameter], *, meta: dict, keep: int = 0) -> None:
    """Writes folder/name.ckpt; with keep, removes all but the newest `keep` numbered ones (epoch_NUMBER.ckpt)."""
    save(os.path.join(folder, f"{name}.ckpt"), parameters, meta)
    if keep:
        found = (re.fullmatch(r"epoch_(\d{4,})\.ckpt", old) for old in os.listdir(folder))
        numbers = sorted((match[1] for match in found if match), key=int)
        for number in numbers[:-keep]:
            with contextlib.suppress(OSError):  # a run goes on if one cannot be removed
                os.remove(os.path.join(folder, f"epoch_{number}.ckpt"))


def amend(path: str, facts: dict) -> None:
    """Adds facts (JSON-able) to the meta of a checkpoint of ours; its parameters stay as they are, to the last bit.

    Raises DataError where another program wrote the file, EnvironmentFault where it cannot be written.
    """
    values, meta = read(path)
    if not meta:
        raise DataError(f"'{path}' does not describe itself, so nothing can be added to it")
    save(path, values.values(), {**meta, **facts})
