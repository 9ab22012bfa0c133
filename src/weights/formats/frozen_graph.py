"""TensorFlow's frozen graphs (.pb): a GraphDef whose nodes of the kind Const hold the weights."""
from __future__ import annotations

import math
import mmap
import re
from typing import BinaryIO

import numpy as np

from src.errors import DataError
from src.weights.formats.protobuf import Message, integers, read_fields, read_varint, text
from src.weights.formats.raw_numbers import to_numbers, to_shape
from src.weights.formats.tensor_bundle import DTYPES, STRING, integer, to_dimensions

MAX_REPEATED = 1 << 24  # numbers of a whole file that are one value written once; no weights are stored so
# the field of a TensorProto that lists values of a type, and the type of what it lists
BYTES_OF = {"f4": (5, "f4"), "f8": (6, "f8"), "c8": (9, "c8")}
NUMBERS_OF = {"i8": 10, "b1": 11, "f2": 13, "bf16": 13, "u4": 16, "u8": 17}  # the smaller integers are in field 7


def read(file: BinaryIO) -> dict[str, np.ndarray] | None:
    """The numbers of all constants by the names of their nodes, None where it is a checkpoint of MindSpore.

    Both formats begin with a message of a name and something: here the kind of a node, there a tensor.
    """
    if file.name.endswith(".ckpt"):
        return None
    graph = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # what is not looked at is not read
    size, start = read_varint(graph, 1)
    if not re.fullmatch(r"\w+", text(read_fields(graph[start:start + size]).get(2, []))):
        return None
    arrays, repeated = {}, 0
    for node in map(read_fields, read_fields(graph).get(1, [])):
        if text(node.get(2, [])) == "Const":
            name = text(node[1])
            array, filled = to_array(constant(node, name), name, MAX_REPEATED - repeated)
            repeated += filled
            if array is not None:
                arrays[name] = array
    return arrays


def constant(node: Message, name: str) -> Message:
    """The TensorProto of a node: its attribute "value"."""
    for attribute in map(read_fields, node.get(5, [])):
        if text(attribute[1]) == "value":
            return read_fields(read_fields(attribute[2][0])[8][0])
    raise DataError(f"the constant '{name}' has no value; the file is damaged")


def to_array(tensor: Message, name: str, limit: int) -> tuple[np.ndarray | None, int]:
    """The array of a TensorProto, None for texts, and how many of its numbers repeat the last one, `limit` at most."""
    dtype, shape = integer(tensor, 1), to_dimensions(tensor)
    if dtype == STRING:
        return None, 0
    if dtype not in DTYPES:
        raise DataError(f"'{name}' has the type number {dtype}; known are {sorted(DTYPES)}")
    code = DTYPES[dtype]
    content = tensor.get(4, [b""])[0]
    if len(content):
        return to_shape(to_numbers(content, code), shape, name), 0
    values = listed(tensor, code)
    filled = max(math.prod(shape) - len(values), 0)
    if filled > limit:
        raise DataError(f"'{name}' repeats one value {filled} times; the file is damaged")
    if filled:
        last = values[-1:] if len(values) else np.zeros(1, values.dtype)
        values = np.concatenate([values, np.repeat(last, filled)])
    return to_shape(values, shape, name), filled


def listed(tensor: Message, code: str) -> np.ndarray:
    """The values that a TensorProto lists, in the field of their type."""
    if code in BYTES_OF:
        number, stored = BYTES_OF[code]
        return to_numbers(b"".join(tensor.get(number, [])), stored)
    numbers = [number & 2 ** 64 - 1 for number in integers(tensor.get(NUMBERS_OF.get(code, 7), []))]
    stored = np.array(numbers, np.uint64)  # a negative number as two's complement, cut to its bytes
    return to_numbers(stored.astype("<u2").tobytes(), code) if code in ("f2", "bf16") else stored.astype(code)
