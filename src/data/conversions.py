"""Folders of converted data: which one is fit for use, who reads it, and which may go.

A conversion is a folder <dataset>_<split>_<hash of source paths and classes>_<hash of the annotations>[_<number>]. It
is made aside and renamed: there whole or not. Who reads one holds a shared lock on it as long as its Split lives, and
only a folder that nobody reads is ever removed: what a run reads stays as it is, whatever is converted meanwhile.
"""
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import count

from src.data.image_bytes import file_size

DIGITS = 8           # of a hash in a name
TEMPORARY = ".tmp"


def base_path(mindrecord_dir: str, names: str, origin: list, fingerprint: str) -> str:
    """Where the conversions of one source with these annotations lie, but for a number; origin: paths and classes."""
    digest = hashlib.sha256(os.fsencode("\n".join(origin))).hexdigest()[:DIGITS]
    return os.path.join(mindrecord_dir, f"{names.replace(os.sep, '_')}_{digest}_{fingerprint[:DIGITS]}")


class Reader:
    """A conversion in use; while this object lives, remove_unread() lets its folder be."""

    def __init__(self, folder: str):
        """Raises OSError where there is no such folder."""
        self.folder, self.handle = folder, os.open(folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a file system without locks: nothing is removed there either
            fcntl.flock(self.handle, fcntl.LOCK_SH)

    def __del__(self):
        if handle := getattr(self, "handle", None):
            os.close(handle)

    def in_place(self):
        """Whether the folder that was locked still has its name."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self.handle), os.stat(self.folder))
        return False


def find_conversion(bases: list, wanted: dict, image_dir: str, times: bool = True) -> tuple:
    """(Reader of a conversion that is fit for use, or None; why there is none).

    bases: paths without the last number, the most welcome first. wanted: what its manifest must say. times: images must
    have the very times of then, not the sizes alone.
    """
    reason = ""
    for base in bases:
        for folder in reversed(conversions(base)):
            with contextlib.suppress(OSError):
                reader = Reader(folder)
                why = stale(folder, wanted) or changed_image(folder, image_dir, times)
                if not why and reader.in_place():
                    return reader, ""
                reason = reason or why
    earlier = any(conversions(base[:-DIGITS - 1], any_annotations=True) for base in bases)
    return None, reason or ("the annotations have changed" if earlier else "it is not there yet")


def conversions(base: str, any_annotations: bool = False, temporary: bool = False) -> list:
    """The folders of a base, the oldest first. any_annotations: base lacks the hash of the annotations."""
    parent, name = os.path.split(base)
    pattern = (re.escape(name) + (rf"_[0-9a-f]{{{DIGITS}}}" if any_annotations else "") + r"(_(\d+))?"
               + (f"({re.escape(TEMPORARY)})?" if temporary else ""))
    with contextlib.suppress(OSError):
        found = [(int(match[2] or 1), entry.path) for entry in os.scandir(parent)
                 if (match := re.fullmatch(pattern, entry.name))]
        return [path for _, path in sorted(found)]
    return []


def stale(folder: str, wanted: dict) -> str:
    """Why the conversion in folder cannot be used, or "" when it can."""
    try:
        manifest = read_manifest(folder)
        if manifest["schema"] != wanted["schema"]:
            return "another version of this program wrote it"
        if manifest["fingerprint"] != wanted["fingerprint"]:
            return "the annotations have changed"
        if wanted["asked_classes"] not in (manifest["asked_classes"], manifest["classes"]):
            return "it has other classes"
        files, left_out, _ = manifest["files"].items(), manifest["left_out"].items(), manifest["images"].items()
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return "its manifest is missing or broken"
    for name, size in files:
        if file_size(os.path.join(folder, name)) != size:
            return f"{name} is missing or has another size"
    for path, size in left_out:
        if file_size(path) != size:
            return f"'{path}' could not be used and has changed since"
    return ""


def image_facts(paths: list, image_dir: str) -> dict:
    """{path below image_dir: "size time"}, time in nanoseconds; "-" for a file that is not there."""
    return {os.path.relpath(path, image_dir): image_fact(path) for path in paths}


def image_fact(path):
    """The size and the time of change of a file as a text."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return "-"
    return f"{state.st_size} {state.st_mtime_ns}"


def changed_image(folder, image_dir, times):
    """Which image is not as it was when it was converted, in words, or "".

    Where all of the images have gone, the conversion stands for them.
    """
    then = {name: fact for name, fact in read_manifest(folder)["images"].items() if fact != "-"}
    changed, gone = "", 0
    for name, fact in then.items():
        now = image_fact(os.path.join(image_dir, name))
        gone += now == "-"
        if now != fact and (times or now.split()[0] != fact.split()[0]):
            changed = changed or name
        if changed and gone == 0:
            break
    return "" if not changed or gone == len(then) else f"image '{changed}' has changed since"


def free_folder(base: str) -> str:
    """A path for a new conversion: that of a folder nobody reads, which is removed, or the next number."""
    for number in count(1):
        folder = base if number == 1 else f"{base}_{number}"
        if not os.path.lexists(folder) or remove_unread(folder):
            return folder


def remove_unread(folder: str) -> bool:
    """Removes a conversion unless somebody reads it, or locks cannot tell. Returns whether it has gone."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
            return True
        finally:
            os.close(handle)
    return not os.path.lexists(folder)


def put_in_place(temporary: str, folder: str, base: str, log: Callable) -> Reader:
    """Renames a new conversion, and removes what nobody reads of those that it replaces -> its Reader."""
    os.rename(temporary, folder)
    reader = Reader(folder)
    for path in conversions(base[:-DIGITS - 1], any_annotations=True, temporary=True):
        if path != folder and remove_unread(path):
            log(f"removed {path}, an earlier conversion that nothing reads")
    return reader


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """One process at a time converts into folder; a file system without locks lets all pass."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def is_locked(folder: str) -> bool:
    """Whether a process converts into folder just now, as far as locks can tell."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(handle)


def read_manifest(folder: str) -> dict:
    """What a conversion says about itself."""
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
        return json.load(file)
