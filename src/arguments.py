"""Command lines of the scripts: --help is the script's docstring; what a script does not know ends it in one line."""
import argparse
import difflib

from src.version import version_line


class ArgumentParser(argparse.ArgumentParser):
    """argparse with whole names only, and one line on stderr and exit 2 for a wrong command line.

    Standard library only: scripts/doctor.py uses it before anything is installed.
    """

    def __init__(self, doc, **more):
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
                         **more)
        self.add_argument("--version", action=ShowVersion, nargs=0, default=argparse.SUPPRESS,
                          help="show the version and exit")

    def error(self, message):
        """Ends the program with exit 2; for an unknown option the nearest known one is named."""
        unknown = [word.split("=")[0] for word in message.split() if word.startswith("-")][:1]
        known = self._option_string_actions if unknown and "unrecognized" in message else ()
        near = difflib.get_close_matches(unknown[0], known, 1) if known else []
        hint = f"did you mean {near[0]}?" if near else "see --help"
        self.exit(2, f"error: {' '.join(message.split())}; {hint}\n")


class ShowVersion(argparse.Action):
    """Prints the version and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(version_line())
        parser.exit()
