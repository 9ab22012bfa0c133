"""TensorFlow.js: model.json, whose weightsManifest lists groups of weights, and the shards beside it."""
from __future__ import annotations

import json
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

from src.errors import DataError
from src.weights.formats.raw_numbers import bytes_each, to_numbers, to_shape

CODES = {"float32": "f4", "float16": "f2", "int32": "i4", "uint16": "u2", "uint8": "u1", "bool": "b1",
         "complex64": "c8"}


def read(file: BinaryIO) -> dict[str, np.ndarray]:
    """The weights of all groups; those of a group lie one after the other in its shards, in little endian."""
    model, arrays = json.load(file), {}
    if "weightsManifest" not in model:
        raise DataError("JSON without the weightsManifest of TensorFlow.js")
    for group in model["weightsManifest"]:
        data, start = b"".join(path.read_bytes() for path in shards_of(group["paths"], Path(file.name).parent)), 0
        for entry in group["weights"]:
            name, stored = entry["name"], entry.get("quantization", entry)["dtype"]
            if stored not in CODES:
                raise DataError(f"'{name}' has the type {stored}; known are {', '.join(CODES)}")
            end = start + math.prod(entry["shape"]) * bytes_each(CODES[stored])
            numbers = dequantize(to_numbers(data[start:end], CODES[stored]), entry)
            arrays[name], start = to_shape(numbers, entry["shape"], name), end
        if start != len(data):
            raise DataError(f"{', '.join(group['paths'])} have {len(data)} bytes, model.json says {start}")
    return arrays


def shards_of(names: list[str], folder: Path) -> list[Path]:
    """The shards of a group. Raises DataError for one that is missing, named twice, or outside of the folder."""
    shards = [folder / name for name in names]
    for name, shard in zip(names, shards):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"its shard '{name}' is outside of its folder; only files in the folder are read")
        if not shard.is_file():
            raise DataError(f"its shard '{shard}' is missing")
    if len(set(shards)) < len(shards):
        raise DataError(f"a shard is named twice among {', '.join(names[:5])}; the file is damaged")
    return shards


def dequantize(stored: np.ndarray, entry: dict) -> np.ndarray:
    """stored * scale + min in the type of the weight, rounded for integers; float16 has neither scale nor min."""
    if "quantization" not in entry:
        return stored
    numbers = stored * float(entry["quantization"].get("scale", 1)) + float(entry["quantization"].get("min", 0))
    if entry["dtype"] == "int32":
        numbers = np.floor(numbers + 0.5)
    return numbers.astype(CODES[entry["dtype"]])
