"""Files that are there whole or not at all, and paths as users type them."""
import contextlib
import json
import os
import shutil
import tempfile

from src.errors import EnvironmentFault, OptionError

ASIDE = ".writing."  # how the names of what is being written begin


def write_atomic(path: str, data: bytes) -> None:
    """Writes bytes beside path and renames the file: path never holds half a file. Raises EnvironmentFault."""
    aside = f"{path}.part{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(aside, "wb") as file:
            file.write(data)
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.remove(aside)
        raise EnvironmentFault(f"{path} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def folder_aside(path):
    """A new folder beside path, of this process alone, for a file to wait in until it is whole; removed at the end."""
    folder = tempfile.mkdtemp(prefix=ASIDE, dir=os.path.dirname(os.path.abspath(path)))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def expand_home(path):
    """A path as typed, with a leading ~ or ~user for the home folder: a shell leaves --key=~/x as it stands.

    Raises OptionError where the own home folder is not known. A ~name that is nobody's is the name of a file.
    """
    path = os.fspath(path)
    home = path.split(os.sep)[0] == "~"
    expanded = "~" if home and os.environ.get("HOME") == "" else os.path.expanduser(path)
    if home and expanded.startswith("~"):
        raise OptionError(f"'{path}': the home folder is not known, HOME is not set; write the path in full")
    return expanded


def missing_folders(path):
    """The folders that have to be made for path, itself first."""
    missing, above = [], os.path.abspath(path)
    while not os.path.exists(above):
        missing.append(above)
        above = os.path.dirname(above)
    return missing


def names_in(folder):
    """The names in a folder, none where it is not there."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


@contextlib.contextmanager
def output_folder(path):
    """Makes a folder that can be written, before the work whose result it shall take; when that work fails, what was
    made here and is still empty is removed. Raises EnvironmentFault."""
    made = missing_folders(path)
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
