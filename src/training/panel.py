"""The live panel of a training on a terminal: progress, times, losses, learning rate, speed, memory, AP so far."""
from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from rich import box, get_console, panel
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from src.progress import duration

MAX_WIDTH = 80                    # columns of the panel
KEYS = 4                          # columns beside it: the terminal writes ^C there, and must not begin another row
AROUND = 11                       # of them beside the numbers: frame, name and the spaces between
GAP = "  "                        # between the numbers of a line
LEVELS = "▁▂▃▄▅▆▇█"               # of a curve
CURVE = 10                        # points of a curve
SCORES = ("mAP_area", "AP")       # the first one of a row counts, as for best.ckpt
FURTHER = ("AP50", "AP75")        # shown behind it


class Panel:
    """The numbers of a run as text.

    total: steps of the run, 0 while --minutes measures how many fit. rows: those of the log so far, of a resumed run
    from its beginning.
    """

    def __init__(self, title: str, *, total: int, steps_per_epoch: int, rows: Iterable[dict] = ()):
        self.title, self.total, self.steps_per_epoch = title, total, steps_per_epoch
        self.began = self.logged = time.monotonic()         # this start, and its last row
        self.done, self.loss = None, math.nan               # steps done, None before the first one; loss of the last
        self.row, self.losses, self.scores = {}, [], []     # newest row of steps; losses of all rows; all evaluations
        for row in rows:
            self.add(row)
        self.row = {}  # its times were those of an earlier start
        self.hint = "Ctrl-C saves and stops"

    def add(self, row: dict) -> None:
        """Takes up a row of the log, of steps or of an evaluation."""
        if "loss" in row:
            self.row, self.logged = row, time.monotonic()
            self.losses.append(row["loss"])
        elif any(name in row for name in SCORES):
            self.scores.append(row)

    def show(self, done: int, loss: float, total: int) -> None:
        """Takes up a step: how many are done, its loss, and how many the run has."""
        self.done, self.loss, self.total = done, loss, total

    def __rich_console__(self, console: Console, room: ConsoleOptions) -> RenderResult:
        width = panel_width(room.max_width)
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="dim", min_width=5, no_wrap=True)
        table.add_column()
        table.add_row("steps", ProgressBar(total=self.total or None, completed=self.done or 0))
        for name, text in self.lines(width - AROUND, curves=not room.ascii_only).items():
            table.add_row(name, Text(text, overflow="ellipsis", no_wrap=True))
        title = self.title if len(self.title) <= width - 6 else f"..{self.title[8 - width:]}"
        yield panel.Panel(table, title=Text(title, overflow="ellipsis"), title_align="left", width=width,
                          subtitle=self.hint or None, subtitle_align="right", box=box.ROUNDED)

    def lines(self, columns: int, *, curves: bool) -> dict[str, str]:
        """The numbers by name, a line each, `-` for what is not known yet; of each line as much as fits."""
        row, rates, speed = self.row, ["-"], ["-"]
        if row:
            rates = [f"{row['lr']:.5f}", f"gradient norm {number(row['grad_norm'], '.3g')}"]
            speed = [f"{row['images_per_second']:.1f} images/s", f"data {row['data_time'] * 1000:.0f} ms",
                     f"step {row['step_time'] * 1000:.0f} ms", f"memory {row['peak_memory']:.1f} GiB"]
        name = "mAP" if self.scores and SCORES[0] in self.scores[-1] else "AP"
        parts = {"": self.progress(), "time": self.times(), "loss": self.loss_parts(curves=curves), "lr": rates,
                 "speed": speed, name: self.score_parts(curves=curves)}
        return {name: fit(texts, columns) for name, texts in parts.items()}

    def progress(self) -> list[str]:
        """Steps and epochs."""
        if self.done is None:
            return ["compiling the first step", "it may take minutes"]
        epoch, epochs = -(-self.done // self.steps_per_epoch), -(-self.total // self.steps_per_epoch)
        if not self.total:
            return [f"step {self.done}", f"epoch {epoch}", "measuring for --minutes"]
        skipped = [f"{self.row['skipped']} skipped"] if self.row.get("skipped") else []
        return [f"{self.done}/{self.total}", f"epoch {epoch}/{epochs}", f"{self.done / self.total:.0%}", *skipped]

    def times(self) -> list[str]:
        """Time since the start, that is left, and of day at the end."""
        now = time.monotonic()
        texts = [f"{duration(now - self.began)} so far"]
        if self.row:
            left = max(self.row["eta"] - (now - self.logged), 0)
            texts += [f"{duration(left)} left", f"ends {time.strftime('%a %H:%M', time.localtime(time.time() + left))}"]
        return texts

    def loss_parts(self, *, curves: bool) -> list[str]:
        """The loss of the last step, means of the last row, and the curve of all rows."""
        if self.done is None:
            return ["-"]
        means = {"mean": "loss", "classes": "loss_cls", "boxes": "loss_box"} if self.row else {}
        return [number(self.loss), *(f"{name} {number(self.row[key])}" for name, key in means.items()),
                curve(self.losses) if curves else ""]

    def score_parts(self, *, curves: bool) -> list[str]:
        """The newest evaluation, the best one, and the curve of all."""
        if not self.scores:
            return ["- not evaluated yet"]
        newest, best = self.scores[-1], max(self.scores, key=score)
        more = [f"{name} {number(newest[name])}" for name in FURTHER if name in newest]
        return [f"{score(newest):.4f}", f"best {score(best):.4f} (epoch {best['epoch']})",
                curve([score(row) for row in self.scores]) if curves else "", *more]


def panel_width(columns: int) -> int:
    """Columns of the panel on a terminal of so many."""
    return min(columns - KEYS, MAX_WIDTH)


def fit(texts: Iterable[str], columns: int) -> str:
    """The texts beside each other, without those that do not fit; the first one always stays."""
    line = ""
    for text in filter(None, texts):
        longer = f"{line}{GAP}{text}" if line else text
        line = longer if not line or len(longer) <= columns else line
    return line


def score(row: dict) -> float:
    """What an evaluation is ranked by; -1 where it is not known."""
    value = next((row[name] for name in SCORES if name in row), None)
    return -1.0 if value is None else value


def number(value: float | None, form: str = ".4f") -> str:
    """A number in a format; rows of log.jsonl hold None for what is not finite."""
    return "not finite" if value is None else format(value, form)


def curve(values: Sequence[float | None]) -> str:
    """Numbers as a line of bars, means of neighbours where there are many; "" for fewer than two."""
    values = [value for value in values if value is not None and math.isfinite(value)]
    if len(values) < 2:
        return ""
    count = min(len(values), CURVE)
    edges = [len(values) * index // count for index in range(count + 1)]
    means = [sum(values[first:last]) / (last - first) for first, last in zip(edges, edges[1:])]
    low, high = min(means), max(means)
    scale = (len(LEVELS) - 1) / (high - low) if high > low else 0
    return "".join(LEVELS[round((mean - low) * scale)] for mean in means)


@contextlib.contextmanager
def live_panel(shown: Panel, folder: str) -> Iterator[None]:
    """Keeps a Panel at the foot of the terminal; what is printed meanwhile goes above it, C++ code's messages too.

    folder: for messages.txt, what arrives on standard error; the file stays after a crash only, and tells why.
    """
    messages = stderr_in(os.path.join(folder, "messages.txt")) if os.isatty(2) else contextlib.nullcontext()
    with messages as read, LivePanel(shown, read):
        try:
            yield
        finally:
            shown.hint = ""


class LivePanel(Live):
    """Draws a Panel. messages: a file whose new lines go above it; None for none."""

    def __init__(self, shown: Panel, messages: BinaryIO | None):
        super().__init__(get_renderable=lambda: shown, console=get_console(), redirect_stderr=False)
        self.width, self.messages = self.console.width, messages

    def refresh(self) -> None:
        """Draws the panel; above it the messages that have arrived."""
        lines = self.messages.readlines() if self.messages else []
        if lines:
            self.console.print(Text.from_ansi(b"".join(lines).decode(errors="replace").rstrip("\n")))
        super().refresh()

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """What is printed, behind the erasing of the panel, and the panel again."""
        drawn, self.width = panel_width(self.width), self.console.width
        renderables = super().process_renderables(renderables)
        if self.width < drawn:  # the terminal has wrapped the panel into an unknown number of rows
            return [Control.home(), Control.clear(), *renderables]
        return renderables


@contextlib.contextmanager
def stderr_in(path: str) -> Iterator[BinaryIO]:
    """Leads the standard error of this process, C++ code's too, into a file, which is given for reading.

    At the end what was not read is shown, and the file is removed.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with open(path, "ab", buffering=0) as written, open(path, "rb") as read:
            read.seek(0, os.SEEK_END)  # behind what an earlier start has left that crashed
            os.dup2(written.fileno(), 2)
            try:
                yield read
            finally:
                sys.stderr.flush()
                os.dup2(terminal, 2)
                os.write(2, read.read())
    finally:
        os.close(terminal)
        os.remove(path)
