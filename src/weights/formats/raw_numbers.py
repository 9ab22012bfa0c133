"""Raw bytes -> arrays of numbers. Types have numpy's codes, and "bf16", which numpy lacks."""
from __future__ import annotations

import math

import numpy as np

from src.errors import DataError


def to_numbers(data: bytes, code: str, order: str = "<") -> np.ndarray:
    """A flat array in the byte order of this machine. bfloat16 becomes float32, whose upper half it is."""
    if code == "bf16":
        return (to_numbers(data, "u2", order).astype(np.uint32) << 16).view(np.float32)
    stored = np.dtype(order + code)
    return np.frombuffer(data, stored).astype(stored.newbyteorder("="))


def bytes_each(code: str) -> int:
    """How many bytes one number takes."""
    return 2 if code == "bf16" else np.dtype(code).itemsize


def to_shape(numbers: np.ndarray, shape: list[int], name: str) -> np.ndarray:
    """A flat array in its shape. Raises DataError if it has another number of elements."""
    if min(shape, default=0) < 0 or math.prod(shape) != len(numbers):
        raise DataError(f"'{name}' has {len(numbers)} numbers for the shape {shape}; the file is damaged or cut short")
    return numbers.reshape(shape)
