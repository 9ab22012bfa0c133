"""Errors a user can cause, each with the exit code of the program; `run_main` turns them into one line."""
import difflib
import os
import signal
import sys
import time
import traceback

OPTION_EXIT, DATA_EXIT, ENVIRONMENT_EXIT, NOT_FINITE_EXIT, INTERRUPTED_EXIT = 2, 3, 4, 5, 130


class SSDError(Exception):
    """Base of the errors that end a program with one line instead of a traceback; shared: all processes meet it."""
    exit_code, shared = 1, False


class OptionError(SSDError):
    """An unknown option, a wrong type, an impossible value, a checkpoint that does not fit: exit 2."""
    exit_code, shared = OPTION_EXIT, True


def unknown_name(kind: str, name: str, known: list[str]) -> OptionError:
    """The error of a name that is not one of the known ones; it says the nearest: one that begins so, or looks so."""
    plain = name.lower().replace("-", "_")
    near = [one for one in known if plain and one.startswith(plain)] or difflib.get_close_matches(plain, known, 1, 0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return OptionError(f"{kind}={name}: {hint}known {kind}s are {', '.join(known)}")


class DataError(SSDError):
    """Missing or unusable images, annotations or MindRecord files: exit 3."""
    exit_code, shared = DATA_EXIT, True


class EnvironmentFault(SSDError):
    """A missing device, library or launcher, or a folder that cannot be written: exit 4."""
    exit_code, shared = ENVIRONMENT_EXIT, True


class RankFault(EnvironmentFault):
    """An EnvironmentFault that only one process of several meets."""
    shared = False


class NotFiniteError(SSDError):
    """The training loss became NaN or infinite: exit 5."""
    exit_code = NOT_FINITE_EXIT


class Interrupted(SSDError):
    """SIGINT or SIGTERM arrived and the state of the run was saved: exit 130."""
    exit_code, shared = INTERRUPTED_EXIT, True


def run_main(main):
    """Calls main() and exits with its code; an SSDError becomes one line on stderr and its exit code.

    So does a package that is not installed, which is why programs import packages, and what needs them, in main().
    Of several processes the first speaks for all where all have the same to say.
    """
    try:
        leave(main() or 0)
    except KeyboardInterrupt:
        error = Interrupted("interrupted before there was anything to save")
    except SSDError as raised:
        error = raised
    except BrokenPipeError:  # whoever read the output, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        leave(1)
    except ModuleNotFoundError as raised:
        if (raised.name or "src").split(".")[0] == "src":
            raise
        error = EnvironmentFault(f"the package '{raised.name}' is not installed in {sys.executable}; 'bash "
                                 "scripts/setup_env.sh' puts all into .venv, '. .venv/bin/activate' chooses it")
    except OSError as raised:
        error = EnvironmentFault(f"'{raised.filename}' cannot be read or written: {raised.strerror}")
    except Exception:  # a fault of this program: its traceback, but no waiting for the other processes
        if not in_cluster():
            raise
        traceback.print_exc()
        leave(1)
    rank = int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("MS_NODE_ID") or 0)
    if rank and error.shared:
        # the launcher ends the others at the first exit, and the first process shall be heard before
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(1)
    else:
        print(f"{f'rank {rank}: ' if rank else ''}error: {error}", file=sys.stderr, flush=True)
    leave(error.exit_code)


def leave(code):
    """Ends the program. A worker of MindSpore's cluster goes without a teardown: the cluster's would wait for processes
    that are gone, and crashes now and then after a run that ended well."""
    if not in_cluster():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def in_cluster():
    """True in a worker of MindSpore's own cluster: of msrun, and of mpirun on CPU."""
    return os.environ.get("MS_ROLE") == "MS_WORKER"
