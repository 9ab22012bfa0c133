"""Errors a user can cause, each with the exit code of the program; `run_main` turns them into one line."""
from __future__ import annotations

import codecs
import contextlib
import difflib
import errno
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

from src.text import one_line, shortened

OPTION_EXIT, DATA_EXIT, ENVIRONMENT_EXIT, NOT_FINITE_EXIT, INTERRUPTED_EXIT = 2, 3, 4, 5, 130
STDERR_LOCK = threading.Lock()  # of whoever takes standard error for itself for a moment, see data/images.py
# Which of several processes meet an error: all the same one; this one alone, or each its own; another one, not this.
ALL, ALONE, ANOTHER = "all", "alone", "another"
# Seconds a process stays silent, so that the first to speak is heard alone: the launcher ends the others at its exit.
PATIENCE = {ALL: 5.0, ALONE: 0.0, ANOTHER: 10.0}
EXTRA_PACKAGES = {"waitress": "requirements-serve.txt"}  # not in requirements.txt
MAX_LETTERS = 4000  # of a message, which may quote a text of any length
LATER = 0.3  # additional seconds for each process of a host
# What libraries say when memory runs out, in words without underscores: MindSpore, CUDA, cuDNN, OpenCV, ONNX Runtime.
NO_MEMORY = re.compile(r"out of memory|memory (not|is not|isn't) enough|insufficient memory|bad alloc|alloc failed|"
                       r"alloc\w* (\w+ ){0,3}memory,? fail|(fail\w*|unable|cannot) (to )?allocate", re.IGNORECASE)


class SSDError(Exception):
    """Base of the errors that end a program with one line instead of a traceback, whatever the files say it quotes.

    met_by: ALL, ALONE or ANOTHER for this one error; None: as usual for its class.
    """
    exit_code, met_by = 1, ALONE

    def __init__(self, text: str = "", met_by: str | None = None) -> None:
        super().__init__(shortened(one_line(text), MAX_LETTERS))
        self.met_by = met_by or self.met_by


class OptionError(SSDError):
    """An unknown option, a wrong type, an impossible value, a checkpoint that does not fit: exit 2."""
    exit_code, met_by = OPTION_EXIT, ALL


def unknown_name(kind: str, name: str, known: list[str]) -> OptionError:
    """The error of an unknown name, with the nearest known one: one that begins alike, else one that looks alike.

    kind: what it is the name of, or the option that takes it.
    """
    plain_name = name.lower().replace("-", "_")
    near = [other for other in known if plain_name and other.startswith(plain_name)]
    near = near or difflib.get_close_matches(plain_name, known, 1, 0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return OptionError(f"{kind}={name}: {hint}known {kind.lstrip('-')}s are {', '.join(known)}")


class DataError(SSDError):
    """Missing or unusable images, annotations or MindRecord files: exit 3."""
    exit_code, met_by = DATA_EXIT, ALL


class EnvironmentFault(SSDError):
    """A missing device, library or launcher, too little memory, a folder that cannot be written: exit 4."""
    exit_code, met_by = ENVIRONMENT_EXIT, ALL


class RankFault(EnvironmentFault):
    """An EnvironmentFault that only one process of several meets."""
    met_by = ALONE


class NotFiniteError(SSDError):
    """The training loss became NaN or infinite: exit 5."""
    exit_code = NOT_FINITE_EXIT


class Interrupted(SSDError):
    """SIGINT or SIGTERM arrived and the state of the run was saved: exit 130."""
    exit_code, met_by = INTERRUPTED_EXIT, ALL


def run_main(main: Callable[[], int | None]) -> None:
    """Calls main() and exits with its code; an error a user can cause becomes one line on stderr and its exit code.

    A package that is not installed is such an error too, so programs import packages, and what needs them, in main().
    Of several processes the first one speaks for all that meet the same error.
    """
    use_utf8()
    try:
        leave(main() or 0)
    except BrokenPipeError:  # whoever read the output, `head` for example, has stopped
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        leave(1)
    except (Exception, KeyboardInterrupt) as raised:
        error = translate(raised)
        if error is None and launched() < 2:
            raise
        if error is None:  # a fault of this program: its traceback, without waiting for the other processes
            print(f"rank {own_rank()}:", file=sys.stderr)
            traceback.print_exc()
            leave(1)
    wait_to_speak(error.met_by)
    tell(error)
    leave(error.exit_code)


def tell(error: SSDError) -> None:
    """Prints an error as the line that ends a program."""
    rank = f"rank {own_rank()}: " if own_rank() else ""
    alone = STDERR_LOCK.acquire(timeout=1)  # the thread that has it may be the one that was interrupted
    print(f"{rank}error: {error}", file=sys.stderr, flush=True)
    if alone:
        STDERR_LOCK.release()


def translate(raised: BaseException) -> SSDError | None:
    """The SSDError that an exception stands for, None where it is a fault of this program."""
    if isinstance(raised, Interrupted):
        return raised
    if is_interruption(raised):
        return Interrupted("interrupted before there was anything to save")
    if isinstance(raised, SSDError):
        return raised
    if out_of_memory(raised):
        return memory_fault(raised)
    if isinstance(raised, ModuleNotFoundError) and (raised.name or "src").split(".")[0] != "src":
        remedy = "'bash scripts/setup_env.sh' installs all into .venv, '. .venv/bin/activate' selects it"
        if raised.name in EXTRA_PACKAGES:
            remedy = f"'pip install -r {EXTRA_PACKAGES[raised.name]}' installs it"
        return EnvironmentFault(f"the package '{raised.name}' is not installed in {sys.executable}; {remedy}")
    if isinstance(raised, OSError):
        name = f"'{raised.filename}'" if raised.filename else "a file"  # an open one does not tell its name
        return EnvironmentFault(f"{name} cannot be read or written: {raised.strerror or raised}")
    return None


def refuse_shortage(error: OSError, path: str) -> None:
    """Raises an error of its own where an OSError is of what this process lacks, and says nothing of the file."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise EnvironmentFault(f"'{path}' cannot be opened: {error.strerror}; raise the limit ('ulimit -n' shows it) "
                               "or end other programs", ALONE) from error
    if error.errno == errno.ENOMEM:
        raise MemoryError(f"'{path}' cannot be opened") from error


def is_interruption(error: BaseException | None) -> bool:
    """Whether an exception is a KeyboardInterrupt or was made of one: MindSpore calls the file it reads damaged."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


# --- several processes

def launched() -> int:
    """How many processes the launcher started, 0 without one."""
    return int(os.environ.get("OMPI_COMM_WORLD_SIZE") or os.environ.get("MS_WORKER_NUM") or 0)


def own_rank() -> int:
    """The number of this process according to its launcher, 0 without one."""
    return int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("MS_NODE_ID") or 0)


