"""TensorFlow's checkpoints and the variables/ of a SavedModel: PREFIX.index beside PREFIX.data-00000-of-00001.

The index is a table as LevelDB writes it (github.com/google/leveldb, doc/table_format.md), whose values are messages of
TensorFlow's tensor_bundle.proto. Every checksum is verified.
"""
from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from src.errors import DataError
from src.weights.formats.crc32c import masked_crc32c
from src.weights.formats.protobuf import Message, Value, integers, read_fields, read_varint, text
from src.weights.formats.raw_numbers import bytes_each, to_numbers, to_shape

END, MAGIC = 48, bytes.fromhex("57fb808b247547db")
MAX_INDEX = 1 << 26  # bytes of an index, and of all names in it; those of the zoo's detectors have 31 thousand
# DataType of TensorFlow's types.proto by the codes of raw_numbers
DTYPES = {1: "f4", 2: "f8", 3: "i4", 4: "u1", 5: "i2", 6: "i1", 8: "c8", 9: "i8", 10: "b1", 14: "bf16", 17: "u2",
          19: "f2", 22: "u4", 23: "u8"}
STRING = 7
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
SLICE = "\0"  # begins the keys of the parts of partitioned variables: SLICE NAME 0 1 PLACE
KEY_END = "/.ATTRIBUTES/VARIABLE_VALUE"  # of every key of TensorFlow 2
# what a training keeps beside the weights, by the keys of TensorFlow 2
TRAINING_STATE = re.compile(r"(save_counter|step|optimizer)/.*|.*/\.OPTIMIZER_SLOT/.*")


@dataclass
class Entry:
    """Where the bytes of a tensor lie: a BundleEntryProto."""
    name: str
    dtype: int                     # a key of DTYPES, or STRING
    shape: list[int]
    shard: int                     # number of the data file
    offset: int                    # in it
    size: int                      # bytes
    checksum: int
    slices: list[list[slice]]      # the parts that a partitioned variable has instead, by axis; [] for any other


def read(file: BinaryIO) -> dict[str, np.ndarray] | None:
    """The numbers of a bundle by the names of their variables, without the state of a training."""
    if file.seek(0, os.SEEK_END) > MAX_INDEX:
        return None
    file.seek(0)
    index = file.read()
    if index[-len(MAGIC):] != MAGIC:
        if file.name.endswith(".index"):
            raise DataError(f"the index of a TensorFlow checkpoint is cut short ({len(index)} bytes)")
        return None
    bundle = Bundle(index, file.name)
    names = bundle.variable_names()
    return {names[key]: bundle.array(entry) for key, entry in bundle.entries.items()
            if entry.dtype != STRING and not key.startswith(SLICE) and not TRAINING_STATE.fullmatch(key)}


class Bundle:
    """The entries of an index by key, and the data files beside it. Raises DataError where they do not fit."""

    def __init__(self, index: bytes, path: str) -> None:
        table = read_table(index)
        first, header = next(table, ("", b""))
        if first:
            raise DataError(f"its index begins with '{first}', not with a header; it is of another program")
        message, prefix = read_fields(header), path.removesuffix(".index")
        self.order, self.files = ">" if integer(message, 2) else "<", []
        count = integer(message, 1)
        for shard in range(count):
            self.files.append(f"{prefix}.data-{shard:05d}-of-{count:05d}")
            if not os.path.isfile(self.files[-1]):
                raise DataError(f"its data file '{self.files[-1]}' is missing; keep both in one folder")
        self.entries = {key: to_entry(key, read_fields(value)) for key, value in table}
        total, present = sum(entry.size for entry in self.entries.values()), sum(map(os.path.getsize, self.files))
        if total > present:
            raise DataError(f"its tensors have {total} bytes, its data files {present}: they are cut short, or of "
                            "another checkpoint")

    def variable_names(self) -> dict[str, str]:
        """The name of the variable behind each key: what TensorFlow 2 says in an object graph, else the key itself."""
        graph = self.entries.get(OBJECT_GRAPH)
        full = full_names(self.string(graph)) if graph else {}
        names = {key: full.get(key) or key.removesuffix(KEY_END) for key in self.entries}
        unique = len(names) == len(set(names.values()))
        return names if unique else {key: key.removesuffix(KEY_END) for key in names}

    def array(self, entry: Entry) -> np.ndarray:
        """The numbers of an entry in its shape."""
        if entry.dtype not in DTYPES:
            raise DataError(f"'{entry.name}' has the type number {entry.dtype}; known are {sorted(DTYPES)}")
        code = DTYPES[entry.dtype]
        if entry.slices:
            return self.joined(entry)
        if entry.size != math.prod(entry.shape) * bytes_each(code):
            raise DataError(f"'{entry.name}' has {entry.size} bytes for the shape {entry.shape} of {code}")
        return to_shape(to_numbers(self.checked(entry), code, self.order), entry.shape, entry.name)

    def joined(self, entry: Entry) -> np.ndarray:
        """A partitioned variable of TensorFlow 1 from its parts, which are in the order of its slices."""
        begin = f"{SLICE}{entry.name}\0\1"
        arrays = [self.array(piece) for key, piece in self.entries.items() if key.startswith(begin)]
        if sum(array.size for array in arrays) != math.prod(entry.shape) or len(arrays) != len(entry.slices):
            raise DataError(f"the {len(arrays)} parts of '{entry.name}' do not fill its shape {entry.shape}")
        joined = np.zeros(entry.shape, arrays[0].dtype)
        for place, array in zip(entry.slices, arrays):
            joined[tuple(place)] = array.reshape(joined[tuple(place)].shape)
        return joined

    def string(self, entry: Entry) -> bytes:
        """The single string of an entry: its length, a checksum of the length, its bytes."""
        data = self.read(entry)
        length, place = read_varint(data, 0)
        inside = part(data, place + 4, length)
        check(masked_crc32c(length.to_bytes(4, "little"), data[place:place + 4], inside) == entry.checksum, entry.name)
        return inside

    def checked(self, entry: Entry) -> bytes:
        """The bytes of an entry of numbers."""
        data = self.read(entry)
        check(masked_crc32c(data) == entry.checksum, entry.name)
        return data

    def read(self, entry: Entry) -> bytes:
        """The bytes of an entry, not verified yet."""
        if entry.shard >= len(self.files):
            raise DataError(f"'{entry.name}' is in data file {entry.shard} of {len(self.files)}")
        with open(self.files[entry.shard], "rb") as file:
            end = file.seek(0, os.SEEK_END)
            if entry.offset + entry.size > end:
                raise DataError(f"'{entry.name}' ends at {entry.offset + entry.size} of the {end} bytes of "
                                f"'{file.name}', which is cut short")
            file.seek(entry.offset)
            return file.read(entry.size)


