"""The bytes of a file that should be an image: read without waiting, and described where they are not an image.

The signatures are those of the formats' own specifications.
"""
from __future__ import annotations

import math
import os
import re
import stat
import struct
import zlib

from src.errors import refuse_shortage

MAX_BYTES = 1 << 30  # of a file: as many pixels as are taken, with 16 bits a colour, and room
HEAD_BYTES = 4096    # of a file, that tell its kind
HUFFMAN_FRAMES = (0xc0, 0xc1, 0xc2)  # markers of a JPEG's header: baseline, extended, progressive
MAX_SHOWN_TEXT = 40  # characters of a text that a message shows
AGAIN = "fetch or copy it again"
CONVERT = "convert it to JPEG or PNG"
PAGES = "the answer of a web server instead of the picture; fetch it again"
FILE_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
              (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))
# (what a file begins with, what it is, what to do); the first that fits
NOT_PICTURES = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the picture", "run 'git lfs pull' where it came from"),
    (rb"[./]*annex/objects/", "a git-annex pointer, not the picture", "run 'git annex get' where it came from"),
    (rb"(?s).{4}ftyp(hei|hev|mif1|msf1)", "HEIC, as phones write it", CONVERT),
    (rb"(?s).{4}ftyp(?!avi[fs])|.{4}(moov|mdat|wide)|RIFF.{4}AVI |\x1a\x45\xdf\xa3|FLV|\x00\x00\x01[\xb3\xba]|OggS",
     "a video", "take its frames out first"),
    (rb"RIFF.{4}WAVE|ID3|fLaC", "sound", "take it out of the annotations"),
    (rb"\s*(?i:<!doctype html|<html|<head|<body)", "an HTML page", PAGES),
    (rb"\s*(<\?xml[^>]*>)?\s*(<!--.*?-->\s*|<!DOCTYPE svg[^>]*>\s*)*<svg", "an SVG drawing", CONVERT),
    (rb"\s*(<\?xml|<[A-Za-z])", "an XML text", PAGES),
    (rb"%PDF", "a PDF document", CONVERT),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript document", CONVERT),
    (rb"\x00\x05\x16\x07", "macOS's notes on another file (its name begins with ._)", "take it out of the annotations"),
    (rb"PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "a packed archive", "unpack it"),
    (rb"\x93NUMPY|\x89HDF|CDF", "an array, not a picture", CONVERT),
    (rb"(?s).{128}DICM", "a DICOM file", CONVERT),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "JPEG XL", CONVERT),
    (rb"\x76\x2f\x31\x01", "OpenEXR", CONVERT),
)
PICTURES = (
    (rb"\xff\xd8", "JPEG"), (rb"\x89PNG", "PNG"), (rb"GIF8", "GIF"), (rb"BM", "BMP"), (rb"RIFF.{4}WEBP", "WebP"),
    (rb"II[*+]\x00|MM\x00[*+]", "TIFF"), (rb"(?s).{4}ftypavi", "AVIF"), (rb"8BPS", "PSD"),
    (rb"\x00\x00\x00\x0cjP|\xff\x4f\xff\x51", "JPEG 2000"))


class BadImage(Exception):
    """Why an image file cannot be used, in words. kind: "missing", "unreadable" or "too large"."""

    def __init__(self, reason: str, kind: str = "unreadable"):
        super().__init__(reason)
        self.kind = kind


def read_bytes(path: str, max_bytes: int = -1) -> bytes:
    """The first bytes, or all, of a regular file; reading a pipe or a device might never end. Raises BadImage."""
    try:
        state = os.stat(path)
        if not stat.S_ISREG(state.st_mode):
            what = next((name for test, name in FILE_KINDS if test(state.st_mode)), "not a file")
            raise BadImage(f"it is {what}, not a file; {AGAIN}", "missing")
        if state.st_size > MAX_BYTES and max_bytes < 0:
            raise BadImage(f"it has {state.st_size:,} bytes, the limit is {MAX_BYTES:,}; scale it down, or {AGAIN}",
                           "too large")
        with open(path, "rb") as file:
            return file.read(max_bytes)
    except OSError as error:
        refuse_shortage(error, path)
        reason = f"{error.strerror}; restore the file, or take it out of the annotations"
        raise BadImage(reason, "missing") from error
    except ValueError as error:  # a NUL or half a character in the name
        raise BadImage(f"this cannot be the name of a file ({error}); correct the annotations", "missing") from error


