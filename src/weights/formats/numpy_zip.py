"""NumPy's savez: a zip archive of .npy files."""
from __future__ import annotations

from typing import BinaryIO

import numpy as np

from src.errors import DataError


def matches(file: BinaryIO) -> bool:
    """Whether the file is a zip archive."""
    return file.read(4) == b"PK\3\4"


def read(file: BinaryIO) -> dict[str, np.ndarray]:
    """The arrays of the archive. Raises DataError if there are none, ValueError for pickled objects."""
    with np.load(file, allow_pickle=False) as archive:
        if not any(name.endswith(".npy") for name in archive.zip.namelist()):
            raise DataError("a zip file without data.pkl (PyTorch) or .npy files (NumPy)")
        return {name: archive[name] for name in archive.files}
