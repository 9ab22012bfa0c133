"""Paddle's .pdparams: one pickle of numpy arrays."""
from __future__ import annotations

from typing import BinaryIO

import numpy as np

from src.weights.formats.tensor_pickle import TensorUnpickler, to_arrays


def matches(file: BinaryIO) -> bool:
    """Whether the file is a pickle of protocol 2 or later."""
    return file.read(1) == b"\x80"


def read(file: BinaryIO) -> dict[str, np.ndarray]:
    """The arrays of the pickled dict."""
    return to_arrays(TensorUnpickler(file).load(), {})
