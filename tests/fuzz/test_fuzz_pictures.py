"""Images and videos: damaged in the middle, cut, of another ending, with headers that promise anything."""
import io
import os
import struct

import av
import numpy as np
import pytest
from harness import check_both, fuzz
from hypothesis import strategies as st
from mutations import EDITS, edit_bytes
from PIL import Image

from src.data.images import MAX_IMAGE_PIXELS, decode_image, read_image
from src.inference.sources import open_source
from src.inference.videos import open_video

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def encoded(kind, mode="RGB", **options):
    stream = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def with_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("JPEG", exif=exif)


def frames(kind):
    """Two pictures in a file."""
    other = [Image.fromarray(255 - PIXELS)]
    return encoded(kind, save_all=True, append_images=other)


IMAGES = (encoded("JPEG"), encoded("JPEG", progressive=True, quality=30), encoded("JPEG", "L"), encoded("JPEG", "CMYK"),
          with_orientation(), encoded("PNG"), encoded("PNG", "P"), encoded("PNG", "LA"), encoded("PNG", "1"),
          encoded("GIF"), encoded("BMP"), encoded("WEBP"), encoded("WEBP", lossless=True), encoded("TIFF"),
          encoded("TIFF", compression="tiff_lzw"), encoded("TIFF", "F"), encoded("TIFF", "LAB"), encoded("PPM"),
          encoded("TGA"), encoded("ICO"), encoded("JPEG2000"), encoded("AVIF"), encoded("SGI"), encoded("DDS"),
          encoded("QOI"), frames("GIF"), frames("PNG"), frames("WEBP"), frames("TIFF"), frames("MPO"),
          b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 20, 30, 8, 3) + bytes(12) + b"\0\0" + PIXELS.tobytes())


def test_images(tmp_path, examples, capfd):
    path = str(tmp_path / "x.jpg")

    def read_edited(data, edits, size):
        data = edit_bytes(data, edits, IMAGES)
        with open(path, "wb") as file:
            file.write(data)
        pixels = read_image(path, *size)
        assert (
            pixels.dtype == np.uint8
            and pixels.ndim == 3
            and pixels.shape[2] == 3
            and pixels.size <= 3 * MAX_IMAGE_PIXELS
        )

    tally = fuzz("images", examples(7000), st.sampled_from(IMAGES), EDITS,
                 st.sampled_from([(0, 0), (20, 30), (30, 20)]), read=read_edited)
    check_both(tally)
    assert decode_image(IMAGES[0]) is not None and capfd.readouterr().err == ""


def sized_tiff(data, height, width):
    """A TIFF whose tags of width and height say something else."""
    entries = struct.unpack_from("<I", data, 4)[0]
    for number in range(struct.unpack_from("<H", data, entries)[0]):
        place = entries + 2 + 12 * number
        tag = struct.unpack_from("<H", data, place)[0]
        if tag in (256, 257):
            data[place + 2:place + 12] = struct.pack("<HII", 4, 1, (width, height)[tag - 256])


# where the sides stand in a file: what stands in front of them, the bytes between, their form, and whether height first
SIDES = {"JPEG": (b"\xff\xc0", 5, ">HH", True), "PNG": (b"IHDR", 4, ">II", False), "GIF": (b"GIF", 6, "<HH", False),
         "BMP": (b"BM", 18, "<II", False), "TGA": (b"", 12, "<HH", False), "QOI": (b"qoif", 4, ">II", False),
         "JPEG2000": (b"ihdr", 4, ">II", True)}


def sized(kind, height, width):
    """A small file whose header says this size."""
    if kind == "PPM":
        return b"P6\n%d %d\n255\n" % (width, height) + PIXELS.tobytes()
    data = bytearray(encoded(kind))
    if kind == "TIFF":
        sized_tiff(data, height, width)
        return bytes(data)
    mark, between, form, height_first = SIDES[kind]
    limit = 1 << 4 * struct.calcsize(form)
    place = data.index(mark) + between
    data[place:place + struct.calcsize(form)] = struct.pack(
        form, *(side % limit for side in ((height, width) if height_first else (width, height))))
    if kind == "JPEG2000":
        place = data.index(b"\xff\x51") + 6
        data[place:place + 8] = struct.pack(">II", width, height)
    return bytes(data)


def test_headers_of_any_size(tmp_path, examples):
    path = str(tmp_path / "x.png")
    kinds = st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "TGA", "QOI", "JPEG2000"])
    sides = st.sampled_from([0, 1, 19, 31, 2000, 11585, 30000, 40000, 65535, 100000, 2**24, 2**31 - 1, 2**31])

    def read_sized(kind, height, width):
        with open(path, "wb") as file:
            file.write(sized(kind, height, width))
        read_image(path)

    tally = fuzz("image headers", examples(800), kinds, sides, sides, read=read_sized)
    check_both(tally)


def video(path, codec, kind, **options):
    """The bytes of eight frames."""
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, 10, options=options)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(8):
            pixels = np.full((48, 64, 3), 20 * number, np.uint8)
            pixels[number : number + 9, 5:30] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    with open(path, "rb") as file:
        return file.read()


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    forms = (("mpeg4", "mp4"), ("mpeg4", "avi"), ("mjpeg", "avi"), ("libx264", "mp4"), ("libx264", "matroska"),
             ("rawvideo", "avi"), ("mpeg2video", "mpeg"), ("flv", "flv"))
    return tuple(
        video(folder / f"{number}", *form) for number, form in enumerate(forms) if form[0] in av.codecs_available
    )


def test_videos(tmp_path, examples, videos):
    path = str(tmp_path / "x.mp4")

    def read_edited(data, edits):
        with open(path, "wb") as file:
            file.write(edit_bytes(data, edits, videos))
        for number, (pixels, second) in enumerate(open_video(path)):
            assert pixels.dtype == np.uint8 and pixels.size <= 3 * MAX_IMAGE_PIXELS and np.isfinite(second)
            if number > 200:
                break

    tally = fuzz("videos", examples(1200), st.sampled_from(videos), EDITS, read=read_edited)
    check_both(tally)


def test_lists_of_sources(tmp_path, examples):
    """A list of pictures as --source; none of what it names is waited for, nor read without end."""
    (tmp_path / "a.png").write_bytes(IMAGES[5])
    os.mkfifo(tmp_path / "pipe.png")
    path = str(tmp_path / "list.txt")
    text = "a.png\n./a.png\npipe.png\n/dev/zero\nnone.jpg\n"

    def read_edited(edits, more):
        from mutations import edit_words

        data = edit_words(text, edits).encode("utf-8", "surrogatepass")
        with open(path, "wb") as file:
            file.write(edit_bytes(data, more) if more else data)
        for number, picture in enumerate(open_source(path)):
            assert picture.pixels.size
            if number > 20:
                break

    fuzz("lists of sources", examples(1500), EDITS, st.just([]) | EDITS, read=read_edited)
