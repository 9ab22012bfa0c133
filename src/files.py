"""Files that are there whole or not at all."""
import contextlib
import os

from src.errors import EnvironmentFault


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
