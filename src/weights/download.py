"""Downloads of weight files: continued where a connection ended, checked, and there in full or not at all."""
from __future__ import annotations

import hashlib
import math
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatch
from http.client import HTTPException, HTTPResponse
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from src.errors import DataError, EnvironmentFault, OptionError
from src.progress import track

CHUNK = 1 << 20  # bytes
TIMEOUT = 60     # seconds without a byte
COMPLETE = 416   # HTTP: nothing of the file lies behind what we have


def download(address: str, path: str, *, sha256: str = "") -> str:
    """A file from an http or https address to path; the whole SHA-256 of it.

    path.part holds what came until all did, and the next call goes on from there. sha256: how it begins, as far as it
    is known. Raises OptionError for another address, EnvironmentFault where not all came, DataError where another file
    came.
    """
    if not address.startswith(("http://", "https://")):
        raise OptionError(f"'{address}' is not an address to download from; it begins with https:// or http://")
    part = f"{path}.part"
    try:
        total = fetch(address, part)
    except (OSError, HTTPException) as error:  # a URLError is an OSError
        reason = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
        remedy = ("what came is kept: the same command goes on from there" if os.path.exists(part) else
                  "try again later, or get it by hand")
        raise EnvironmentFault(f"'{address}' could not be downloaded ({reason}); {remedy}") from error
    size = os.path.getsize(part)
    if size < total:
        raise EnvironmentFault(f"'{address}': the connection ended after {size:,} of {total:,} bytes; the same command "
                               "goes on from there")
    digest = file_digest(part)
    if not digest.startswith(sha256.lower()):
        os.remove(part)
        raise DataError(f"'{address}' sent a file with the SHA-256 {digest}, expected {sha256}; it was removed: try "
                        "again, or ask its publisher")
    os.replace(part, path)
    return digest


def fetch(address: str, part: str) -> int:
    """Adds what is missing of a file to part. Returns how many bytes all of it has, 0 where the server does not say."""
    have = os.path.getsize(part) if os.path.exists(part) else 0
    headers = {"User-Agent": "ssd-mindspore", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with urlopen(Request(address, headers=headers), timeout=TIMEOUT) as answer:
            goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            coming = int(answer.headers.get("Content-Length") or 0)
            with open(part, "ab" if goes_on else "wb") as file:
                name = os.path.basename(part).removesuffix(".part")
                for chunk in track(chunks(answer), max(math.ceil(coming / CHUNK), 1), f"{name}, MB"):
                    file.write(chunk)
            return coming + (have if goes_on else 0)
    except HTTPError as error:
        if error.code == COMPLETE and have:
            return have
        raise


def chunks(answer: HTTPResponse) -> Iterator[bytes]:
    """The bytes of an answer, CHUNK at a time."""
    while chunk := answer.read(CHUNK):
        yield chunk


def file_digest(path: str) -> str:
    """The SHA-256 of a file as hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def unpack(archive: str, pattern: str, folder: str) -> list[str]:
    """Writes the files of a tar archive whose paths match */pattern flat into a folder. Returns their new paths.

    Raises DataError where the archive is damaged or has none.
    """
    found = []
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if not member.isfile() or not fnmatch(f"/{member.name}", f"*/{pattern}"):
                    continue
                target = os.path.join(folder, os.path.basename(member.name))
                with tar.extractfile(member) as source, open(f"{target}.part", "wb") as file:
                    shutil.copyfileobj(source, file)
                os.replace(f"{target}.part", target)
                found.append(target)
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise DataError(f"'{archive}' is damaged ({error}); remove it and download it again") from error
    if not found:
        raise DataError(f"'{archive}' has no file '{pattern}'; it is another archive than expected")
    return found
