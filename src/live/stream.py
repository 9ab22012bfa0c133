"""Frames and what a model finds in them, for whoever shows them: reading and the model never make them wait."""
from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotInTime
from typing import NamedTuple

import numpy as np

from src.inference.found import Detections
from src.inference.sources import Picture

PICTURE_SECONDS = 1.0  # that an image file is shown
RETRY_SECONDS = 5.0    # before a camera or stream that has ended is opened again
RATE_SECONDS = 3.0     # over which the speed is measured
PATIENCE = 5.0         # for a thread to end
MAX_WAITING = 4        # pictures that wait for the model


class Busy(Exception):
    """Too many pictures wait for the model, or it takes too long."""


class Shot(NamedTuple):
    """A frame and what was found in it."""
    number: int         # from 0, in its source
    name: str           # of an image file; of a frame with its number
    pixels: np.ndarray  # [H, W, 3] uint8 RGB
    found: Detections
    seconds: float      # that the model took


class Stream:
    """Reads frames in one thread and runs the model in another, on the newest frame only; `shot` is the newest result.

    detect: pixels [H, W, 3] -> boxes, scores, labels, as Predictor.detect. open_source: gives the pictures, each time
    from the beginning; None for none. live: they come whether they are read or not, as those of a camera; else frames
    come at the time that their row says, and image files one by one, none left out. repeat: begin again at the
    end; live, after RETRY_SECONDS, until there are frames again. What waits and what changes does so under `changed`.
    """

    def __init__(self, detect: Callable, open_source: Callable[[], Iterable[Picture]] | None = None, *,
                 live: bool = False, repeat: bool = False):
        self.detect, self.open_source, self.live, self.repeat = detect, open_source, live, repeat
        self.changed = threading.Condition()
        self.waiting: tuple[int, str, np.ndarray] | None = None      # the newest frame, not with the model yet
        self.asked: deque[tuple[np.ndarray, Future]] = deque()       # pictures of ask()
        self.shot: Shot | None = None
        self.count, self.steps = 0, 0                                # frames offered; that pass while it is paused
        self.paused = self.closed = False
        self.ended = open_source is None                             # whether no more frames come
        self.error: Exception | None = None                          # that ended the frames or the model
        self.times: deque[float] = deque(maxlen=256)                 # when results came
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self.run_model, self.run_reader)]

    def __enter__(self) -> Stream:
        for thread in self.threads[:1 if self.ended else 2]:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        for thread in self.threads:  # a model or a camera that runs while the interpreter ends may crash
            if thread.is_alive():
                thread.join(PATIENCE)

    # --- for whoever shows it

    def close(self) -> None:
        """Ends the threads; who waits gets what there is."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def pause(self, on: bool) -> None:
        """Holds the frames, or lets them come; after the last one they begin again."""
        with self.changed:
            self.paused, self.steps = on, 0
            if self.ended and not on and self.open_source and not self.error:
                self.ended = False
                self.threads[1] = threading.Thread(target=self.run_reader, daemon=True)
                self.threads[1].start()
            self.changed.notify_all()

    def step(self) -> None:
        """Holds the frames and lets one come."""
        with self.changed:
            self.paused, self.steps = True, self.steps + 1
            self.changed.notify_all()

    def wait(self, after: Shot | None, seconds: float) -> Shot | None:
        """The newest result; within so many seconds one that is not `after`, unless none comes."""
        with self.changed:
            self.changed.wait_for(lambda: self.shot is not after or self.closed, seconds)
            return self.shot

    def rate(self) -> float:
        """Results a second, of late."""
        with self.changed:
            times = list(self.times)
        while len(times) > 3 and times[-1] - times[0] > RATE_SECONDS:
            times.pop(0)
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0

    def ask(self, pixels: np.ndarray, seconds: float) -> Detections:
        """What the model finds in a picture from elsewhere. Raises Busy where that takes longer, or others wait."""
        future = Future()
        with self.changed:
            if len(self.asked) >= MAX_WAITING or self.closed:
                raise Busy(f"{MAX_WAITING} pictures wait already")
            self.asked.append((pixels, future))
            self.changed.notify_all()
        try:
            return future.result(seconds)
        except (NotInTime, CancelledError):
            future.cancel()
            raise Busy(f"the model has not come to it within {seconds:g} s") from None

    # --- the two threads

    def run_reader(self) -> None:
        """Offers frames until there are no more, or close()."""
        try:
            while self.read() and self.repeat and (self.count or self.live):
                if self.live:
                    self.wait_to_retry()
        except Exception as error:  # of any kind: it is shown where the frames are
            self.error = error
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def wait_to_retry(self) -> None:
        """Returns when a source that has ended may be opened again, or at close()."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.closed, RETRY_SECONDS)

    def read(self) -> bool:
        """Offers all frames of the source once, at their times; returns whether its end was reached."""
        self.count, shift = 0, None  # shift: of the clock against the times of the frames
        for pixels, row, *_ in self.open_source():
            with self.changed:
                second = row.get("time")
                if second is not None and shift is not None and not self.live:
                    self.changed.wait_for(lambda: self.closed or self.paused, shift + second - time.monotonic())
                if self.paused and not self.steps and not self.closed:
                    if self.live:
                        continue
                    self.changed.wait_for(lambda: self.closed or not self.paused or self.steps)
                    shift = None
                if shift is None and second is not None:
                    shift = time.monotonic() - second
                if second is None:  # an image file: when the one before was taken
                    self.changed.wait_for(lambda: self.closed or self.waiting is None)
                if self.closed:
                    return False
                self.steps = max(self.steps - 1, 0)
                name = os.path.basename(row["file"]) if second is None else f"frame {self.count}"
                self.waiting, self.count, self.ended = (self.count, name, pixels), self.count + 1, False
                self.changed.notify_all()
                if second is None:
                    self.changed.wait_for(lambda: self.closed or self.paused, PICTURE_SECONDS)
        return True

    def run_model(self) -> None:
        """Runs the model: in turn on a picture that was asked for, and on the newest frame."""
        frame_first = False
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.closed or self.asked or self.waiting)
                if self.closed:
                    break
                asked = self.asked.popleft() if self.asked and not (frame_first and self.waiting) else None
                if asked is None:
                    (number, name, pixels), self.waiting = self.waiting, None
                    self.changed.notify_all()
            frame_first = asked is not None
            if asked:
                self.answer(*asked)
                continue
            try:
                began = time.monotonic()
                found = Detections(*self.detect(pixels))
            except Exception as error:  # of any kind: it is shown where the frames are
                self.error, self.closed = error, True
                break
            with self.changed:
                self.times.append(time.monotonic())
                self.shot = Shot(number, name, pixels, found, self.times[-1] - began)
                self.changed.notify_all()
        with self.changed:
            for _, future in self.asked:
                future.cancel()
            self.changed.notify_all()

    def answer(self, pixels: np.ndarray, future: Future) -> None:
        """Runs the model on a picture of ask(), unless nobody waits for it any longer."""
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(Detections(*self.detect(pixels)))
        except Exception as error:  # of any kind: it is raised where the answer is waited for
            future.set_exception(error)
