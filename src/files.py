"""Files that are there in full or not at all, and paths as users type them."""
from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, BinaryIO

from src.errors import EnvironmentFault, OptionError

ASIDE = ".writing."  # how the names of what is being written begin
KEPT_LETTERS = 60    # of a name in such a name: a name has 255 bytes at most, and a letter up to 4
CLEANERS: list[Callable[[], None]] = []  # that still have to be called, see cleaned()


# --- files that appear whole

def write_atomic(path: str, data: bytes) -> None:
    """Writes bytes beside path and renames the file: path never holds half a file. Raises EnvironmentFault."""
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        file = open_aside(path)
    except OSError as error:
        raise not_written(path, error) from error
    finish(file, path, data)


def open_aside(path: str) -> BinaryIO:
    """A new file beside path for its content, until finish(). Raises OSError.

    Its name follows from path, and it is locked while it is open: what a killed program left is written over by the
    next one, so nothing piles up. While another program holds it, and where nothing can be locked, the name is random.
    """
    folder, name = os.path.split(os.path.abspath(path))
    with contextlib.suppress(OSError):  # it may be another user's
        file = open(os.path.join(folder, f"{ASIDE}{name[-KEPT_LETTERS:]}~"), "ab")  # an ending that nobody looks for
        if lock(file):
            file.truncate(0)
            return file
        file.close()
    return open(os.path.join(folder, ASIDE + uuid.uuid4().hex), "xb")


def lock(file: IO) -> bool:
    """Locks a file that was just opened. False where another program holds or has renamed it; what the file system
    cannot lock is removed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return still_there(file)
    except BlockingIOError:
        return False
    except OSError:
        os.remove(file.name)
        return False


def still_there(file: IO) -> bool:
    """Whether the name of an open file is still that of this file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except OSError:
        return False


def finish(file: IO, path: str, last: bytes | str = b"", *, keep: bool = True) -> None:
    """Ends a file of open_aside() with the last of its content and names it path; one that is not to be kept, or cannot
    be completed, goes. Raises EnvironmentFault."""
    try:
        with file:
            if last:
                file.write(last)
            file.flush()
            if keep:
                os.replace(file.name, path)
            else:
                os.remove(file.name)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.remove(file.name)
        raise not_written(path, error) from error


def not_written(path: str, error: OSError) -> EnvironmentFault:
    """The error of a file that cannot be written."""
    return EnvironmentFault(f"{path} cannot be written: {error.strerror}")


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
def scratch_folder() -> Iterator[str]:
    """A new folder of this process alone, among the temporary files of the system; removed at the end."""
    folder = tempfile.mkdtemp(prefix="ssd.")
    with cleaned(partial(shutil.rmtree, folder, ignore_errors=True)):
        yield folder


@contextlib.contextmanager
def folder_aside(path: str) -> Iterator[str]:
    """A new folder beside path, of this process alone, for a file that is written by its name; removed at the end.

    What a killed program left goes as in open_aside(). Raises OSError.
    """
    with open_aside(path) as held:
        folder = f"{held.name}.d"

        def remove() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                os.remove(held.name)
        with cleaned(remove):
            shutil.rmtree(folder, ignore_errors=True)
            os.mkdir(folder)
            yield folder


def remove_leftovers(folder: str) -> None:
    """Removes what killed programs were writing in a folder, in which no living one may write."""
    for name in names_in(folder):
        if name.startswith(ASIDE):
            place = os.path.join(folder, name)
            shutil.rmtree(place, ignore_errors=True)  # if it is a folder
            with contextlib.suppress(OSError):
                os.remove(place)


class Appender:
    """A file that grows, such as a log: what write() was given is in it, and nothing waits for a later write."""

    def __init__(self, path: str):
        """Opens or makes it. Raises EnvironmentFault."""
        self.path = path
        try:
            self.file = open(path, "ab", buffering=0)
        except OSError as error:
            raise not_written(path, error) from error

    def write(self, data: bytes) -> None:
        """Appends bytes. Raises EnvironmentFault."""
        try:
            while data:  # a disk that becomes full takes a part
                data = data[self.file.write(data):]
        except OSError as error:
            raise not_written(self.path, error) from error

    def close(self) -> None:
        """Closes the file."""
        self.file.close()


# --- paths and folders

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
    """The names in a folder, none where it does not exist. Raises OSError for one that cannot be read."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
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

    When that work fails, what it was writing into a folder made here goes, and so do folders made here that are empty
    then. Raises EnvironmentFault.
    """
    made = missing_folders(path)

    def undo() -> None:
        with contextlib.suppress(OSError):  # the first one that holds something, or was not made
            if made:
                remove_leftovers(path)
            for folder in made:
                os.rmdir(folder)
    with cleaned(undo):
        make_folder(path)
        yield
        made.clear()


def make_folder(path: str) -> None:
    """Makes a folder and checks that it can be written. Raises EnvironmentFault."""
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise EnvironmentFault(f"folder '{path}' cannot be made or written: {error.strerror}") from error


def read_json(path: str) -> object:
    """The content of a JSON file."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)
