"""The wire format of protocol buffers, against bytes by hand and the real library's."""
import numpy as np
import pytest
from onnx import TensorProto

from src.errors import DataError
from src.weights.formats import protobuf
from src.weights.formats.protobuf import integers, read_fields, text


def test_by_hand():
    """The examples of protobuf.dev: field 1 = 150, field 2 = "testing"."""
    fields = read_fields(b"\x08\x96\x01" + b"\x12\x07testing" + b"\x1d\0\0\x80\x3f" + b"\x21" + bytes(8) + b"\x08\x02")
    assert fields[1] == [150, 2] and text(fields[2]) == "testing"
    assert np.frombuffer(fields[3][0], "<f4") == 1 and len(fields[4][0]) == 8
    assert read_fields(b"") == {} and text([]) == ""


def test_what_the_library_writes():
    """onnx's dims stand alone, its float_data and int32_data are packed."""
    real = TensorProto(dims=[3, -1, 2 ** 40], name="gewicht ä", float_data=[0.5, -2.0], int32_data=[7, -7])
    fields = read_fields(real.SerializeToString())
    assert integers(fields[1]) == [3, -1, 2 ** 40] and text(fields[8]) == real.name
    assert np.frombuffer(b"".join(fields[4]), "<f4").tolist() == [0.5, -2]
    assert len(fields[5]) == 1 and integers(fields[5]) == [7, -7]


@pytest.mark.parametrize("data, message", [
    (b"\x08", "number at byte 1 does not end"), (b"\x08" + b"\xff" * 11, "does not end"),
    (b"\x12\x07test", "field 2 ends at byte 9 of 6"), (b"\x12" + b"\xff" * 9 + b"\x01", "field 2 ends at byte"),
    (b"\x0d\0\0", "field 1 ends at byte 5 of 3"), (b"\x0b\x0c", "unknown type 3"), (b"\x0f", "unknown type 7"),
    (b"\x00\x01", "field 0")])
def test_damage(data, message):
    with pytest.raises(DataError, match=message):
        read_fields(data)


def test_limits(monkeypatch):
    with pytest.raises(DataError, match="does not end"):
        integers([memoryview(b"\x01\x80")])
    with pytest.raises(DataError, match="text is a number"):
        text([3])
    monkeypatch.setattr(protobuf, "MAX_FIELDS", 3)
    assert read_fields(b"\x08\x01" * 3)[1] == [1, 1, 1]
    with pytest.raises(DataError, match="more than 3 fields"):
        read_fields(b"\x08\x01" * 4)
