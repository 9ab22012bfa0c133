"""Encoded images -> RGB pixels (numpy, OpenCV, Pillow), the same in conversion, training, evaluation and prediction."""
import contextlib
import functools
import io
import logging
import os
import re
import tempfile
import threading
import warnings
from typing import NamedTuple

import cv2
import numpy as np

from src.data.image_bytes import AGAIN, BadImage, cut_at, describe_bytes, read_bytes
from src.errors import DataError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")  # in any case
MOST_PIXELS = 1 << 27  # of an image: 384 MiB as RGB; a damaged header may promise any number
PILLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "PSD",
                  "SGI", "DIB", "DDS", "QOI")  # not EPS, for which Pillow starts another program
OPENCV_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "WEBP", "TIFF", "PPM")
ORIENTATION = 0x0112   # EXIF's tag
START, END = b"\xff\xd8", b"\xff\xd9"  # of a JPEG
# what would show in the picture where it followed data that are cut short, within an interval or between two of them
FILLINGS = (b"\x55" * 16, bytes(range(1, 60)), b"".join(bytes([255, 0xd0 + n]) + b"\x55" * 16 for n in range(8)))
LISTENING = threading.Lock()  # standard error is one for all threads


class Checked(NamedTuple):
    """An image that was read and found whole."""
    pixels: np.ndarray  # [H, W, 3] uint8 RGB
    data: bytes         # what decode_image() makes the same pixels of, silently: the file's bytes, or a PNG
    note: str           # what is wrong with it all the same, ""


class Header(NamedTuple):
    """What is known of an image before it is decoded."""
    for_opencv: bool   # OpenCV reads its kind, and right
    progressive: bool  # a JPEG that comes in several passes over all of the picture


def decode_image(data, height=0, width=0):
    """Encoded bytes (or a [n] uint8 array) -> [H, W, 3] uint8 RGB, or None when they are no whole image.

    Grayscale, palette, CMYK, alpha and 16-bit files come out as 8-bit RGB. The EXIF orientation is applied, unless only
    the image without it has the given height and width: then boxes were drawn on the unrotated frame. Quick, for bytes
    that check_image() has seen: of others a huge one takes its memory, and libjpeg may write lines of its own.
    """
    image = decode_by_opencv(data, height, width)
    return decode_by_pillow(np.frombuffer(data, np.uint8).tobytes(), height, width) if image is None else image


def decode_by_opencv(data, height, width):
    """decode_image() by OpenCV alone."""
    image = decode_rgb(data, cv2.IMREAD_COLOR_RGB)
    if image is not None and height and width and image.shape[:2] != (height, width):
        stored = decode_rgb(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        image = stored if stored.shape[:2] == (height, width) else image
    return image


def decode_rgb(data, flags):
    """OpenCV's decoder with None for whatever it cannot read, and without its own lines on stderr."""
    cv2.setLogLevel(0)
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:  # no bytes at all, or more pixels than OpenCV accepts
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        return None


def read_image(path, height=0, width=0):
    """An image file -> [H, W, 3] uint8 RGB, frame chosen as in decode_image(). Raises DataError naming the file."""
    try:
        return check_image(path, height, width).pixels
    except BadImage as error:
        raise DataError(complaint(path, error)) from error


def complaint(path: str, error: BadImage) -> str:
    """One line about a file that gives no picture."""
    return f"'{path}' {'cannot be read' if error.missing else 'is no whole image'}: {error}"


def check_image(path: str, height: int = 0, width: int = 0, *, listen: bool = True) -> Checked:
    """Reads an image file with all checks, decoded as decode_image() would. Raises BadImage.

    listen: keeps what the libraries write to standard error, and judges by it; else the caller does.
    """
    data = read_bytes(path)
    header = read_header(data)
    image, stored = None, data
    with heard() if listen else contextlib.nullcontext([]) as lines:
        if header.for_opencv:
            image = decode_by_opencv(data, height, width)
        if image is None:
            image, stored = decode_by_pillow(data, height, width), None
    if image is None:
        raise BadImage(describe_jpeg(data) if data.startswith(START) else describe_bytes(data))
    note = judge(lines, data, image)
    return Checked(image, stored if stored and not lines else as_png(image), note)


def judge(lines, data, image):
    """What the lines that libraries wrote about an image mean, in words. Raises BadImage when its data end too soon."""
    for line in (line for line in lines if "Corrupt JPEG data" in line):
        unused = re.search(r"(\d+) extraneous bytes", line)
        if not unused and (ends_flat(image) or decode_by_pillow(data[:data.rfind(END)]) is None):
            raise BadImage(describe_jpeg(data))
        if not unused or int(unused[1]) * 100 > len(data):
            return f"damaged ({line.strip()}), used as it can be decoded; look at it, and {AGAIN}"
    return ""


def ends_flat(image):
    """Whether the last rows have one colour, as where a JPEG's data ended too soon."""
    return bool((image[-8:, -8:] == image[-1, -1]).all())


def describe_jpeg(data):
    """describe_bytes() of a JPEG, with the share of its rows that is there."""
    image = decode_by_pillow(data + END, whole=False)
    if image is None or read_header(data).progressive:
        return describe_bytes(data)
    there = (image != image[-1, -1]).any(axis=2)  # the rest is of one grey
    return f"it is JPEG, {cut_at(int(there.sum()), there.size)}; {AGAIN}"


def as_png(image):
    """[H, W, 3] RGB -> a PNG, quickly packed."""
    return cv2.imencode(".png", image[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 3))[1].tobytes()


@contextlib.contextmanager
def heard():
    """Gives a list that holds, afterwards, the lines written to standard error: libjpeg and libpng tell of damage there
    alone. A process without a standard error or a place for temporary files hears nothing."""
    lines = []
    with LISTENING, contextlib.ExitStack() as stack:
        try:
            file, kept = stack.enter_context(tempfile.TemporaryFile()), os.dup(2)
        except OSError:
            yield lines
            return
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


# --- Pillow, for what OpenCV cannot read, and for headers

@functools.cache
def pillow():
    """Pillow's module Image, silent and without its own limit of pixels."""
    from PIL import Image
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="PIL")
    Image.MAX_IMAGE_PIXELS = None  # MOST_PIXELS is checked instead
    return Image


