"""Caffe's .caffemodel: a NetParameter of caffe.proto (https://github.com/weiliu89/caffe/tree/ssd/src/caffe/proto)."""
from __future__ import annotations

import math
from typing import BinaryIO

import numpy as np

from src.errors import DataError
from src.weights.formats.protobuf import BYTES, integers, read_fields, read_varint, text
from src.weights.formats.raw_numbers import to_numbers, to_shape

# fields: of a layer in the network, of its name and its arrays in the layer; the second as Caffe had it until 2014
LAYERS = ((100, 1, 7), (2, 4, 6))
NAME_KEY, LAYER_KEY = 1 << 3 | BYTES, 100 << 3 | BYTES  # what a file begins with: the name of the network, or a layer
OLD_SHAPE, FLOATS, SHAPE, DOUBLES = (1, 2, 3, 4), 5, 7, 8  # fields of an array: num, channels, height, width; and so on


def read(file: BinaryIO) -> dict[str, np.ndarray] | None:
    """The arrays LAYER.0, LAYER.1, .. of all layers; None for another file that begins with a protobuf field 1."""
    start = memoryview(file.read(32))
    key, place = read_varint(start, 0)
    size, place = read_varint(start, place)
    # MindSpore's checkpoints and TensorFlow's graphs have a message there, which begins with its own field 1
    if key not in (NAME_KEY, LAYER_KEY) or (key == NAME_KEY and bytes(start[place:place + min(size, 1)]) == b"\n"):
        return None
    file.seek(0)
    network, arrays = read_fields(file.read()), {}
    for field, name_field, array_field in LAYERS:
        for layer in map(read_fields, network.get(field, ())):
            name = text(layer.get(name_field, []))
            arrays.update({f"{name}.{index}": read_array(read_fields(array), name)
                           for index, array in enumerate(layer.get(array_field, ()))})
    return arrays


def read_array(fields: dict[int, list], layer: str) -> np.ndarray:
    """A BlobProto: 32 or 64-bit floats, and their shape as a list or, until 2014, as four numbers. Raises DataError."""
    code, field = ("f8", DOUBLES) if DOUBLES in fields else ("f4", FLOATS)
    numbers = to_numbers(b"".join(fields.get(field, ())), code)
    if SHAPE in fields:
        shape = integers(read_fields(fields[SHAPE][-1]).get(1, ()))
    else:
        shape = [fields.get(number, [1])[-1] for number in OLD_SHAPE]
    if math.prod(shape) and not len(numbers):
        raise DataError(f"layer '{layer}' has no numbers for the shape {shape}; the file is damaged or of a Caffe "
                        "that keeps them otherwise")
    return to_shape(numbers, shape, layer)
