"""The folder of a run: refused when it holds another run, found again to resume."""
from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from typing import TextIO

from src.errors import EnvironmentFault, OptionError
from src.files import make_folder, missing_folders, names_in, remove_leftovers, still_there

MARKS = ("config.yaml", "log.jsonl", "ckpt")
LOCK = ".lock"  # in the folder of a run that is alive; a killed run leaves the file, but locked by nobody


def check_run_folder(path: str, *, resume: bool = False) -> None:
    """Raises OptionError when path holds a run and resume is not set, or the other way round, EnvironmentFault when it
    cannot be made. Writes nothing. A run that ended before its first checkpoint may be started again.
    """
    saved, found = what_it_holds(path)
    if not resume and (saved or any(found) and not all(found)):
        raise OptionError(f"--output_path '{path}' already holds a run; go on with it by --resume=True "
                          f"--output_path={path}, or choose another one")
    if resume and not saved:
        reason = "is --output_path that of the interrupted run?"
        if all(found):
            reason = "that run ended before its first one; leave --resume out to start it again"
        raise OptionError(f"--resume=True, but there is no '{os.path.join(path, 'ckpt', '*.ckpt')}'; {reason}")
    missing = missing_folders(path)
    above = os.path.dirname(missing[-1]) if missing else path
    if not os.path.isdir(above) or not os.access(above, os.W_OK):
        raise EnvironmentFault(f"folder '{path}' cannot be made or written; choose another --output_path")


def what_it_holds(path: str) -> tuple[bool, list[bool]]:
    """Whether a folder holds a checkpoint of a run, and whether each of MARKS."""
    names = names_in(os.path.join(path, "ckpt"))
    saved = any(name.endswith(".ckpt") and not name.startswith(".") for name in names)
    return saved, [os.path.exists(os.path.join(path, mark)) for mark in MARKS]


def restart_note(path: str) -> str:
    """Says that the run in a folder, which has saved nothing, will be started again; "" where there is none."""
    saved, found = what_it_holds(path)
    if saved or not all(found):
        return ""
    return (f"'{path}' holds a run that ended before its first checkpoint: it starts again, for --resume=True has "
            "nothing to go on from (--save_checkpoint_steps=N saves earlier)")


@contextlib.contextmanager
def hold_run_folder(path: str, *, resume: bool = False) -> Iterator[None]:
    """Keeps path for the run of this process, on rank 0: a second run is refused until this one ends, even by a kill.

    The lock belongs to the process, so its children do not inherit it; a file system without locks lets pass. Folders
    made here that are still empty at the end are removed. Raises OptionError, EnvironmentFault.
    """
    new = missing_folders(path)
    file, locked = lock_file(path)
    try:
        check_run_folder(path, resume=resume)  # again: a run may have come and gone while this process started
        if locked:
            remove_leftovers(os.path.join(path, "ckpt"))
        yield
    finally:
        with contextlib.suppress(OSError):
            if still_there(file):
                os.remove(file.name)
        file.close()
        for folder in new:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def lock_file(path: str) -> tuple[TextIO, bool]:
    """Makes a folder and opens its lock file -> the file, and whether the file system has locks.

    Raises OptionError when a living run has locked it, EnvironmentFault where nothing can be written.
    """
    while True:
        make_folder(path)
        try:
            file = open(os.path.join(path, LOCK), "a+", encoding="utf-8")  # to close it is to unlock it
        except FileNotFoundError:  # its holder has just ended and removed the folder
            continue
        except OSError as error:
            raise EnvironmentFault(f"folder '{path}' cannot be written: {error.strerror}") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return file, False
            with file:
                file.seek(0)
                holder = file.read().strip()[:200] or "another process"
            raise OptionError(f"--output_path '{path}' is in use by a run that has not ended ({holder}); wait for it, "
                              "stop it, or choose another --output_path") from error
        if still_there(file):
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            with contextlib.suppress(OSError):  # a full disk; it is locked all the same
                file.truncate(0)
                os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode())
            return file, True
        file.close()  # its holder removed it between the two calls above
