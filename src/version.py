"""The version of this program, and the commit of its source tree."""
import os
import subprocess

__version__ = "1.0.0"


def git_commit() -> str:
    """The commit of the source tree, "unknown" outside git."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        done = subprocess.run(["git", "-C", here, "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.decode().strip()


def version_line() -> str:
    """What --version prints: name, version, and the commit where it is known."""
    commit = git_commit()
    return f"ssd-mindspore {__version__}" + ("" if commit == "unknown" else f" (commit {commit})")
