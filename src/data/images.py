"""Encoded images -> RGB pixels (numpy, OpenCV, Pillow), the same in conversion, training, evaluation and prediction."""
from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from src.data.image_bytes import AGAIN, BadImage, cut_at, describe_bytes, has_whole_chunks, min_jpeg_bytes, read_bytes
from src.errors import STDERR_LOCK, DataError, refuse_shortage

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")  # in any case
MAX_IMAGE_PIXELS = 1 << 27  # 384 MiB as RGB; a damaged header may promise any number
MAX_IMAGE_SIDE = 1_000_000  # what PNG files are read to (libpng), of which conversion makes some
PILLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "PSD",
                  "SGI", "DIB", "DDS", "QOI")  # not EPS, for which Pillow starts another program
OPENCV_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "WEBP", "TIFF", "PPM")
ORIENTATION = 0x0112   # EXIF's tag
START, END = b"\xff\xd8", b"\xff\xd9"  # of a JPEG
# what would show in the picture where it followed data that are cut short, within an interval or between two of them
FILLINGS = (b"\x55" * 16, bytes(range(1, 60)), b"".join(bytes([255, 0xd0 + n]) + b"\x55" * 16 for n in range(8)))


class CheckedImage(NamedTuple):
    """An image that was read and is complete."""
    pixels: np.ndarray     # [H, W, 3] uint8 RGB
    size: tuple[int, int]  # H, W
    data: bytes            # what decode_image() makes the same pixels of, silently: the file's bytes, or a PNG
    note: str              # what is wrong with it all the same, ""


def decode_image(data: bytes | np.ndarray, height: int = 0, width: int = 0) -> np.ndarray | None:
    """Encoded bytes (or a [n] uint8 array) -> [H, W, 3] uint8 RGB, or None when they are not a complete image.

    Grayscale, palette, CMYK, alpha and 16-bit files come out as 8-bit RGB. The EXIF orientation is applied, unless only
    the image without it has the given height and width: then boxes were drawn on the unrotated frame. Quick, for bytes
    that check_image() has passed: of others a huge one takes its memory, and libjpeg may write lines of its own.
    """
    image = decode_by_opencv(data, height, width)
    if image is None:
        image = decode_by_pillow(np.frombuffer(data, np.uint8).tobytes(), height, width)
    return image


def read_image(path: str, height: int = 0, width: int = 0) -> np.ndarray:
    """An image file -> [H, W, 3] uint8 RGB, frame chosen as in decode_image(). Raises DataError naming the file."""
    try:
        return check_image(path, height, width).pixels
    except BadImage as error:
        raise DataError(bad_image_message(path, error)) from error


def bad_image_message(path: str, error: BadImage) -> str:
    """One line about a file that cannot be used."""
    problems = {"missing": "cannot be read", "unreadable": "is not a complete image", "too large": "is too large"}
    return f"'{path}' {problems[error.kind]}: {error}"


def check_image(path: str, height: int = 0, width: int = 0, *, capture: bool = True) -> CheckedImage:
    """check_bytes() of a file. Raises BadImage. capture: see there."""
    return check_bytes(read_bytes(path), height, width, capture=capture)


def check_bytes(data: bytes, height: int = 0, width: int = 0, *, capture: bool = True) -> CheckedImage:
    """Reads the bytes of an image file with all checks, decoded as decode_image() would. Raises BadImage.

    capture: judge by what the libraries write to standard error, too; else the caller captures it.
    """
    for_opencv = opencv_reads(data)
    if data.startswith(START) and len(data) < min_jpeg_bytes(data):  # decoding would take gigabytes for nothing
        raise BadImage(f"it is JPEG, and its {len(data)} bytes are too few for the size that its header says; {AGAIN}")
    with captured_stderr() if capture else contextlib.nullcontext([]) as lines:
        found = decode_by_opencv(data, height, width) if for_opencv else None
        image = decode_by_pillow(data, height, width) if found is None else found
    if image is None:
        raise BadImage(describe_jpeg(data) if data.startswith(START) else describe_bytes(data))
    note = damage_note(lines, data, image)
    if found is None or lines:
        data = cv2.imencode(".png", image[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 3))[1].tobytes()
    return CheckedImage(image, image.shape[:2], data, note)


def load_in_threads(load: Callable, items: Sequence, at_once: int) -> Iterator:
    """What load(item, capture=..) returns for each item, in order, so many at once. load: calls check_image()."""
    with ThreadPoolExecutor(min(4, os.cpu_count())) as pool:
        for start in range(0, len(items), at_once):
            chunk = items[start:start + at_once]
            # the libraries seldom write about damage: capture it for all of them at once
            with captured_stderr() as lines:
                loaded = list(pool.map(functools.partial(load, capture=False), chunk))
            if lines:
                loaded = [load(item, capture=True) for item in chunk]
            yield from loaded


# --- OpenCV

