"""Progress of long work: a bar on a terminal, a line now and then in a log file, with the time that is left."""
import contextlib
import logging
import os
import sys
import time

from rich import progress

QUIET_SECONDS = 5  # least time between two lines of progress in a log file


@contextlib.contextmanager
def quiet(level=logging.CRITICAL):
    """Silences what libraries log up to a level: they tell of errors that are raised as well, or give advice."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)


def on_terminal():
    """Whether somebody watches. mpirun gives its processes a false terminal."""
    return sys.stdout.isatty() and not any(name in os.environ for name in ("MS_ROLE", "OMPI_COMM_WORLD_RANK"))


def track(items, total, title, quiet=False):
    """Items as they are, with a bar and the remaining time on a terminal, or now and then a line in a log file."""
    if quiet or not on_terminal():
        return plain_track(items, total, title, quiet)
    return progress.track(items, title, total)


def plain_track(items, total, title, quiet):
    """The same without a terminal: a line every tenth, unless the last one is only seconds old, and one at the end."""
    start = told = time.time()
    for done, item in enumerate(items, 1):
        yield item
        now = time.time()
        due = done % max(total // 10, 1) == 0 and now - told > QUIET_SECONDS
        if not quiet and (due or done == total):
            told = now
            print(f"{title}: {done}/{total}, {duration((now - start) / done * (total - done))} left", flush=True)


def duration(seconds):
    """90 -> "1:30", 4000 -> "1:06:40"."""
    minutes, rest = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
