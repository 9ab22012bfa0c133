"""SIGINT and SIGTERM of a program that computes: noticed at once, obeyed when it is ready.

Python's own handlers run between two bytecodes, and MindSpore compiles for minutes in a single call. So a thread reads
the signals from a pipe into which the interpreter writes them as they come.
"""
from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from src.errors import INTERRUPTED_EXIT, launched, leave_at_once, tell, translate
from src.files import clean_up

STOPS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 1.0  # seconds that the interpreter has to notice a signal by itself


@contextlib.contextmanager
def stop_signals(first: Callable[[], None], later: Callable[[], None],
                 handler: Callable | None = None) -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM in a list, for the main thread to look at between two pieces of its work.

    handler: what Python calls in the main thread instead, as of signal.signal().

    In a thread of its own first() is called as soon as the first one arrives, later() at each one after it. Ctrl-C may
    come as SIGTERM: MindSpore's data engine answers SIGINT by sending SIGTERM to its own process.
    """
    signals: list[int] = []
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    handler = handler or (lambda number, frame: signals.append(number))
    before = {number: signal.signal(number, handler) for number in STOPS}
    other = signal.set_wakeup_fd(sink, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, args=(source, first, later), daemon=True)
    watcher.start()
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(other)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.write(sink, b"\0")
        watcher.join()  # a signal that came before is still answered
        os.close(source)
        os.close(sink)


def watch(source: int, first: Callable[[], None], later: Callable[[], None]) -> None:
    """Answers the numbers of signals that come from a pipe, a byte each, up to a 0."""
    answer = first
    while True:
        number, = os.read(source, 1)
        if number == 0:
            return
        if number in STOPS:
            answer()
            answer = later


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """SIGINT and SIGTERM end the program even within a single long call: one line, exit 130, nothing half written.

    They raise KeyboardInterrupt as elsewhere. Where the interpreter does not come to that within PATIENCE, the program
    ends without it, so all that has to be undone must be known to files.cleaned(). It is for work that leaves nothing
    worth saving. Of several processes each ends as usual: the launcher has the last word.
    """
    if launched() > 1:
        yield
        return
    noticed = threading.Event()

    def notice(number: int, frame: object) -> None:
        noticed.set()
        interrupt(number, frame)

    def watch_over() -> None:
        if not noticed.wait(PATIENCE):
            leave()
    with stop_signals(watch_over, watch_over, notice):
        yield


def interrupt(number: int, frame: object) -> None:
    """Answers SIGINT and SIGTERM as Python does SIGINT, by KeyboardInterrupt.

    While a part of MindSpore is being imported the program ends instead: an exception there leaves its libraries half
    started, and the program would end with a traceback or crash.
    """
    if any(name.partition(".")[0] == "mindspore" and getattr(module.__spec__, "_initializing", False)
           for name, module in list(sys.modules.items())):
        leave()
    raise KeyboardInterrupt


def leave() -> NoReturn:
    """Ends the program from any thread: one line, exit 130, nothing half written."""
    clean_up()
    tell(translate(KeyboardInterrupt()))
    leave_at_once(INTERRUPTED_EXIT)
