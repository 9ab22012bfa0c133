"""PyTorch's torch.save: a zip archive since version 1.6, a row of pickles before."""
from __future__ import annotations

import io
import zipfile
from typing import BinaryIO

import numpy as np

from src.weights.formats.raw_numbers import bytes_each, to_numbers
from src.weights.formats.tensor_pickle import TensorUnpickler, to_arrays

MAGIC_NUMBER = 0x1950a86a20f9469cfc6c  # the first pickle of an old file


def read_archive(file: BinaryIO) -> dict[str, np.ndarray] | None:
    """ROOT/data.pkl describes the tensors. ROOT/data/KEY are the storages, in the byte order of ROOT/byteorder."""
    archive = zipfile.ZipFile(file)
    roots = [name[:-len("data.pkl")] for name in archive.namelist() if name.split("/")[-1] == "data.pkl"]
    if not roots:
        return None
    root = roots[0]
    unpickler = TensorUnpickler(io.BytesIO(archive.read(f"{root}data.pkl")))
    tree = unpickler.load()
    big = f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder").strip() == b"big"
    order = ">" if big else "<"
    return to_arrays(tree, {key: to_numbers(archive.read(f"{root}data/{key}"), storage.code, order)
                            for key, storage in unpickler.storages.items()})


def read_pickles(file: BinaryIO) -> dict[str, np.ndarray] | None:
    """Five pickles, the fourth of which is the object, then the storages in little endian, each behind its length."""
    if MAGIC_NUMBER.to_bytes(10, "little") not in file.read(64):
        return None
    file.seek(0)
    for _ in ("magic number", "protocol", "machine"):
        TensorUnpickler(file).load()  # a new one for every pickle: each counts its memo from 0
    unpickler = TensorUnpickler(file)
    tree, storages = unpickler.load(), {}
    for key in TensorUnpickler(file).load():
        count, code = int.from_bytes(file.read(8), "little"), unpickler.storages[key].code
        storages[key] = to_numbers(file.read(count * bytes_each(code)), code)
    return to_arrays(tree, storages)
