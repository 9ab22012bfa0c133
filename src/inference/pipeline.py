"""Pictures in, detections out: reading, the network and writing run at the same time, each in a thread of its own."""
from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from src.data.resize import resize
from src.inference.found import Detections
from src.inference.sources import Picture
from src.inference.tiles import WHOLE, cut, merge

if TYPE_CHECKING:
    from src.inference.predictor import Predictor

MAX_WAITING, MAX_BYTES = 32, 1 << 28  # pictures that wait between two threads, and bytes of their pixels
PATIENCE = 5.0                        # seconds for a reader to end; one that waits for a stream is left behind


class Channel:
    """Hands tuples that begin with a Picture from one thread to another: put() waits while too many lie there.

    latest: what nobody has taken yet gives way to the next one, and put() does not wait.
    """

    def __init__(self, *, latest: bool = False):
        self.items, self.latest = deque(), latest
        self.changed, self.ended, self.error = threading.Condition(), False, None

    def put(self, item: tuple) -> bool:
        """Adds an item; returns False where the channel has ended."""
        with self.changed:
            if self.latest:
                self.items.clear()
            self.changed.wait_for(lambda: self.ended or self.has_room(item))
            if not self.ended:
                self.items.append(item)
                self.changed.notify_all()
            return not self.ended

    def has_room(self, item: tuple) -> bool:
        """Whether one more item may lie there; one always may."""
        size = sum(picture.pixels.nbytes for picture, *_ in (*self.items, item))
        return not self.items or len(self.items) < MAX_WAITING and size <= MAX_BYTES

    def end(self, error: BaseException | None = None) -> None:
        """No more is put. What lies there can be taken; then the error, if any, is raised."""
        with self.changed:
            self.ended, self.error = True, self.error or error
            self.changed.notify_all()

    def __iter__(self) -> Iterator[tuple]:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.items or self.ended)
                if not self.items:
                    break
                item = self.items.popleft()
                self.changed.notify_all()
            yield item
        if self.error:
            raise self.error


def read_ahead(items: Iterable[tuple], *, latest: bool = False) -> Iterator[tuple]:
    """The items, made by a thread of their own while the caller works on those before. latest: as of Channel."""
    channel = Channel(latest=latest)

    def work() -> None:
        try:
            for item in items:
                if not channel.put(item):
                    return
            channel.end()
        except BaseException as error:  # of any kind: it is raised where the items are used
            channel.end(error)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield from channel
    finally:
        channel.end()
        thread.join(PATIENCE)


@contextlib.contextmanager
def write_behind(write: Callable[..., None]) -> Iterator[Callable[..., None]]:
    """A function that returns at once while a thread of its own calls write() with the same arguments, in order.

    The end of the context waits for the last call. An error of write() is raised at the next call, or there.
    """
    channel = Channel()

    def work() -> None:
        try:
            for item in channel:
                write(*item)
        except BaseException as error:  # of any kind: it is raised where the items come from
            channel.end(error)

    def hand_over(*item: object) -> None:
        if not channel.put(item):
            raise channel.error
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield hand_over
    finally:
        channel.end()
        thread.join()
    if channel.error:
        raise channel.error


def detect_pictures(predict: Predictor, pictures: Iterable[Picture], *, windows: np.ndarray = WHOLE,
                    latest: bool = False) -> Iterator[tuple[Picture, Detections]]:
    """Pictures with what a Predictor finds in them, in their order; the next ones are read meanwhile.

    So many go through the network at a time as fill predict.batch_size. windows: as of tiles.py, [n, 4]. latest: for
    cameras; one at a time, and those that came while the network was busy are left out but the newest. Close it
    (contextlib.closing) to end the reader.
    """
    prepared = ((picture, *prepare(predict, picture.pixels, windows)) for picture in pictures)
    with contextlib.closing(read_ahead(prepared, latest=latest)) as ready:
        for group in groups(ready, 1 if latest else max(predict.batch_size // len(windows), 1)):
            found = detect_squares(predict, np.concatenate([squares for _, squares, _ in group]))
            for number, (picture, _, exact) in enumerate(group):
                own = found[number * len(windows):(number + 1) * len(windows)]
                yield picture, merge(own, exact, predict.meta)


def detect_picture(predict: Predictor, pixels: np.ndarray, windows: np.ndarray = WHOLE) -> Detections:
    """What a Predictor finds in one picture [H, W, 3], seen in windows [n, 4] of it."""
    squares, exact = prepare(predict, pixels, windows)
    return merge(detect_squares(predict, squares), exact, predict.meta)


def prepare(predict: Predictor, pixels: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The windows [n, 4] of a picture as the network takes them, [n, S, S, 3] uint8, and where these exactly are."""
    parts, exact = cut(pixels, windows)
    return np.stack([resize(part, predict.image_size, predict.resize) for part in parts]), exact


def detect_squares(predict: Predictor, squares: np.ndarray) -> list[Detections]:
    """What is found in each of squares [n, S, S, 3], in batches of the Predictor."""
    found = []
    for start in range(0, len(squares), predict.batch_size):
        boxes, scores, labels, counts = predict(squares[start:start + predict.batch_size])
        found += [Detections(boxes[row, :count], scores[row, :count], labels[row, :count])
                  for row, count in enumerate(counts)]
    return found


def groups(items: Iterable[tuple], size: int) -> Iterator[list[tuple]]:
    """Lists of so many items; of fewer at the end, and where their pictures take MAX_BYTES."""
    group, taken = [], 0
    for item in items:
        group.append(item)
        taken += item[0].pixels.nbytes
        if len(group) == size or taken > MAX_BYTES:
            yield group
            group, taken = [], 0
    if group:
        yield group
