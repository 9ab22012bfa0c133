"""The version of this program, and the commit of its source tree."""
import os
import subprocess

__version__ = "1.0.0"


def git_commit() -> str:
    """The commit of the source tree, "unknown" outside git."""
    command = ["git", "-C", os.path.dirname(os.path.abspath(__file__)), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def version_line() -> str:
    """What --version prints: name, version, and the commit where it is known."""
    commit = git_commit()
    return f"ssd-mindspore {__version__}" + ("" if commit == "unknown" else f" (commit {commit})")
