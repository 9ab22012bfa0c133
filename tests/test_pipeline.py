"""Threads that read ahead and write behind, and the detections of pictures in their order."""
import contextlib
import threading
import time

import numpy as np
import pytest

from src.inference import pipeline
from src.inference.pipeline import Channel, detect_pictures, read_ahead, write_behind
from src.inference.predictor import Predictor
from src.inference.sources import Picture


def picture(number, side=4):
    return Picture(np.full((side, side, 3), number, np.uint8), {"file": str(number)})


def items(count):
    return [(picture(number),) for number in range(count)]


def numbers(found):
    return [int(one[0].row["file"]) for one in found]


class Counting(Predictor):
    """Finds in each picture as many boxes as its pixels say; keeps the sizes of the batches that it got."""

    def __init__(self, batch_size, wait=None):
        super().__init__(self.find, batch_size, {"image_size": 2, "classes": ["cat"]})
        self.sizes, self.wait = [], wait

    def __call__(self, images):
        self.sizes.append(len(images))
        return super().__call__(images)

    def find(self, images):
        assert images.shape == (self.batch_size, 2, 2, 3)
        if self.wait:
            self.wait()
        shape = self.batch_size, 9
        return np.zeros((*shape, 4)), np.ones(shape), np.ones(shape, int), images[:, 0, 0, 0].astype(int)


@pytest.fixture
def threads(monkeypatch):
    """The threads that a test starts."""
    started, start = [], threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: (started.append(self), start(self)))
    return started


def all_ended(threads):
    """Whether threads were started, and all of them end."""
    for thread in threads:
        thread.join(60)
    return bool(threads) and not any(thread.is_alive() for thread in threads)


def test_items_come_in_order_and_the_thread_ends(threads):
    assert numbers(read_ahead(items(100))) == list(range(100))
    assert all_ended(threads)


def test_no_more_is_read_than_may_wait(monkeypatch):
    read = []

    def source():
        for item in items(50):
            read.append(item)
            yield item
    monkeypatch.setattr(pipeline, "MAX_WAITING", 3)
    with contextlib.closing(read_ahead(source())) as ahead:
        next(ahead)
        time.sleep(0.1)
        assert 1 <= len(read) <= 5  # one is used, three wait, one is at the door
    monkeypatch.setattr(pipeline, "MAX_BYTES", 100)  # a picture has 48
    read.clear()
    with contextlib.closing(read_ahead(source())) as ahead:
        next(ahead)
        time.sleep(0.1)
        assert 1 <= len(read) <= 4


def test_one_item_is_taken_however_large(monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_BYTES", 1)
    assert numbers(read_ahead(items(3))) == [0, 1, 2]


def test_an_error_of_the_reader_comes_behind_its_items():
    def source():
        yield from items(2)
        raise ValueError("broken")
    found = []
    with pytest.raises(ValueError, match="broken"):
        found.extend(read_ahead(source()))
    assert numbers(found) == [0, 1]


def test_a_reader_whose_user_stops_ends(threads):
    with contextlib.closing(read_ahead(items(1000))) as ahead:
        next(ahead)
    assert all_ended(threads)


def test_the_latest_wins():
    channel = Channel(latest=True)
    for item in items(5):
        assert channel.put(item)
    channel.end()
    assert numbers(channel) == [4] and not channel.put(items(1)[0])


def test_what_is_handed_over_is_written_in_order_before_the_context_ends(threads):
    written = []
    with write_behind(lambda one, number: written.append(number)) as write:
        for number in range(100):
            write(picture(number), number)
    assert written == list(range(100)) and all_ended(threads)


def test_an_error_of_the_writer_reaches_the_caller():
    def fail(_):
        raise OSError("disk full")
    for count in (1, 1000):  # it is noticed at the end, or at a later call
        with pytest.raises(OSError, match="disk full"), write_behind(fail) as write:
            for number in range(count):
                write(picture(number))


def test_an_error_of_the_caller_waits_for_the_writer():
    written = []
    with pytest.raises(KeyboardInterrupt), write_behind(lambda one: written.append(one)) as write:
        for number in range(20):
            write(picture(number))
        raise KeyboardInterrupt
    assert len(written) == 20


@pytest.mark.parametrize("count, batch, sizes", [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 8, [2]), (0, 3, [])])
def test_pictures_and_what_was_found_in_them(count, batch, sizes):
    predict = Counting(batch)
    found = list(detect_pictures(predict, [picture(number, 2 + number) for number in range(count)]))
    assert numbers(found) == list(range(count)) and predict.sizes == sizes
    for number, (_, (boxes, scores, labels)) in enumerate(found):
        assert boxes.shape == (number, 4) and len(scores) == len(labels) == number


def test_large_pictures_fill_a_smaller_batch(monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_BYTES", 100)  # a picture has 48: the third is too much
    predict = Counting(8)
    assert len(list(detect_pictures(predict, [picture(number) for number in range(5)]))) == 5
    assert predict.sizes == [3, 2]


def test_a_slow_network_gets_the_newest_picture_of_a_camera():
    shown, busy = threading.Event(), threading.Event()

    def camera():
        yield picture(0)
        busy.wait(60)
        for number in range(1, 9):
            yield picture(number)
        shown.set()

    def wait():
        busy.set()
        assert shown.wait(60)
    predict = Counting(1, wait)
    assert numbers(detect_pictures(predict, camera(), latest=True)) == [0, 8]
