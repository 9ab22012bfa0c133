"""What a run tells: lines on the terminal, log.jsonl, TensorBoard scalars, all from the same numbers."""
import json
import math
import os
import sys
import time

from rich import progress

QUIET_SECONDS = 5  # least time between two lines of progress in a log file


class RunLog:
    """Prints on the first process; once it has a folder, writes rows (dicts) to log.jsonl and TensorBoard there."""

    def __init__(self, first=True):
        self.first, self.folder, self.file, self.events = first, None, None, None

    def open(self, folder):
        """Chooses the folder; a process that is not the first never calls it and keeps quiet."""
        self.folder, self.file = folder, open(os.path.join(folder, "log.jsonl"), "a", encoding="utf-8")

    def say(self, text):
        """Prints a line, on the first process."""
        if self.first:
            print(text, flush=True)

    def write(self, row, group=None):
        """Appends a row to log.jsonl (null for what is not finite) and its floats to TensorBoard under a group."""
        if not self.file:
            return
        floats = {key: value for key, value in row.items() if isinstance(value, float)}
        unknown = {key: None for key, value in floats.items() if not math.isfinite(value)}
        self.file.write(json.dumps({**row, **unknown}) + "\n")
        self.file.flush()
        if group:
            from tensorboard.summary import Writer  # here: half a second that other programs need not wait
            self.events = self.events or Writer(self.folder)
            for key, value in floats.items():
                self.events.add_scalar(f"{group}/{key}", value, row["step"])
            self.events.flush()

    def close(self):
        """Flushes and closes both files."""
        for one in (self.file, self.events):
            if one:
                one.close()


def track(items, total, title, quiet=False):
    """Items as they are, with a bar and the remaining time on a terminal, or now and then a line in a log file."""
    launched = any(name in os.environ for name in ("MS_ROLE", "OMPI_COMM_WORLD_RANK"))  # mpirun gives a false terminal
    if quiet or launched or not sys.stdout.isatty():
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
