"""Files that are there in full or not at all, and paths as users type them."""
from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO

from src.errors import EnvironmentFault, OptionError

ASIDE = ".writing."  # how the names of what is being written begin
CLEANERS: list[Callable[[], None]] = []  # that still have to be called, see cleaned()


def aside_of(path: str) -> str:
    """Where a file is written until it is complete and can be renamed: beside path, by this process alone."""
    return f"{path}.part{os.getpid()}"


def write_atomic(path: str, data: bytes) -> None:
    """Writes bytes beside path and renames the file: path never holds half a file. Raises EnvironmentFault."""
    aside = aside_of(path)
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(aside, "wb") as file:
            file.write(data)
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.remove(aside)
        raise EnvironmentFault(f"{path} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def cleaned(clean: Callable[[], None]) -> Iterator[None]:
    """Calls clean() behind the context, however it ends; a program that ends at once does so by clean_up()."""
    CLEANERS.append(clean)
    try:
        yield
    finally:
        CLEANERS.remove(clean)
        clean()


def clean_up() -> None:
    """Removes what is half written, from any thread, before the program ends without leaving its contexts."""
    for clean in reversed(CLEANERS):
        with contextlib.suppress(Exception):  # the others count too
            clean()


@contextlib.contextmanager
def temporary_folder(prefix: str = "ssd.", above: str | None = None) -> Iterator[str]:
    """A new folder of this process alone, removed at the end. above: the folder in which, None for the system's."""
    folder = tempfile.mkdtemp(prefix=prefix, dir=above)
    with cleaned(partial(shutil.rmtree, folder, ignore_errors=True)):
        yield folder


def folder_aside(path: str) -> contextlib.AbstractContextManager[str]:
    """A temporary_folder() beside path, for a file that is being written."""
    return temporary_folder(ASIDE, os.path.dirname(os.path.abspath(path)))


def expand_home(path: str) -> str:
    """A path as typed, with the home folder for a leading ~ or ~user: a shell leaves --key=~/x as it stands.

    Raises OptionError where the user's own home folder is not known; ~name of an unknown user is the name of a file.
    """
    path = os.fspath(path)
    home = path.split(os.sep)[0] == "~"
    expanded = "~" if home and os.environ.get("HOME") == "" else os.path.expanduser(path)
    if home and expanded.startswith("~"):
        raise OptionError(f"'{path}': the home folder is not known, HOME is not set; write the path in full")
    return expanded


def private_folders(name: str) -> list[str]:
    """Where files for this machine may lie that can be made again: in the virtual environment, else the user's cache.

    None of them is made; one may be on a disk that cannot be written, or from which nothing can be run.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    own = [os.path.join(sys.prefix, "share")] if sys.prefix != sys.base_prefix else []
    return [os.path.join(folder, name) for folder in (*own, cache)]


def missing_folders(path: str) -> list[str]:
    """The folders that have to be made for path, itself first."""
    missing, above = [], os.path.abspath(path)
    while not os.path.exists(above):
        missing.append(above)
        above = os.path.dirname(above)
    return missing


def names_in(folder: str) -> list[str]:
    """The names in a folder, none where it does not exist."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def open_regular(path: str) -> BinaryIO:
    """A regular file for reading: a named pipe could keep the program waiting, a device never end. Raises OSError."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", path)
    return file


def walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """os.walk that follows links, but enters no folder a second time: links may lead back, or multiply the folders."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield place, folders, names


@contextlib.contextmanager
def output_folder(path: str) -> Iterator[None]:
    """Makes a folder and checks that it can be written, before the work whose result it will hold.

    Folders made here that are still empty at the end, as when the work fails, are removed. Raises EnvironmentFault.
    """
    made = missing_folders(path)

    def remove_empty() -> None:
        with contextlib.suppress(OSError):  # the first one that holds something, or was not made
            for folder in made:
                os.rmdir(folder)
    with cleaned(remove_empty):
        make_folder(path)
        yield


def make_folder(path: str) -> None:
    """Makes a folder and checks that it can be written. Raises EnvironmentFault."""
    try:
        os.makedirs(path, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(dir=path))
    except OSError as error:
        raise EnvironmentFault(f"folder '{path}' cannot be made or written: {error.strerror}") from error


def read_json(path: str) -> object:
    """The content of a JSON file."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)
