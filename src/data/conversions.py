"""The folders of conversions: their names, who reads them, and which may be removed.

A conversion is a folder <dataset>_<split>_<hash of source paths and classes>_<hash of the annotations>[_<number>]. It
is made aside and renamed, so that it is complete or not there. Who reads one holds a shared lock on it as long as its
Split lives, and only a folder that nobody reads is ever removed: what a run reads stays as it is.
"""
from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

from src.errors import EnvironmentFault
from src.files import cleaned

HASH_DIGITS = 8      # of a hash in a name
TEMPORARY = ".tmp"   # ends the name of a folder while it is written


class ReadLock:
    """A conversion in use; while this object lives, remove_unread() does not remove its folder."""

    def __init__(self, folder: str):
        """Raises OSError where there is no such folder."""
        self.folder, self.handle = folder, os.open(folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a file system without locks: nothing is removed there either
            fcntl.flock(self.handle, fcntl.LOCK_SH)

    def __del__(self):
        if handle := getattr(self, "handle", None):
            os.close(handle)

    def is_in_place(self) -> bool:
        """Whether the folder that was locked still has its name."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self.handle), os.stat(self.folder))
        return False


def conversion_path(mindrecord_dir: str, name: str, *, origin: list[str], fingerprint: str) -> str:
    """Where the conversions of a split lie, without their number.

    name: of data set and split; origin: paths of the source and names of the classes; fingerprint: of the annotations.
    """
    digest = hashlib.sha256(os.fsencode("\n".join(origin))).hexdigest()[:HASH_DIGITS]
    return os.path.join(mindrecord_dir, f"{name.replace(os.sep, '_')}_{digest}_{fingerprint[:HASH_DIGITS]}")


def list_conversions(path: str, *, any_annotations: bool = False, temporary: bool = False) -> list[str]:
    """The conversions of a conversion_path(), the oldest first. any_annotations: of all fingerprints of its source;
    temporary: unfinished ones too."""
    parent, name = os.path.split(path)
    pattern = re.escape(name)
    if any_annotations:
        pattern = re.escape(name[:-HASH_DIGITS]) + rf"[0-9a-f]{{{HASH_DIGITS}}}"
    pattern += r"(_(\d+))?"
    if temporary:
        pattern += f"({re.escape(TEMPORARY)})?"
    with contextlib.suppress(OSError):
        matches = [(re.fullmatch(pattern, entry.name), entry.path) for entry in os.scandir(parent)]
        return [folder for _, folder in sorted((int(match[2] or 1), folder) for match, folder in matches if match)]
    return []


def free_folder(path: str) -> str:
    """The folder of a new conversion: one that nobody reads, which is removed, or the next number."""
    for number in count(1):
        folder = path if number == 1 else f"{path}_{number}"
        if not os.path.lexists(folder) or remove_unread(folder):
            return folder


def remove_unread(folder: str) -> bool:
    """Removes a conversion unless somebody reads it, or locks cannot tell. Returns whether it has gone."""
    with contextlib.suppress(OSError), open_folder(folder) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
        return True
    return not os.path.lexists(folder)


@contextlib.contextmanager
def temporary_folder(folder: str) -> Iterator[str]:
    """A new folder to write a conversion in, removed at the end unless put in place. Raises EnvironmentFault."""
    temporary = folder + TEMPORARY
    remove = partial(shutil.rmtree, temporary, ignore_errors=True)
    remove()  # that of a conversion that was killed
    try:
        with cleaned(remove):
            os.makedirs(temporary)
            yield temporary
    except OSError as error:
        raise EnvironmentFault(f"'{temporary}' cannot be written: {error.strerror}") from error


def put_in_place(temporary: str, path: str, log: Callable[[str], None]) -> ReadLock:
    """Renames a new conversion, and removes those that it replaces and nobody reads. path: its conversion_path()."""
    folder = temporary[:-len(TEMPORARY)]
    os.rename(temporary, folder)
    lock = ReadLock(folder)
    for other in list_conversions(path, any_annotations=True, temporary=True):
        if other != folder and remove_unread(other):
            log(f"removed {other}, an earlier conversion that nothing reads")
    return lock


@contextlib.contextmanager
def conversion_lock(mindrecord_dir: str) -> Iterator[None]:
    """One process at a time converts into a folder; a file system without locks lets all pass."""
    with open_folder(mindrecord_dir) as handle:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def is_converting(mindrecord_dir: str) -> bool:
    """Whether a process holds the conversion_lock(), as far as locks can tell."""
    with open_folder(mindrecord_dir) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return isinstance(error, BlockingIOError)
    return False


@contextlib.contextmanager
def open_folder(folder: str) -> Iterator[int]:
    """The file descriptor of a folder, for locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)
