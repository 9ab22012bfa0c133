"""Errors a user can cause, each with the exit code of the program; `run_main` turns them into one line."""
import sys

OPTION_EXIT, DATA_EXIT, ENVIRONMENT_EXIT, NOT_FINITE_EXIT, INTERRUPTED_EXIT = 2, 3, 4, 5, 130


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
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted before there was anything to save", file=sys.stderr, flush=True)
        code = INTERRUPTED_EXIT
    sys.exit(code)
