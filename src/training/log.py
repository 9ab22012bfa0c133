"""What a run tells: lines on the terminal, log.jsonl, TensorBoard scalars, all from the same numbers."""
import contextlib
import json
import math
import os
import struct
import time

from rich import progress
from rich.console import Console

from src.files import write_atomic
from src.progress import on_terminal


class RunLog:
    """Prints on the first process; once it has a folder, writes rows (dicts) to log.jsonl and TensorBoard there."""

    def __init__(self, first=True):
        self.first, self.folder, self.file, self.events = first, None, None, None

    def open(self, folder, steps_done=0, evaluated=True):
        """Chooses the folder; a process that is not the first never calls it and keeps quiet.

        steps_done: of a resumed run; rows of later steps, which will come again, are taken out of log.jsonl, and
        unless it was evaluated after that step a row that says so too.
        """
        path = os.path.join(folder, "log.jsonl")
        if os.path.exists(path):
            rows = [row for row in read_log(path, steps_done)
                    if evaluated or row.get("step") != steps_done or "loss" in row]
            write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        self.folder, self.file = folder, open(path, "a", encoding="utf-8")

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
            self.add_event(row["step"], [{"tag": f"{group}/{key}", "simple_value": value}
                                         for key, value in floats.items()])

    def picture(self, tag, path, step):
        """Shows a PNG file in TensorBoard."""
        if not self.file or not os.path.isfile(path):  # a picture that could not be drawn
            return
        with open(path, "rb") as file:
            data = file.read()
        width, height = struct.unpack(">II", data[16:24])  # of the header of a PNG
        image = {"encoded_image_string": data, "width": width, "height": height, "colorspace": 3}
        self.add_event(step, [{"tag": tag, "image": image}])

    def add_event(self, step, values):
        """Appends to TensorBoard's file; values: dicts of the fields of summary_pb2.Summary.Value."""
        # here: half a second that other programs need not wait
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
        self.events = self.events or EventFileWriter(self.folder)
        self.events.add_event(Event(wall_time=time.time(), step=step, summary={"value": values}))
        self.events.flush()

    @contextlib.contextmanager
    def bar(self, total):
        """Gives a function of (steps done, text) that moves a bar with the remaining time, on a terminal."""
        if not self.first or not on_terminal():
            yield lambda done, text: None
            return
        columns = (progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeRemainingColumn(),
                   progress.TextColumn("{task.description}"))
        with progress.Progress(*columns, console=Console(), transient=True, refresh_per_second=2) as bar:
            task = bar.add_task("", total=total, start=False)

            def show(done, text):
                if not bar.tasks[task].started:  # the first step compiles and would spoil the estimate
                    bar.start_task(task)
                bar.update(task, completed=done, description=text)

            yield show

    def close(self):
        """Flushes and closes both files."""
        for one in (self.file, self.events):
            if one:
                one.close()


def read_log(path, steps_done=None):
    """The rows of a log.jsonl, of steps up to steps_done where that is given.

    Of a step that ran again after a crash the later row; no line that was cut short.
    """
    rows = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                # facts of a start have no step
                rows[("fact", len(rows)) if "step" not in row else (row["step"], "loss" in row)] = row
    return [row for row in rows.values() if steps_done is None or row.get("step", 0) <= steps_done]