def wait_to_speak(met_by: str) -> None:
    """Returns when this process has to report an error; it does not return where the launcher ends it before."""
    speaks_first = own_rank() == 0 and met_by != ANOTHER
    if launched() < 2 or speaks_first or not PATIENCE[met_by]:
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    on_host = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") or launched())
    time.sleep(PATIENCE[met_by] + LATER * (own_rank() % on_host))


def leave(code: int) -> None:
    """Ends the program; without a teardown where one of several processes failed, in MindSpore's own cluster, and after
    an interruption.

    A teardown would wait for the other processes, that of the cluster crashes now and then after a good end, and that
    of a MindSpore which was compiling aborts.
    """
    in_cluster = os.environ.get("MS_ROLE") == "MS_WORKER"  # of msrun, and of mpirun on CPU
    whole = code == 0 or launched() < 2 and code != INTERRUPTED_EXIT
    if whole and not in_cluster:  # mpirun wants a process that ends well to finalize MPI
        sys.exit(code)
    leave_at_once(code)


def leave_at_once(code: int) -> NoReturn:
    """Ends the program from any thread, whatever the others are doing."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads any longer
            stream.flush()
    os._exit(code)


# --- memory

def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the memory of the machine or of a device has run out."""
    if isinstance(error, SSDError):
        return False
    return (isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM or
            bool(NO_MEMORY.search(str(error).replace("_", " "))))


def memory_fault(error: BaseException, option: str = "", batch: int = 0) -> EnvironmentFault:
    """The EnvironmentFault of an error of memory. option: whose value, batch, may be halved; "" where unknown."""
    advice = "try a smaller --image_size or another --model" if option else "try a smaller batch"
    if batch > 1:
        advice = f"try --{option}={batch // 2}, half of the batch of {batch}"
    reason = f" ({plain(error)})" if plain(error) else ""
    return EnvironmentFault(f"out of memory{reason}; {advice}, or end other programs", ALONE)


@contextlib.contextmanager
def smaller_batch(option: str, batch: int) -> Iterator[None]:
    """Turns an error of memory into an EnvironmentFault that says which value of the option to try: half of batch."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise memory_fault(error, option, batch) from error


# --- text

def plain(error: BaseException) -> str:
    """The message of an error of MindSpore as one line: without rules, headings and the stack."""
    lines = str(error).split("- C++ Call Stack")[0].splitlines()
    text = " ".join(line for line in lines if line.strip("- ") and not line.startswith("- "))
    return " ".join(text.split())[:300]


def use_utf8() -> None:
    """Lets names in any script be read and printed, with any locale; streams write what their encoding lacks as \\N.

    With an ASCII locale such files cannot be opened, which Python settles at its start: it starts again in UTF-8 mode.
    """
    ascii_only = codecs.lookup(sys.getfilesystemencoding()).name == "ascii"
    if ascii_only and os.environ.get("PYTHONUTF8") != "1" and hasattr(sys, "orig_argv"):
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
