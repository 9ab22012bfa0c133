"""Limits: pictures and headers that promise gigabytes, and what files say of themselves that cannot be."""
import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from src.anchor_file import read_shapes
from src.data.image_bytes import MAX_BYTES, min_jpeg_bytes
from src.data.images import MAX_IMAGE_SIDE, check_bytes, read_image
from src.errors import DataError, OptionError
from src.weights.meta import EXPORTED, read_meta


def test_a_file_far_larger_than_a_picture_is_not_read(tmp_path):
    with open(tmp_path / "x.jpg", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DataError, match="is too large: it has .* bytes, the limit is"):
        read_image(str(tmp_path / "x.jpg"))


@pytest.mark.parametrize("name", ["x.hdr", "x.sr", "x.pfm", "x.exr"])
def test_headers_of_formats_that_opencv_alone_reads_take_no_memory(tmp_path, monkeypatch, name):
    heads = {
        "x.hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 30000 +X 30000\n",
        "x.pfm": b"PF\n30000 30000\n-1.0\n",
        "x.sr": struct.pack(">8I", 0x59A66A95, 30000, 30000, 24, 0, 1, 0, 0),
        "x.exr": b"\x76\x2f\x31\x01\2\0\0\0",
    }
    monkeypatch.setattr(cv2, "imdecode", None)  # would be called to take the memory
    (tmp_path / name).write_bytes(heads[name] + bytes(100))
    with pytest.raises(DataError):
        read_image(str(tmp_path / name))


@pytest.mark.parametrize("name", ["IHDR", "IDAT"])
def test_a_chunk_of_a_png_that_claims_gigabytes_does_not_reach_opencv(tmp_path, monkeypatch, name):
    whole = cv2.imencode(".png", np.zeros((20, 30, 3), np.uint8))[1].tobytes()
    place = whole.index(name.encode()) - 4
    monkeypatch.setattr(cv2, "imdecode", None)
    (tmp_path / "x.png").write_bytes(whole[:place] + struct.pack(">I", 0x7FFFFFFF) + whole[place + 4:])
    if name == "IDAT":  # all of its pixels are there
        assert read_image(str(tmp_path / "x.png")).shape == (20, 30, 3)
    else:
        with pytest.raises(DataError, match="is not a complete image"):
            read_image(str(tmp_path / "x.png"))


def test_a_picture_of_a_million_columns(tmp_path):
    (tmp_path / "x.ppm").write_bytes(b"P6\n%d 1\n255\n" % (MAX_IMAGE_SIDE + 1) + bytes(3 * MAX_IMAGE_SIDE + 3))
    with pytest.raises(DataError, match=f"{MAX_IMAGE_SIDE} a side"):
        read_image(str(tmp_path / "x.ppm"))


# --- what files say of themselves

FACTS = {"model": "x", "image_size": 300, "classes": ["a"], "min_score": 0.1, "nms_threshold": 0.5, "nms_candidates": 9,
         "max_boxes": 5, "mindspore": "2.10", "batch_size": 1, "inputs": {}, "raw": False}


@pytest.mark.parametrize(
    "changes, message",
    [({"image_size": 10**6}, "image_size=1000000: expected a whole number from 1"),
     ({"image_size": True}, "image_size=True"), ({"classes": "cat"}, "classes='cat': expected a list"),
     ({"classes": ["a", "a"]}, "each once"), ({"width": 1e9}, "width"), ({"std": [1, 0, 1]}, "std"),
     ({"mean": [float("nan")] * 3}, "mean"), ({"score": "relu"}, "sigmoid or softmax"),
     ({"anchor_shapes": [[[1, 2, 3]]]}, "anchor_shapes"), ({"class_scores": {"a": 2}}, "class_scores"),
     ({"raw": None}, "raw"), ({"max_boxes": 0}, "max_boxes"), ({"steps_done": -1}, "steps_done")],
)
def test_facts_that_cannot_be(changes, message):
    text = (
        str({**FACTS, **changes})
        .replace("'", '"')
        .replace("True", "true")
        .replace("False", "false")
        .replace("None", "null")
        .replace("nan", "NaN")
    )
    with pytest.raises(DataError, match=message):
        read_meta(text, "x.json", EXPORTED)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100000, '{"model": "x"}'])
