"""What a run tells: lines on the terminal, log.jsonl, TensorBoard scalars, all from the same numbers."""
from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator

from src.evaluation.plots import plot_history
from src.events import EVENTS, EventFile
from src.files import Appender, names_in, write_atomic
from src.progress import on_terminal
from src.training.panel import Panel, live_panel


class RunLog:
    """Prints on the first process; once it has a folder, writes rows (dicts) to log.jsonl and TensorBoard there."""

    def __init__(self, *, first: bool = True):
        self.first, self.folder, self.steps_per_epoch = first, "", 1
        self.file: Appender | None = None
        self.texts: dict[str, str] = {}  # files for the folder, by name
        self.events: EventFile | None = None  # with a folder
        self.panel: Panel | None = None  # while there is one
        self.leave_panel: Callable[[], None] = no_panel  # gives the terminal back, from any thread

    def open(self, folder: str, *, steps_per_epoch: int = 1, steps_done: int = 0, evaluated: bool = True,
             resumed: bool = True) -> None:
        """Chooses the folder; only the first process calls it.

        Takes out of log.jsonl what will come again: later rows than steps_done, and its evaluation unless `evaluated`.
        Unless `resumed` nothing stays of a run that has been there, in TensorBoard's files neither.
        """
        path = os.path.join(folder, "log.jsonl")
        if os.path.exists(path):
            rows = read_log(path, steps_done) if resumed else []
            if not evaluated:
                rows = [row for row in rows if row.get("step") != steps_done or "loss" in row]
            write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        for name in [] if resumed else names_in(folder):
            if name.startswith(EVENTS):
                os.remove(os.path.join(folder, name))
        self.folder, self.steps_per_epoch, self.file = folder, steps_per_epoch, Appender(path)
        self.events = EventFile(folder)
        for name, text in self.texts.items():
            write_atomic(os.path.join(folder, name), text.encode())

    def say(self, text: str, *, in_panel: bool = False) -> None:
        """Prints a line, on the first process. in_panel: not where the live panel shows the same."""
        if self.first and not (in_panel and self.panel):
            print(text, flush=True)

    def keep(self, name: str, text: str) -> None:
        """Keeps a text for the folder, where it becomes a file of this name."""
        self.texts[name] = f"{text}\n"

    def write(self, row: dict, group: str = "") -> None:
        """Appends a row to log.jsonl (null for what is not finite) and its floats to TensorBoard under a group."""
        if self.panel:
            self.panel.add(row)
        if not self.file:
            return
        floats = {key: value for key, value in row.items() if isinstance(value, float)}
        unknown = {key: None for key, value in floats.items() if not math.isfinite(value)}
        self.file.write((json.dumps({**row, **unknown}) + "\n").encode())
        if group:
            self.events.numbers(row["step"], group, floats)

    def picture(self, tag: str, path: str, step: int) -> None:
        """Shows a PNG file in TensorBoard."""
        if self.events and os.path.isfile(path):  # it could be drawn
            with open(path, "rb") as file:
                self.events.picture(step, tag, file.read())

    @contextlib.contextmanager
    def live(self, total: int) -> Iterator[Callable[[int, float, int], None]]:
        """Keeps a panel on a terminal; gives its show(), or a function that does nothing. total: as of Panel."""
        if not self.first or not on_terminal():
            yield no_panel
            return
        rows = read_log(self.file.path) if self.file else []
        self.panel = Panel(self.folder, total=total, steps_per_epoch=self.steps_per_epoch, rows=rows)
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(live_panel(self.panel, self.folder))
                self.leave_panel = stack.close
                yield self.panel.show
        finally:
            self.panel, self.leave_panel = None, no_panel

    def close(self) -> None:
        """Draws the curves of all rows as training.png, of a resumed run from its beginning, and closes both files."""
        rows = read_log(self.file.path) if self.file else []
        if any("loss" in row for row in rows):
            path = os.path.join(self.folder, "training.png")
            plot_history(rows, path=path, steps_per_epoch=self.steps_per_epoch)
        for file in filter(None, (self.file, self.events)):
            file.close()


def no_panel(*_: float) -> None:
    """What a run does to its panel where there is none."""


def read_log(path: str, steps_done: float = math.inf) -> list[dict]:
    """The rows of a log.jsonl up to steps_done; of a step that ran again the later row, no line that was cut short."""
    rows = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                # the facts of a start have no step, and all of them stay
                key = (row["step"], "loss" in row) if "step" in row else ("fact", len(rows))
                rows[key] = row
    return [row for row in rows.values() if row.get("step", 0) <= steps_done]
