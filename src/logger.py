"""What a run tells: lines on the terminal, log.jsonl, TensorBoard scalars, all from the same numbers."""
import json
import os
import sys
import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class RunLog:
    """Prints on the first process; once it has a folder, writes rows (dicts) to log.jsonl and TensorBoard there.

    A row has `step`; its float values become TensorBoard scalars under `group`.
    """

    def __init__(self, first=True):
        self.first, self.rows = first, []
        self.folder = self.file = self.events = None

    def open(self, folder):
        """Chooses the folder; a process that is not the first never calls it and keeps quiet."""
        self.folder, self.file = folder, open(os.path.join(folder, "log.jsonl"), "a", encoding="utf-8")

    def say(self, text):
        """Prints a line, on the first process."""
        if self.first:
            print(text, flush=True)

    def write(self, row, group=None):
        """Appends a row to log.jsonl and, with a group such as "train", to TensorBoard."""
        if not self.file:
            return
        self.rows.append(row)
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        if group:
            self.add_scalars(row, group)

    def add_scalars(self, row, group):
        """The float values of a row as TensorBoard scalars."""
        from tensorboard.compat.proto.event_pb2 import Event  # here: half a second that other programs need not wait
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
        if self.events is None:
            self.events = EventFileWriter(self.folder)
        values = [Summary.Value(tag=f"{group}/{key}", simple_value=value) for key, value in row.items()
                  if isinstance(value, float)]
        self.events.add_event(Event(wall_time=time.time(), step=row["step"], summary=Summary(value=values)))
        self.events.flush()

    def close(self):
        """Flushes and closes both files."""
        if self.file:
            self.file.close()
        if self.events:
            self.events.close()


def track(items, total, title, quiet=False):
    """Yields items while showing a bar with the remaining time on a terminal, or a line every tenth in a log file."""
    launched = any(name in os.environ for name in ("MS_ROLE", "OMPI_COMM_WORLD_RANK"))  # mpirun gives a false terminal
    if quiet or launched or not sys.stdout.isatty():
        yield from plain_track(items, total, title, quiet)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns) as progress:
        yield from progress.track(items, total=total, description=title)


def plain_track(items, total, title, quiet):
    """The same without a terminal."""
    start, tenth = time.time(), max(total // 10, 1)
    for done, item in enumerate(items, 1):
        yield item
        if not quiet and (done % tenth == 0 or done == total):
            left = (time.time() - start) / done * (total - done)
            print(f"{title}: {done}/{total}, {duration(left)} left", flush=True)


def duration(seconds):
    """90 -> "1:30", 4000 -> "1:06:40"."""
    minutes, rest = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