def test_facts_that_are_no_facts(text):
    with pytest.raises(DataError, match="x.json"):
        read_meta(text, "x.json", EXPORTED)


@pytest.mark.parametrize(
    "text",
    ['{"image_size": 1' + "0" * 400 + ', "shapes": []}', '{"image_size": 300, "shapes": [[[1e-9, 2]]]}',
     '{"image_size": 300, "shapes": ' + "[" * 100000],
)
def test_anchor_files_with_numbers_of_any_size(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(OptionError, match="is broken"):
        read_shapes(str(tmp_path / "a.json"), [1], 300)


# --- JPEG: a header that says more pixels than the bytes can hold

def jpeg_head(kind, height, width, *factors, front=b""):
    """The first bytes of a JPEG up to its frame header. factors: sampling of each component, such as 0x22."""
    parts = b"".join(bytes([number, factor, 0]) for number, factor in enumerate(factors, 1))
    return (b"\xff\xd8" + front + bytes([0xff, kind]) +
            struct.pack(">HBHHB", 8 + len(parts), 8, height, width, len(factors)) + parts)


THUMBNAIL = b"\xff\xe1" + struct.pack(">H", 2 + 100) + jpeg_head(0xc0, 8000, 8000, 0x11).ljust(100, b"\0")


@pytest.mark.parametrize("data, least", [
    (jpeg_head(0xc0, 640, 1280, 0x11), 1600),                    # 80 x 160 blocks, a bit each
    (jpeg_head(0xc2, 640, 1280, 0x22, 0x11, 0x11), 2400),        # 4:2:0, half as many again
    (jpeg_head(0xc1, 640, 1280, 0x11, 0x11, 0x11), 4800),
    (jpeg_head(0xc0, 640, 1280, 0x11, front=THUMBNAIL), 1600),   # not that of the picture within
    (jpeg_head(0xc0, 640, 1280, 0x11, front=b"\xff\xff"), 1600), (jpeg_head(0xc0, 640, 1280, 0x11, front=b"ab"), 1600),
    (jpeg_head(0xc9, 640, 1280, 0x11), 0),                       # arithmetic coding may take less
    (jpeg_head(0xc0, 640, 1280, 0x00), 0), (jpeg_head(0xc0, 640, 1280), 0), (b"\xff\xd8", 0), (b"\xff\xd8\xff", 0),
    (jpeg_head(0xc0, 640, 1280, 0x11)[:10], 0), (jpeg_head(0xc0, 0, 1280, 0x11), 0)])
def test_the_fewest_bytes_of_a_jpeg(data, least):
    assert min_jpeg_bytes(data) == least


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True, "optimize": True},
                                     {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_without_content_is_not_too_small(mode, options):
    stream = io.BytesIO()
    Image.new(mode, (2400, 1801)).save(stream, "JPEG", quality=1, **options)
    assert len(stream.getvalue()) > min_jpeg_bytes(stream.getvalue()) > 8000
    assert check_bytes(stream.getvalue()).size == (1801, 2400)


def test_a_small_jpeg_that_says_it_is_huge_takes_no_memory(tmp_path, monkeypatch):
    data = bytearray(cv2.imencode(".jpg", np.zeros((20, 30, 3), np.uint8))[1].tobytes())
    place = data.index(b"\xff\xc0") + 5
    data[place:place + 4] = struct.pack(">HH", 11500, 11500)
    (tmp_path / "x.jpg").write_bytes(data)
    monkeypatch.setattr(cv2, "imdecode", None)  # would be called to take the memory
    with pytest.raises(DataError, match="its [0-9]+ bytes are too few for the size that its header says"):
        read_image(str(tmp_path / "x.jpg"))