def decode_by_opencv(data: bytes | np.ndarray, height: int, width: int) -> np.ndarray | None:
    """decode_image() by OpenCV alone."""
    image = opencv_rgb(data, cv2.IMREAD_COLOR_RGB)
    if image is not None and height and width and image.shape[:2] != (height, width):
        unrotated = opencv_rgb(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if unrotated.shape[:2] == (height, width):
            return unrotated
    return image


def opencv_rgb(data: bytes | np.ndarray, flags: int) -> np.ndarray | None:
    """OpenCV's decoder with None for what it cannot read, and without its own lines on stderr."""
    cv2.setLogLevel(0)
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:  # no bytes at all, or more pixels than OpenCV accepts
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        return None


# --- damage

def damage_note(lines: list[str], data: bytes, image: np.ndarray) -> str:
    """What the lines that libraries wrote about an image mean, in words. Raises BadImage when its data end too soon."""
    for line in lines:
        if "Corrupt JPEG data" not in line:
            continue
        unused = re.search(r"(\d+) extraneous bytes", line)
        ends_flat = (image[-8:, -8:] == image[-1, -1]).all()  # as where a JPEG's data end too soon
        if not unused and (ends_flat or decode_by_pillow(data[:data.rfind(END)]) is None):
            raise BadImage(describe_jpeg(data))
        if not unused or int(unused[1]) * 100 > len(data):
            return f"damaged ({line.strip()}), used as it can be decoded; look at it, and {AGAIN}"
    return ""


def describe_jpeg(data: bytes) -> str:
    """describe_bytes() of a JPEG, with the share of its rows that is there."""
    image = pillow_rgb(data + END)
    # a progressive one comes in several passes over all of the picture
    if image is None or "progressive" in open_by_pillow(data + END).info:
        return describe_bytes(data)
    decoded = (image != image[-1, -1]).any(axis=2)  # the rest has one grey
    return f"it is JPEG, {cut_at(int(decoded.sum()), decoded.size)}; {AGAIN}"


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """Gives a list that holds, afterwards, the lines written to standard error: libjpeg and libpng tell of damage there
    alone. It stays empty in a process without a standard error or a place for temporary files."""
    lines = []
    with STDERR_LOCK, contextlib.ExitStack() as stack:
        try:
            file, kept = stack.enter_context(tempfile.TemporaryFile()), os.dup(2)
        except OSError as error:
            refuse_shortage(error, "a temporary file")
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
def silence_pillow() -> None:
    """Turns off Pillow's log, warnings and own limit of pixels; MAX_IMAGE_PIXELS is checked instead."""
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="PIL")
    Image.MAX_IMAGE_PIXELS = None


def open_by_pillow(data: bytes) -> Image.Image | None:
    """Pillow's image of bytes, not decoded yet, or None. Raises BadImage for more than MAX_IMAGE_PIXELS."""
    silence_pillow()
    try:
        image = Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)
    except MemoryError:
        raise
    except Exception:  # a parser of a broken header may raise anything
        return None
    if image.width * image.height > MAX_IMAGE_PIXELS or max(image.size) > MAX_IMAGE_SIDE:
        raise BadImage(f"its header says {image.width} x {image.height} pixels, the limit is {MAX_IMAGE_PIXELS} in "
                       f"all and {MAX_IMAGE_SIDE} a side; scale it down, or {AGAIN} when it is smaller")
    return image


def opencv_reads(data: bytes) -> bool:
    """Whether OpenCV reads an image correctly, by its header. Raises BadImage for more than MAX_IMAGE_PIXELS."""
    image = open_by_pillow(data)
    # a format that Pillow does not know, and a damaged header: OpenCV would take the memory that it asks for
    if image is None or image.format == "PNG" and not has_whole_chunks(data):
        return False
    # it ignores the orientation of WebP, takes LAB for RGB, and damaged animated PNG files end the process
    rotated = image.format == "WEBP" and orientation(image) != 1
    animated = image.format == "PNG" and getattr(image, "is_animated", False)
    return image.format in OPENCV_FORMATS and image.mode != "LAB" and not rotated and not animated


def orientation(image: Image.Image) -> int:
    """EXIF's orientation of an image; 1, the usual one, where it is broken."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # a parser of broken tags may raise anything
        return 1


def decode_by_pillow(data: bytes, height: int = 0, width: int = 0) -> np.ndarray | None:
    """decode_image() by Pillow; a JPEG may lack no more than its end marker."""
    if not data.startswith(START):
        return pillow_rgb(data, height, width)
    data = data.rstrip(b"\xff")  # half of the marker
    image = pillow_rgb(data + END, height, width)
    for filling in FILLINGS:  # where all data are there, further ones change nothing
        if image is None or not np.array_equal(image, pillow_rgb(data + filling + END, height, width)):
            return None
    return image


def pillow_rgb(data: bytes, height: int = 0, width: int = 0) -> np.ndarray | None:
    """What Pillow decodes of an image that may be cut short, or None."""
    try:
        image = open_by_pillow(data)
        if image is None:
            return None
        upright = ImageOps.exif_transpose(image)
        if height and width and upright.size != (width, height) and image.size == (width, height):
            return to_rgb(image)
        return to_rgb(upright)
    except MemoryError:
        raise
    except Exception:  # too many pixels, and damaged data may raise anything
        return None


def to_rgb(image: Image.Image) -> np.ndarray:
    """Pillow's image -> [H, W, 3] uint8 RGB; of numbers above 255 the upper byte is kept."""
    if not image.mode.startswith(("I", "F")):
        return np.array(image.convert("RGB"))
    values = np.nan_to_num(np.array(image, np.float64))
    if image.mode.startswith("I;16") or values.max() > 255:
        values = values / 256
    elif image.mode == "F" and values.max() <= 1:
        values = values * 255
    return np.repeat(np.uint8(np.clip(values, 0, 255))[..., None], 3, axis=2)
