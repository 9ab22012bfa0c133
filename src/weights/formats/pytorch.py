"""PyTorch's torch.save: a zip archive since version 1.6, a row of pickles before."""
from __future__ import annotations

import io
import zipfile
from typing import BinaryIO

import numpy as np

from src.weights.formats.raw_numbers import bytes_each, to_numbers
from src.weights.formats.tensor_pickle import TensorUnpickler, to_arrays

ZIP = b"PK\3\4"
MAGIC_NUMBER = 0x1950a86a20f9469cfc6c  # first object of a file from before version 1.6
DESCRIPTION = "data.pkl"               # of the tensors, in an archive


def matches(file: BinaryIO) -> bool:
    """Whether torch.save wrote the file."""
    head = file.read(64)
    if head.startswith(ZIP):
        return bool(descriptions(zipfile.ZipFile(file)))
    return head.startswith(b"\x80") and MAGIC_NUMBER.to_bytes(10, "little") in head


def read(file: BinaryIO) -> dict[str, np.ndarray]:
    """The tensors of the state dict in the file."""
    is_zip = file.read(len(ZIP)) == ZIP
    file.seek(0)
    return read_archive(zipfile.ZipFile(file)) if is_zip else read_pickles(file)


def descriptions(archive: zipfile.ZipFile) -> list[str]:
    """Where an archive describes its tensors."""
    return [name for name in archive.namelist() if name.split("/")[-1] == DESCRIPTION]


def read_archive(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """ROOT/data.pkl describes the tensors. ROOT/data/KEY are the storages, in the byte order of ROOT/byteorder."""
    path = descriptions(archive)[0]
    root = path[:-len(DESCRIPTION)]
    unpickler = TensorUnpickler(io.BytesIO(archive.read(path)))
    tree = unpickler.load()
    big = f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder").strip() == b"big"
    order = ">" if big else "<"
    storages = {key: to_numbers(archive.read(f"{root}data/{key}"), storage.code, order)
                for key, storage in unpickler.storages.items()}
    return to_arrays(tree, storages)


def read_pickles(file: BinaryIO) -> dict[str, np.ndarray]:
    """Five pickles, the fourth of which is the object, then the storages in little endian, each behind its length."""
    for _ in ("magic number", "protocol", "machine"):
        TensorUnpickler(file).load()  # a new one for every pickle: each counts its memo from 0
    unpickler = TensorUnpickler(file)
    tree = unpickler.load()
    storages = {}
    for key in TensorUnpickler(file).load():
        count, code = int.from_bytes(file.read(8), "little"), unpickler.storages[key].code
        storages[key] = to_numbers(file.read(count * bytes_each(code)), code)
    return to_arrays(tree, storages)
