"""Errors a user can cause, each with the exit code of the program; `run_main` turns them into one line."""
import codecs
import contextlib
import difflib
import errno
import os
import re
import signal
import sys
import time
import traceback

OPTION_EXIT, DATA_EXIT, ENVIRONMENT_EXIT, NOT_FINITE_EXIT, INTERRUPTED_EXIT = 2, 3, 4, 5, 130
# which of several processes meet an error: all the same one; this one alone, or each its own; another one, not this
ALL, ALONE, ANOTHER = "all", "alone", "another"
# Seconds a process keeps quiet: the launcher ends the others at the first exit, so whoever speaks first is heard alone.
# It is not taken for granted that another speaks: a process that is still there then says its error itself.
PATIENCE = {ALL: 5.0, ALONE: 0.0, ANOTHER: 10.0}
LATER = 0.3  # more of them for each process of a host
# what libraries say when memory runs out, in words without underscores: MindSpore, CUDA, cuDNN, OpenCV, ONNX Runtime
NO_MEMORY = re.compile(r"out of memory|memory (not|is not|isn't) enough|insufficient memory|bad alloc|alloc failed|"
                       r"alloc\w* (\w+ ){0,3}memory,? fail|(fail\w*|unable|cannot) (to )?allocate", re.IGNORECASE)


class SSDError(Exception):
    """Base of the errors that end a program with one line instead of a traceback.

    met_by: ALL, ALONE or ANOTHER, of this very error; None: as usual for its class.
    """
    exit_code, met_by = 1, ALONE

    def __init__(self, text="", met_by=None):
        super().__init__(text)
        self.met_by = met_by or self.met_by


class OptionError(SSDError):
    """An unknown option, a wrong type, an impossible value, a checkpoint that does not fit: exit 2."""
    exit_code, met_by = OPTION_EXIT, ALL


def unknown_name(kind: str, name: str, known: list) -> OptionError:
    """The error of a name that is not one of the known ones; it says the nearest: one that begins so, or looks so."""
    plain = name.lower().replace("-", "_")
    near = [one for one in known if plain and one.startswith(plain)] or difflib.get_close_matches(plain, known, 1, 0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return OptionError(f"{kind}={name}: {hint}known {kind}s are {', '.join(known)}")


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


def run_main(main):
    """Calls main() and exits with its code; what a user can cause becomes one line on stderr and its exit code.

    A package that is not installed is such an error too, which is why programs import packages, and what needs them, in
    main(). Of several processes the first speaks for all where all have the same to say.
    """
    speak_utf8()
    try:
        leave(main() or 0)
    except BrokenPipeError:  # whoever read the output, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        leave(1)
    except (Exception, KeyboardInterrupt) as raised:
        error = translate(raised)
        if error is None and launched() < 2:
            raise
        if error is None:  # a fault of this program: its traceback, but no waiting for the other processes
            print(f"rank {own_rank()}:", file=sys.stderr)
            traceback.print_exc()
            leave(1)
    wait_to_speak(error.met_by)
    print(f"{f'rank {own_rank()}: ' if own_rank() else ''}error: {error}", file=sys.stderr, flush=True)
    leave(error.exit_code)


def translate(raised):
    """The SSDError that an exception amounts to, None where it is a fault of this program."""
    if isinstance(raised, SSDError):
        return raised
    if isinstance(raised, KeyboardInterrupt):
        return Interrupted("interrupted before there was anything to save")
    if out_of_memory(raised):
        return memory_fault(raised)
    if isinstance(raised, ModuleNotFoundError) and (raised.name or "src").split(".")[0] != "src":
        return EnvironmentFault(f"the package '{raised.name}' is not installed in {sys.executable}; 'bash "
                                "scripts/setup_env.sh' puts all into .venv, '. .venv/bin/activate' chooses it")
    if isinstance(raised, OSError):
        return EnvironmentFault(f"'{raised.filename}' cannot be read or written: {raised.strerror}")
    return None


# --- several processes

def launched():
    """How many processes the launcher started, 0 without one."""
    return int(os.environ.get("OMPI_COMM_WORLD_SIZE") or os.environ.get("MS_WORKER_NUM") or 0)


def own_rank():
    """The number of this process as its launcher says it, 0 without one."""
    return int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("MS_NODE_ID") or 0)


def wait_to_speak(met_by):
    """Returns when this process has to say an error; it does not where the launcher ends it before."""
    patience = 0.0 if own_rank() == 0 and met_by != ANOTHER or launched() < 2 else PATIENCE[met_by]
    if patience:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        on_host = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") or launched())
        time.sleep(patience + LATER * (own_rank() % on_host))


def leave(code):
    """Ends the program. One of several processes goes without a teardown where it failed, and in MindSpore's own
    cluster always: a teardown would wait for the others, and the cluster's crashes now and then after a good end."""
    if not in_cluster() and (code == 0 or launched() < 2):  # mpirun wants a process that ends well to finalize MPI
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads any longer
            stream.flush()
    os._exit(code)


def in_cluster():
    """True in a worker of MindSpore's own cluster: of msrun, and of mpirun on CPU."""
    return os.environ.get("MS_ROLE") == "MS_WORKER"


# --- memory

def out_of_memory(error):
    """Whether an exception says that memory, of the machine or of a device, has run out."""
    if isinstance(error, SSDError):
        return False
    return (isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM or
            bool(NO_MEMORY.search(str(error).replace("_", " "))))


def memory_fault(error, option="", batch=0):
    """The EnvironmentFault of an error of memory. option, batch: the option whose value is worth halving, and that."""
    said = plain(error)
    half = (f"try --{option}={batch // 2}, half of the batch of {batch}" if batch > 1 else
            "try a smaller --image_size or another --model" if option else "try a smaller batch")
    return EnvironmentFault(f"out of memory{f' ({said})' if said else ''}; {half}, or end other programs", ALONE)


@contextlib.contextmanager
def smaller_batch(option, batch):
    """Turns an error of memory into an EnvironmentFault that says which value of the option to try, half of batch."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise memory_fault(error, option, batch) from error


# --- text

def plain(error):
    """What an error of MindSpore says, as one line: without rules, headings and the stack."""
    lines = str(error).split("- C++ Call Stack")[0].splitlines()
    return " ".join(" ".join(line for line in lines if line.strip("- ") and not line.startswith("- ")).split())[:300]


def speak_utf8():
    """Lets names in any script be read and printed whatever the locale.

    Streams write what their encoding lacks as \\N. With an ASCII locale files of such names cannot even be opened, and
    Python settles that at its start: the program starts again in UTF-8 mode.
    """
    ascii_only = codecs.lookup(sys.getfilesystemencoding()).name == "ascii"
    if ascii_only and os.environ.get("PYTHONUTF8") != "1" and hasattr(sys, "orig_argv"):
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
