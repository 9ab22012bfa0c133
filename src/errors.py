"""Errors a user can cause, each with the exit code of the program; `run_main` turns them into one line."""
import os
import signal
import sys
import time

OPTION_EXIT, DATA_EXIT, ENVIRONMENT_EXIT, NOT_FINITE_EXIT, INTERRUPTED_EXIT = 2, 3, 4, 5, 130
PATIENCE = 5  # seconds that other processes leave the first one to report what all have found


class SSDError(Exception):
    """Base of the errors that end a program with one line instead of a traceback."""
    exit_code = 1


class OptionError(SSDError):
    """An unknown option, a wrong type, an impossible value, a checkpoint that does not fit: exit 2."""
    exit_code = OPTION_EXIT


class DataError(SSDError):
    """Missing or unusable images, annotations or MindRecord files: exit 3."""
    exit_code = DATA_EXIT


class EnvironmentFault(SSDError):
    """A missing device, library or launcher, or a folder that cannot be written: exit 4."""
    exit_code = ENVIRONMENT_EXIT


class NotFiniteError(SSDError):
    """The training loss became NaN or infinite: exit 5."""
    exit_code = NOT_FINITE_EXIT


class Interrupted(SSDError):
    """SIGINT or SIGTERM arrived and the state of the run was saved: exit 130."""
    exit_code = INTERRUPTED_EXIT


def run_main(main):
    """Calls main() and exits with its code; an SSDError becomes one line on stderr and its exit code."""
    try:
        code = main() or 0
    except SSDError as error:
        tell(error, error.exit_code)
        code = error.exit_code
    except KeyboardInterrupt:
        tell("interrupted before there was anything to save", INTERRUPTED_EXIT)
        code = INTERRUPTED_EXIT
    except BrokenPipeError:  # whoever read the output, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def tell(error, code):
    """Prints an error on stderr. Of several processes the first speaks for all where all have the same to say."""
    rank = int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("MS_NODE_ID") or 0)
    if rank and code in (OPTION_EXIT, DATA_EXIT, ENVIRONMENT_EXIT):
        # the launcher ends all processes when the first has failed; where it has not, the error is this one's own
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(PATIENCE)
    print(f"{f'rank {rank}: ' if rank else ''}error: {error}", file=sys.stderr, flush=True)
