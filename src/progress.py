"""Progress of long work: a bar on a terminal, a line now and then in a log file, with the time that is left."""
from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator

from rich import get_console, progress

QUIET_SECONDS = 5  # shortest time between two lines of progress in a log file


@contextlib.contextmanager
def quiet(level: int = logging.CRITICAL) -> Iterator[None]:
    """Silences what libraries log up to a level: advice, and errors that are raised as well."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)


def on_terminal() -> bool:
    """Whether a person watches who sees what is drawn over. mpirun gives its processes a false terminal."""
    launched = any(name in os.environ for name in ("MS_ROLE", "OMPI_COMM_WORLD_RANK"))
    return sys.stdout.isatty() and not launched and not get_console().is_dumb_terminal


def track(items: Iterable, total: int | None, title: str, *, quiet: bool = False) -> Iterable:
    """The items, with a bar and the time that is left on a terminal, or a line now and then in a log file.

    total: how many they are, None where that is not known.
    """
    if quiet:
        return items
    # within the live panel of a training a bar that stays would be a line for each evaluation
    return progress.track(items, title, total, transient=True) if on_terminal() else track_by_lines(items, total, title)


def track_by_lines(items: Iterable, total: int | None, title: str) -> Iterator:
    """The items, with a line every tenth of them, unless the last line is only seconds old, and one at the end.

    Where the total is not known, a line every 50 of them.
    """
    start = printed = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        is_due = done % (max(total // 10, 1) if total else 50) == 0 and now - printed > QUIET_SECONDS
        if is_due or done == total:
            printed = now
            left = f"/{total}, {duration((now - start) / done * (total - done))} left" if total else ""
            print(f"{title}: {done}{left}", flush=True)


def duration(seconds: float) -> str:
    """90 -> "1:30", 4000 -> "1:06:40"."""
    minutes, rest = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}"
