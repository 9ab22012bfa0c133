"""Command lines of the scripts: --help is the script's docstring; a mistake ends the script with one line.

Standard library only: scripts/doctor.py uses it before anything is installed.
"""
import argparse
import difflib
import shutil

from src.text import wrap_paragraphs
from src.version import version_line


class ArgumentParser(argparse.ArgumentParser):
    """argparse without abbreviations, and with one line on stderr and exit 2 for a wrong command line."""

    def __init__(self, doc: str) -> None:
        super().__init__(description=wrap_paragraphs(doc, shutil.get_terminal_size().columns), allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("--version", action="version", version=version_line(), help="show the version and exit")

    def error(self, message: str) -> None:
        """Ends the program with exit 2 and names the known option that is nearest to an unknown one."""
        unknown = [word.split("=")[0] for word in message.split() if word.startswith("-")]
        near = []
        if unknown and "unrecognized" in message:
            near = difflib.get_close_matches(unknown[0], self._option_string_actions, 1)
        hint = f"did you mean {near[0]}?" if near else "see --help"
        self.exit(2, f"error: {' '.join(message.split())}; {hint}\n")