def open_by_pillow(data):
    """Pillow's image of bytes, not decoded yet, or None. Raises BadImage for more than MOST_PIXELS."""
    try:
        image = pillow().open(io.BytesIO(data), formats=PILLOW_FORMATS)
    except MemoryError:
        raise
    except Exception:  # a parser of a broken header may raise anything
        return None
    if image.width * image.height > MOST_PIXELS:
        raise BadImage(f"its header says {image.width} x {image.height} pixels, at most {MOST_PIXELS} in all are read; "
                       f"scale it down, or {AGAIN} when it is smaller")
    return image


def read_header(data):
    """The Header of an encoded image. Raises BadImage for more than MOST_PIXELS."""
    image = open_by_pillow(data)
    if image is None:
        return Header(True, False)
    # it ignores the orientation of WebP, takes LAB for RGB, and damaged animated PNG files end the process
    turned = image.format == "WEBP" and orientation(image) != 1
    moving = image.format == "PNG" and getattr(image, "is_animated", False)
    fit = image.format in OPENCV_FORMATS and image.mode != "LAB" and not turned and not moving
    return Header(fit, "progressive" in image.info)


def orientation(image):
    """EXIF's orientation of Pillow's image; 1, the usual one, where it is broken."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # a parser of broken tags may raise anything
        return 1


def decode_by_pillow(data, height=0, width=0, whole=True):
    """decode_image() by Pillow. whole: a JPEG must not lack more than its end marker."""
    if whole and data.startswith(START):
        # where all data are there, further ones change nothing
        data = data.rstrip(b"\xff")  # half of the marker
        image, *others = (decode_by_pillow(data + more + END, height, width, False) for more in (b"", *FILLINGS))
        return image if image is not None and all(np.array_equal(image, other) for other in others) else None
    try:
        image = open_by_pillow(data)
        if image is None:
            return None
        from PIL import ImageOps
        upright = ImageOps.exif_transpose(image)
        fits = height and width and upright.size != (width, height) and image.size == (width, height)
        return to_rgb(image if fits else upright)
    except MemoryError:
        raise
    except Exception:  # too many pixels, and damaged data may raise anything
        return None


def to_rgb(image):
    """Pillow's image -> [H, W, 3] uint8 RGB; of numbers above 255 the upper byte is kept."""
    if not image.mode.startswith(("I", "F")):
        return np.array(image.convert("RGB"))
    values = np.nan_to_num(np.array(image, np.float64))
    if image.mode.startswith("I;16") or values.max() > 255:
        values = values / 256
    elif image.mode == "F" and values.max() <= 1:
        values = values * 255
    return np.repeat(np.uint8(np.clip(values, 0, 255))[..., None], 3, axis=2)
