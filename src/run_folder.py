"""The folder of a run: refused when it holds another run, found again to resume."""
import contextlib
import glob
import json
import os
import subprocess
import tempfile

from src.config import save_options
from src.errors import EnvironmentFault, OptionError

MARKS = ("config.yaml", "log.jsonl", "ckpt")


def check_run_folder(path, resume=False):
    """Raises OptionError when path holds a run and resume is not set, or the other way round, EnvironmentFault when it
    cannot be made. Writes nothing.

    A run of ours that ended before its first checkpoint left nothing to lose or to go on from: it may be begun anew.
    """
    states = os.path.join(path, "ckpt", "*.ckpt")
    saved, found = glob.glob(states), [os.path.exists(os.path.join(path, mark)) for mark in MARKS]
    if not resume and (saved or any(found) and not all(found)):
        raise OptionError(f"output_path '{path}' already holds a run; choose another one, or go on by --resume=True")
    if resume and not saved:
        reason = ("that run ended before its first one; leave --resume out to begin it anew" if all(found) else
                  "is output_path that of the interrupted run?")
        raise OptionError(f"--resume=True, but there is no '{states}'; {reason}")
    above = os.path.abspath(path)
    while not os.path.exists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above) or not os.access(above, os.W_OK):
        raise EnvironmentFault(f"folder '{path}' cannot be made or written; choose another --output_path")


def open_run_folder(path, options):
    """Makes path with ckpt/ and eval/ and writes config.yaml. Only rank 0 calls it, when all checks have passed."""
    for name in ("ckpt", "eval"):
        make_folder(os.path.join(path, name))
    save_options(options, os.path.join(path, "config.yaml"))


@contextlib.contextmanager
def output_folder(path):
    """Makes a folder that can be written, before the work whose result it shall take; when that work fails, what was
    made here and is still empty is removed. Raises EnvironmentFault."""
    made, above = [], os.path.abspath(path)
    while not os.path.lexists(above):
        made.append(above)
        above = os.path.dirname(above)
    try:
        make_folder(path)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the first one that holds something, or was not made
            for folder in made:
                os.rmdir(folder)
        raise


def make_folder(path):
    """Makes a folder that can be written. Raises EnvironmentFault."""
    try:
        os.makedirs(path, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(dir=path))
    except OSError as error:
        raise EnvironmentFault(f"folder '{path}' cannot be made or written: {error.strerror}") from error


def read_json(path):
    """The content of a JSON file."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def git_commit():
    """The commit of the source tree, "unknown" outside git."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        return subprocess.run(["git", "-C", here, "rev-parse", "--short", "HEAD"], capture_output=True, text=True,
                              check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
