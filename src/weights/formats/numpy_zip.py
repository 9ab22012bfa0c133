"""NumPy's savez: a zip archive of .npy files."""
from __future__ import annotations

from typing import BinaryIO

import numpy as np

from src.errors import DataError
from src.weights.formats.archive import open_archive


def read(file: BinaryIO) -> dict[str, np.ndarray]:
    """The arrays by their names. Raises DataError if there are none, ValueError for pickled objects."""
    open_archive(file)
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        if not any(name.endswith(".npy") for name in archive.zip.namelist()):
            raise DataError("a zip file without data.pkl (PyTorch) or .npy files (NumPy)")
        return {name: archive[name] for name in archive.files}
