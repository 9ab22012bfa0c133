"""Zip files, as NumPy and PyTorch write them."""
from __future__ import annotations

import os
import zipfile
from typing import BinaryIO

from src.errors import DataError

MAX_RATIO = 20         # of the content to the file; weights hardly shrink
FREE_BYTES = 1 << 26   # that may come out of any file, for zeros and repeated numbers


def open_archive(file: BinaryIO) -> zipfile.ZipFile:
    """A zip file, opened. Raises DataError where its content is far larger than itself: it would fill the memory."""
    archive, size = zipfile.ZipFile(file), file.seek(0, os.SEEK_END)
    content = sum(member.file_size for member in archive.infolist())
    if content > MAX_RATIO * size + FREE_BYTES:
        raise DataError(f"a zip file of {size:,} bytes that becomes {content:,}; no weights shrink so: it is damaged, "
                        "or a zip bomb")
    return archive