def describe_bytes(data: bytes) -> str:
    """What bytes are that cannot be decoded, and what to do."""
    if not data:
        return f"the file is empty; {AGAIN}"
    if not data.strip(b"\0"):
        return f"all of its {len(data)} bytes are zero; {AGAIN}"
    for pattern, what, remedy in NOT_PICTURES:
        if re.match(pattern, data[:HEAD_BYTES], re.DOTALL):
            return f"it is {what}; {remedy}"
    if text := as_text(data):
        return f"it is text ('{text}'), not a picture; {AGAIN}"
    for pattern, name in PICTURES:
        if re.match(pattern, data[:64], re.DOTALL):
            return f"it is {name}, {describe_damage(data, name)}; {AGAIN}"
    return f"its bytes are of no known format (the first are {data[:8].hex(' ')}); {AGAIN}, or {CONVERT}"


def describe_file(path: str) -> str:
    """describe_bytes() of the beginning of a file."""
    try:
        return describe_bytes(read_bytes(path, HEAD_BYTES))
    except BadImage as error:
        return str(error)


def as_text(data: bytes) -> str:
    """The first words of bytes that are text, else ""."""
    try:
        text = data[:1000].decode("utf-8", "strict" if len(data) <= 1000 else "ignore")
    except UnicodeDecodeError:
        return ""
    if len(text) < len(data[:1000]) / 4 or any(ord(letter) < 32 and not letter.isspace() for letter in text):
        return ""
    words = " ".join(text.split())
    return words if len(words) <= MAX_SHOWN_TEXT else f"{words[:MAX_SHOWN_TEXT]}.."


def describe_damage(data: bytes, name: str) -> str:
    """What is wrong with a picture of a known format that cannot be decoded, in words; of a JPEG see images.py."""
    if name == "PNG":
        return png_damage(data)
    declared = 0  # bytes of the file, as its header says
    if name == "WebP":
        declared = int.from_bytes(data[4:8], "little") + 8
    elif name == "BMP":
        declared = int.from_bytes(data[2:6], "little")
    return cut_at(len(data), declared) if len(data) < declared else "cut short or damaged"


def has_whole_chunks(data: bytes) -> bool:
    """Whether no chunk of a PNG claims more bytes than there are: OpenCV takes the memory that it claims."""
    place = 8
    while place + 8 <= len(data):
        place += int.from_bytes(data[place:place + 4], "big") + 12
    return place <= len(data)


def png_damage(data: bytes) -> str:
    """describe_damage() of a PNG: the share of its rows that its compressed data hold."""
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, color_type = int.from_bytes(data[24:25], "big"), int.from_bytes(data[25:26], "big")
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(color_type, 1)
    row_bytes = 1 + math.ceil(width * depth * channels / 8)  # the first names the filter of the row
    inflate, place, decoded = zlib.decompressobj(), 8, 0
    while place + 8 <= len(data):
        size = int.from_bytes(data[place:place + 4], "big")
        if data[place + 4:place + 8] == b"IDAT":
            try:
                decoded += len(inflate.decompress(data[place + 8:place + 8 + size]))
            except zlib.error:
                return "damaged"
        place += size + 12
    return cut_at(decoded, row_bytes * height) if place > len(data) else "damaged"


def min_jpeg_bytes(data: bytes) -> int:
    """The bytes that a JPEG of the size its header says has at least, 0 where that cannot be told.

    In Huffman's coding each 8 x 8 block of each component takes a bit or more (ITU-T T.81, F.1.2.1 and G.1.2.1).
    """
    place = 2
    while 0 <= (place := data.find(b"\xff", place)) <= len(data) - 10:
        kind, size = data[place + 1], int.from_bytes(data[place + 2:place + 4], "big")
        if kind in HUFFMAN_FRAMES:
            height, width, count = struct.unpack_from(">HHB", data, place + 5)
            factors = [(byte >> 4, byte & 15) for byte in data[place + 11:place + 10 + 3 * count:3]]
            most = max((h for h, _ in factors), default=0) * max((v for _, v in factors), default=0)
            blocks = width * height * sum(h * v for h, v in factors) // (64 * most) if most else 0
            return blocks // 8
        place += 1 if kind in (0, 0xff) else 2 + size  # bytes between two segments are skipped, as libjpeg does
    return 0


def cut_at(part: int, total: int) -> str:
    """Where a picture was cut, in words."""
    percent = 100 * part // max(total, 1)
    return f"cut short at about {min(max(percent, 1), 99)} %"


def file_size(path: str) -> int:
    """Bytes of a file, -1 when it is not there."""
    try:
        return os.path.getsize(path)
    except (OSError, ValueError):  # ValueError: a name that cannot be one
        return -1
