"""Hugging Face's .safetensors: https://github.com/huggingface/safetensors#format."""
from __future__ import annotations

import json
from typing import BinaryIO

import numpy as np

from src.errors import DataError
from src.weights.formats.archive import FREE_BYTES
from src.weights.formats.raw_numbers import to_numbers, to_shape

MAX_HEADER = 100_000_000  # bytes of JSON that the format allows
CODES = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "bf16", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
         "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "b1"}


def read(file: BinaryIO) -> dict[str, np.ndarray] | None:
    """Eight bytes of length, so much JSON {name: dtype, shape, data_offsets}, the numbers in little endian."""
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        return None
    header = json.loads(file.read(length))
    data = file.read()
    header.pop("__metadata__", None)
    arrays, total = {}, 0
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        if entry["dtype"] not in CODES:
            raise DataError(f"'{name}' has the type {entry['dtype']}; known are {', '.join(CODES)}")
        if not 0 <= start <= end <= len(data):
            raise DataError(f"'{name}' lies at {start}..{end} of {len(data)} bytes; the file is damaged or cut short")
        total += end - start
        if total > len(data) + FREE_BYTES:
            raise DataError(f"its tensors overlap: up to '{name}' they have {total} bytes, the file {len(data)}; it is "
                            "damaged")
        arrays[name] = to_shape(to_numbers(data[start:end], CODES[entry["dtype"]]), entry["shape"], name)
    return arrays
