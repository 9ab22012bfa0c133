"""Paddle's .pdparams: one pickled dict of numpy arrays."""
from __future__ import annotations

from typing import BinaryIO

import numpy as np

from src.weights.formats.tensor_pickle import TensorUnpickler, to_arrays


def read(file: BinaryIO) -> dict[str, np.ndarray]:
    """The arrays by their names."""
    return to_arrays(TensorUnpickler(file).load(), {})
