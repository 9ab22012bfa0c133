"""The wire format of protocol buffers (TensorFlow, Caffe): https://protobuf.dev/programming-guides/encoding.

It has numbered fields and says nothing of their meaning. Repeated numbers stand alone or packed; both read the same:
`integers` for int32, int64, bool and enum, `b"".join(values)` for float, double and fixed.
"""
from __future__ import annotations

from collections.abc import Iterable

from src.errors import DataError

Value = "int | memoryview"           # a varint; the bytes of anything else
Message = dict[int, list[Value]]  # {field number: its values in the order of the file}
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # types of the wire; 3 and 4 are groups, which neither program writes
MAX_FIELDS = 1_000_000  # of one message; each costs Python time and memory, a graph of a detector has some 10,000


def read_fields(data: bytes | memoryview) -> Message:
    """The fields of one message. Raises DataError where it is not one: cut short, unknown type, too many fields."""
    data, fields, place = memoryview(data), {}, 0
    for _ in range(MAX_FIELDS + 1):
        if place == len(data):
            return fields
        key, place = read_varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = read_varint(data, place)
        else:
            if kind == BYTES:
                size, place = read_varint(data, place)
            elif kind in (FIXED32, FIXED64):
                size = 4 if kind == FIXED32 else 8
            else:
                raise DataError(f"a protobuf field has the unknown type {kind}; the file is damaged or of another kind")
            value, place = data[place:place + size], place + size
        if place > len(data) or not number:
            raise DataError(f"protobuf field {number} ends at byte {place} of {len(data)}; the file is damaged or cut "
                            "short")
        fields.setdefault(number, []).append(value)
    raise DataError(f"a protobuf message has more than {MAX_FIELDS:,} fields; the file is damaged or of another kind")


def read_varint(data: memoryview, place: int) -> tuple[int, int]:
    """The number of 64 bits at a place, without a sign, and the place behind it. Raises DataError."""
    value = 0
    for index, byte in enumerate(data[place:place + 10]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value & 2 ** 64 - 1, place + index + 1
    raise DataError(f"a protobuf number at byte {place} does not end; the file is damaged or cut short")


def integers(values: Iterable[Value]) -> list[int]:
    """Repeated integers with their sign, packed or not. Raises DataError."""
    numbers = []
    for value in values:
        if isinstance(value, int):
            numbers.append(value)
            continue
        place = 0
        while place < len(value):
            number, place = read_varint(value, place)
            numbers.append(number)
    return [number - 2 ** 64 if number >= 2 ** 63 else number for number in numbers]


def text(values: list[Value]) -> str:
    """The text of a field that is not repeated: the last value counts, "" without one. Raises DataError."""
    if values and isinstance(values[-1], int):
        raise DataError("a protobuf text is a number; the file is damaged or of another kind")
    return bytes(values[-1]).decode("utf-8", "replace") if values else ""