def check(right: bool, what: str) -> None:
    """Raises DataError where a checksum is wrong."""
    if not right:
        raise DataError(f"the checksum of '{what}' is wrong: the file is damaged, or not all of its files are of one "
                        "checkpoint; download it again")


# --- the table

def read_table(index: bytes) -> Iterator[tuple[str, bytes]]:
    """Key and value of all entries, the keys rising."""
    footer = index[-END:]
    _, place = read_handle(footer, 0)  # of the block of filters, which TensorFlow leaves empty
    (offset, size), _ = read_handle(footer, place)
    previous, total = None, 0
    for _, handle in read_block(index, offset, size):
        (offset, size), _ = read_handle(handle, 0)
        for key, value in read_block(index, offset, size):
            total += len(key)
            if previous is not None and key <= previous or total > MAX_INDEX:
                raise DataError("the names in its index are out of order or too long; the file is damaged")
            previous = key
            yield key.decode(errors="backslashreplace"), value


def read_handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the place behind them."""
    offset, place = read_varint(data, place)
    size, place = read_varint(data, place)
    return (offset, size), place


def read_block(index: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of the entries of a block. A key begins with some bytes of the one before."""
    block, compression = part(index, offset, size), part(index, offset + size, 1)
    stored = int.from_bytes(part(index, offset + size + 1, 4), "little")
    check(masked_crc32c(block, compression) == stored, "index")
    if compression != b"\0":
        raise DataError(f"a block of its index has the compression {compression[0]}; only 0 (none) is read")
    restarts = int.from_bytes(block[-4:], "little")
    place, end, key = 0, size - 4 - 4 * restarts, b""
    while place < end:
        shared, place = read_varint(block, place)
        unshared, place = read_varint(block, place)
        length, place = read_varint(block, place)
        key = part(key, 0, shared) + part(block, place, unshared)
        yield key, part(block, place + unshared, length)
        place += unshared + length


def part(data: bytes, place: int, size: int) -> bytes:
    """`size` bytes from a place on. Raises DataError where there are fewer."""
    if place + size > len(data):
        raise DataError(f"{size} bytes at {place} of its index end behind the {len(data)} that there are; the file is "
                        "damaged or cut short")
    return data[place:place + size]


# --- the messages

def to_entry(name: str, message: Message) -> Entry:
    """A BundleEntryProto."""
    slices = [[to_slice(extent) for extent in read_fields(place).get(1, [])] for place in message.get(7, [])]
    checksum = int.from_bytes(message.get(6, [b""])[0], "little")
    dtype, shard, offset, size = (integer(message, number) for number in (1, 3, 4, 5))
    if min(shard, offset, size) < 0:
        raise DataError(f"'{name}' has {size} bytes at {offset} of data file {shard}; the file is damaged")
    return Entry(name, dtype, to_dimensions(message), shard, offset, size, checksum, slices)


def integer(message: Message, number: int) -> int:
    """A field that is not repeated, 0 where it is not there."""
    return integers(message.get(number, [0]))[-1]


def to_dimensions(tensor: Message) -> list[int]:
    """The shape of a tensor, such as [3, 3, 64, 128]: its field 2. Raises DataError for a negative dimension."""
    shape = [integer(read_fields(size), 1) for size in read_fields(tensor.get(2, [b""])[-1]).get(2, [])]
    if min(shape, default=0) < 0:
        raise DataError(f"a tensor in it has the shape {shape}; the file is damaged")
    return shape


def to_slice(message: Value) -> slice:
    """An extent of a TensorSliceProto; without a length it is all of an axis."""
    extent = read_fields(message)
    start = integer(extent, 1)
    return slice(start, start + integer(extent, 2)) if 2 in extent else slice(None)


def full_names(graph: bytes) -> dict[str, str]:
    """The names of the variables by key, from a TrackableObjectGraph."""
    names = {}
    for node in read_fields(graph).get(1, []):
        for attribute in map(read_fields, read_fields(node).get(2, [])):
            kind, name, key = (text(attribute.get(number, [])) for number in (1, 2, 3))
            if kind == "VARIABLE_VALUE" and name:
                names[key] = name
    return names
