"""Files that are there whole or not at all."""
import contextlib
import os
import shutil
import tempfile

from src.errors import EnvironmentFault

ASIDE = ".writing."  # how the names of what is being written begin


def write_whole(path, data):
    """Writes bytes aside and renames them: path never holds half a file. Raises EnvironmentFault if it cannot."""
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
