"""Odd image files: read where OpenCV or Pillow can, else named for what they are, without a line of a library."""
import errno
import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from conftest import Caller, rows_of, txt_tree
from PIL import Image

from src.data import image_bytes, images
from src.data.image_bytes import BadImage
from src.data.images import MAX_IMAGE_PIXELS, check_image, decode_image, read_image
from src.errors import DataError, EnvironmentFault
from src.inference.sources import open_source

END = b"\xff\xd9"


def encoded(image, kind="PNG", **options):
    """Bytes of a pillow image, or of an array."""
    stream = io.BytesIO()
    (image if hasattr(image, "save") else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def picture(height=48, width=64):
    """[H, W, 3] with smooth colours that differ everywhere: no part of it is flat."""
    x, y = np.meshgrid(np.linspace(10, 240, width), np.linspace(10, 240, height))
    return np.uint8(np.stack([x, y, (x * 3 + y * 7) % 200 + 20], axis=2))


def chunk(name, data, checksum=None):
    """One chunk of a PNG."""
    checksum = zlib.crc32(name + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def png(height, width, rows, wrong=""):
    """A PNG of RGB rows as bytes, the checksum of the chunk `wrong` being 1."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data, 1 if name.decode() == wrong else None)
                                         for name, data in chunks)


def jpeg_header(height, width):
    """An ordinary JPEG that says it has another size."""
    data = encoded(picture(), "JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4:]


def half(data):
    """The bytes up to the middle of a JPEG's last scan."""
    start = data.rindex(b"\xff\xda")
    return data[:start + (len(data) - start) // 2]


@pytest.fixture(name="check")
def checker(tmp_path, capfd):
    """check(data) -> Checked or the text of the BadImage, when the libraries have written nothing."""
    def check(data, *size):
        path = tmp_path / "x.jpg"
        path.write_bytes(data)
        try:
            found = check_image(str(path), *size)
        except BadImage as error:
            found = str(error)
        else:
            np.testing.assert_array_equal(decode_image(found.data, *size), found.pixels)  # as training will see it
        assert capfd.readouterr() == ("", "")
        return found
    return check


GREY = np.arange(200, dtype=np.uint8).reshape(10, 20)
READABLE = {
    "grey": (encoded(GREY), GREY),
    "palette with a transparent colour": (encoded(Image.fromarray(GREY).convert("P"), transparency=3), GREY),
    "grey and alpha": (encoded(Image.fromarray(GREY).convert("LA")), GREY),
    "GIF": (encoded(GREY, "GIF"), GREY),
    "first frame of a GIF": (encoded(GREY, "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)]), GREY),
    "first frame of a PNG": (encoded(GREY, save_all=True, append_images=[Image.fromarray(255 - GREY)]), GREY),
    "WebP": (encoded(GREY, "WEBP", lossless=True), GREY),
    "AVIF": (encoded(GREY, "AVIF", quality=100), GREY),
    "TGA": (encoded(GREY, "TGA"), GREY),
    "16 bit": (encoded(GREY.astype(np.uint16) * 256 + 7), GREY),
    "16 bit, dark": (encoded(GREY.astype(np.uint16)), GREY * 0),
    "16 bit TIFF": (encoded(GREY.astype(np.uint16) * 256 + 7, "TIFF"), GREY),
    "32 bit TIFF": (encoded(GREY.astype(np.int32) * 256, "TIFF"), GREY),
    "floats of 0..1": (encoded(np.float32(GREY / 255 + 1e-4), "TIFF"), GREY),
    "floats of 0..255": (encoded(np.float32(GREY), "TIFF"), GREY),
    "CMYK TIFF": (encoded(Image.fromarray(GREY).convert("RGB").convert("CMYK"), "TIFF"), GREY),
    "MPO": (encoded(GREY, "MPO", save_all=True, append_images=[Image.fromarray(255 - GREY)], quality=100), GREY),
    "a wrong checksum of pixels": (png(1, 2, b"\0" + bytes([9, 9, 9, 8, 8, 8]), "IDAT"), np.uint8([[9, 8]])),
    "bytes after the end": (encoded(GREY, "JPEG", quality=100) + b"more" * 9, GREY),
}


@pytest.mark.parametrize("kind", READABLE)
def test_every_kind_of_pixels_is_read_as_rgb(check, kind):
    data, grey = READABLE[kind]
    found = check(data)
    np.testing.assert_allclose(found.pixels, np.repeat(grey[..., None], 3, axis=2), atol=3)
    assert found.pixels.dtype == np.uint8 and not found.note
    assert decode_image(data) is not None, "the loader's way reads it as well"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_its_end_marker_is_complete_but_not_without_data(check, options, mode):
    image = Image.fromarray(picture()).convert(mode)
    data = encoded(image, "JPEG", **options)
    assert data.endswith(END)
    complete = check(data)
    assert complete.data == data
    for short in (data[:-2], data[:-1]):
        for pixels in (check(short).pixels, decode_image(short)):
            np.testing.assert_allclose(np.int32(pixels), complete.pixels, atol=2)  # CMYK has two formulas
    assert decode_image(half(data)) is None
    for cut in (half(data), half(data) + END):
        assert check(cut).startswith("it is JPEG, cut short"), cut[-2:]


def test_where_a_jpeg_is_cut_is_told_from_its_pixels(check):
    noise = np.random.default_rng(0).integers(0, 255, (160, 160, 3), np.uint8)
    share = check(half(encoded(noise, "JPEG"))).split("about ")[1].split(" %")[0]
    assert 42 <= int(share) <= 58


def test_noise_amid_a_jpeg_is_a_note_and_silent(check):
    noise = np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)
    data = bytearray(encoded(noise, "JPEG"))
    data[len(data) // 2:len(data) // 2 + 40] = b"\x00\xff\x00\x12" * 10
    found = check(bytes(data))
    assert found.note.startswith("damaged (Corrupt JPEG data") and found.pixels.shape == (80, 80, 3)


ODD = {
    b"": "the file is empty",
    bytes(500): "all of its 500 bytes are zero",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic": "it is HEIC",
    b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic": "it is HEIC",
    b"\0\0\0\x20ftypisom\0\0\2\0isomiso2": "it is a video",
    b"RIFF\x10\0\0\0AVI LIST": "it is a video",
    b"\n <!DOCTYPE HTML>\n<html><title>404</title>": "it is an HTML page",
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>": "it is an XML text",
    b"<?xml version='1.0'?>\n<!-- made -->\n<svg xmlns='x'>": "it is an SVG drawing",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7\nsize 12\n": "it is a Git LFS pointer",
    b"{\"message\": \"not found\"}": "it is text ('{\"message\": \"not found\"}')",
    "Größe\n".encode(): "it is text ('Größe')",
    b"%PDF-1.4\n%\xe2": "it is a PDF",
    b"PK\x03\x04\x14\0": "it is a packed archive",
    b"\x93NUMPY\x01\0v\0": "it is an array",
    b"\x01\x02\x03\xfe\xff": "its bytes are of no known format (the first are 01 02 03 fe ff)",
    b"\xff\xd8\xff": "it is JPEG, cut short or damaged",
    png(40, 40, picture(40, 40).tobytes(), "IHDR"): "it is PNG, damaged",
    png(1, 2, b"\0" + bytes(6)).replace(zlib.compress(b"\0" + bytes(6))[:4], b"\1\1\1\1"): "it is PNG, damaged",
    encoded(picture(), "BMP")[:4635]: "it is BMP, cut short at about 50 %",
    encoded(picture(), "GIF")[:300]: "it is GIF, cut short or damaged",
    encoded(picture(), "TIFF")[:3000]: "it is TIFF, cut short or damaged",
}


@pytest.mark.parametrize("data", ODD, ids=lambda data: ascii(data[:12]))
def test_other_bytes_are_named(check, data):
    found = check(data)
    assert found.startswith(ODD[data]) and "; " in found, "what it is, and what to do"
    assert decode_image(data) is None


def test_a_cut_png_says_how_much_is_there(check):
    noise = np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8)
    data = encoded(noise)
    assert check(data[:len(data) * 3 // 10]) == "it is PNG, cut short at about 29 %; fetch or copy it again"


@pytest.mark.parametrize("data", [
    jpeg_header(30000, 30000), jpeg_header(65500, 65500), png(30000, 30000, b"0"), encoded(GREY, "GIF"),
    b"P6 30000 30000 255\n" + bytes(99), encoded(GREY, "BMP")], ids=["JPEG", "JPEG", "PNG", "GIF", "PPM", "BMP"])
def test_a_huge_header_is_refused_before_memory_is_taken(check, data, monkeypatch):
    data = bytearray(data)
    if data[:3] == b"GIF":
        data[6:10] = struct.pack("<HH", 30000, 30000)
    elif data[:2] == b"BM":
        data[18:26] = struct.pack("<ii", 30000, 30000)
    monkeypatch.setattr(cv2, "imdecode", None)  # would be called to take the memory
    found = check(bytes(data))
    assert found.startswith(("its header says 30000 x 30000 pixels", "its header says 65500 x 65500 pixels"))
    assert str(MAX_IMAGE_PIXELS) in found


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkdir(tmp_path / "folder.jpg")
    os.symlink(tmp_path / "loop.jpg", tmp_path / "loop.jpg")
    for name, message in (("pipe", "it is a named pipe"), ("folder", "it is a folder"), ("loop", "symbolic links"),
                          ("gone", "No such file"), ("nul\0", "cannot be the name of a file")):
        with pytest.raises(DataError, match=f"{name.strip(chr(0))} ?.jpg' cannot be read: .*{message}.*; "):
            read_image(f"{tmp_path}/{name}.jpg")
    with pytest.raises(DataError, match="/dev/zero' cannot be read: it is a device"):
        read_image("/dev/zero")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_one_rule_of_orientation_for_all_formats(check, kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise: the left end on top
    stored = np.repeat(np.uint8(np.linspace(0, 250, 64)).reshape(1, 64, 1), 32, axis=0).repeat(3, axis=2)
    data, upright = encoded(stored, kind, exif=exif, quality=95), np.rot90(stored, -1)
    for size in ((), (64, 32), (99, 99)):
        np.testing.assert_allclose(np.int32(check(data, *size).pixels), upright, atol=6)
    if kind in ("JPEG", "PNG", "WEBP"):  # of TIFF and AVIF the libraries show the upright frame alone
        np.testing.assert_allclose(np.int32(check(data, 32, 64).pixels), stored, atol=6)


def test_conversion_keeps_what_can_be_read_and_names_the_rest(tmp_path, capfd):
    files = {"a.gif": encoded(GREY, "GIF"), "b.jpg": encoded(picture(), "JPEG")[:-2], "c.jpg": b"<html>",
             "d.jpg": half(encoded(picture(), "JPEG")) + END, "e.jpg": encoded(picture(), "JPEG")}
    txt_tree(tmp_path, "".join(f"{name} 1,1,9,9,cat\n" for name in [*files, "p.jpg"]), ())
    for name, data in files.items():
        (tmp_path / "images" / name).write_bytes(data)
    os.mkfifo(tmp_path / "images/p.jpg")
    call = Caller(tmp_path)
    split = call.txt()
    assert capfd.readouterr().err == ""
    rows = rows_of(split)
    assert [int(row["image_id"]) for row in rows] == [1, 2, 5] and split.finding_count == 3
    stored = np.frombuffer(rows[2]["image"], np.uint8).tobytes()
    assert stored == files["e.jpg"], "an ordinary file is stored as it is"
    for row, shape in zip(rows, ((10, 20, 3), (48, 64, 3), (48, 64, 3))):
        assert decode_image(row["image"], int(row["height"]), int(row["width"])).shape == shape
    for words in ("c.jpg' is not a complete image: it is an HTML page",
                  "d.jpg' is not a complete image: it is JPEG, cut short", "p.jpg' cannot be read: it is a named pipe"):
        assert words in split.summary


def test_predict_names_what_is_no_picture_and_no_video(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is a named pipe; give an image"):
        open_source(str(tmp_path / "pipe"))
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(DataError, match="neither a picture .* nor a video that opens: it is HEIC"):
        open_source(str(tmp_path / "x.heic"))


@pytest.mark.parametrize("number, expected", [(errno.EMFILE, EnvironmentFault), (errno.ENFILE, EnvironmentFault),
                                              (errno.ENOMEM, MemoryError), (errno.EACCES, DataError)])
def test_what_this_process_lacks_is_not_blamed_on_an_image(tmp_path, monkeypatch, number, expected):
    """A conversion would leave such an image out."""
    def fail(*_):
        raise OSError(number, os.strerror(number))
    (tmp_path / "a.png").write_bytes(encoded(GREY))
    monkeypatch.setattr(image_bytes, "open", fail, raising=False)
    with pytest.raises(expected, match="a.png"):
        read_image(str(tmp_path / "a.png"))


def test_damage_is_looked_for_or_the_program_ends(tmp_path, monkeypatch):
    def fail():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    (tmp_path / "a.png").write_bytes(encoded(GREY))
    monkeypatch.setattr(images.tempfile, "TemporaryFile", fail)
    with pytest.raises(EnvironmentFault, match="Too many open files; raise the limit"):
        read_image(str(tmp_path / "a.png"))


def test_too_little_memory_is_not_taken_for_a_damaged_image(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(encoded(GREY))

    def fail(*_):
        error = cv2.error("no memory")
        error.code = cv2.Error.StsNoMem
        raise error
    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(MemoryError):
        read_image(str(tmp_path / "x.png"))
