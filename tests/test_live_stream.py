"""A stream: the newest frame wins, pause and step, the end, pictures from elsewhere, errors."""
import itertools
import threading
import time

import numpy as np
import pytest
from programs import until
from watching import come_to_rest

from src.inference.sources import Picture
from src.live import stream as streams
from src.live.stream import Busy, Stream

NOTHING = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)


def frames(count=None, rate=0.0, made=None):
    """The pictures of a video whose value is their number; count: of them, None for no end. rate 0: of image files."""
    for number in itertools.count() if count is None else range(count):
        if made is not None:
            made.append(number)
        row = {"frame": number, "time": number / rate} if rate else {"file": f"{number}.png"}
        yield Picture(np.full((4, 6, 3), number % 256, np.uint8), row)


def test_a_slow_model_gets_the_newest_frame_and_holds_nobody():
    seen, ended = [], threading.Event()

    def detect(pixels):
        seen.append(int(pixels[0, 0, 0]))
        assert ended.wait(60)
        return NOTHING
    with Stream(detect, lambda: frames(100, rate=200)) as stream:
        until(lambda: stream.ended and seen)
        ended.set()
        until(lambda: stream.shot and stream.shot.number == 99)
    assert len(seen) <= 2 and seen[-1] == 99  # the one that it had when the video ended, and the last one


def test_frames_of_a_video_come_at_their_times_and_those_of_a_camera_at_once():
    began = time.monotonic()
    with Stream(lambda pixels: NOTHING, lambda: frames(9, rate=20)) as stream:
        until(lambda: stream.ended)
    assert time.monotonic() - began > 0.38
    with Stream(lambda pixels: NOTHING, lambda: frames(9, rate=0.01), live=True) as stream:
        until(lambda: stream.ended)


def test_no_image_file_is_left_out(monkeypatch):
    monkeypatch.setattr(streams, "PICTURE_SECONDS", 0.01)
    seen = []

    def detect(pixels):
        seen.append(int(pixels[0, 0, 0]))
        time.sleep(0.05)
        return NOTHING
    with Stream(detect, lambda: frames(6)) as stream:
        until(lambda: stream.shot and stream.shot.number == 5)
        assert stream.shot.name == "5.png"
    assert seen == list(range(6))


def test_pause_holds_and_a_step_lets_one_frame_come():
    made = []
    with Stream(lambda pixels: NOTHING, lambda: frames(rate=200, made=made)) as stream:
        until(lambda: stream.shot is not None)
        stream.pause(True)
        come_to_rest(stream)
        before = stream.shot.number
        until(lambda: len(made) == before + 2)  # the next one is read, and waits
        time.sleep(0.1)
        assert stream.shot.number == before and len(made) == before + 2
        for step in (1, 2, 3):
            stream.step()
            until(lambda step=step: stream.shot.number == before + step)
        stream.pause(False)
        until(lambda: stream.shot.number > before + 3)


def test_a_paused_camera_goes_on_so_that_a_step_shows_what_is_now():
    made, values, never = [], [0], threading.Event()

    def camera():
        for number in itertools.count():
            made.append(values[0])
            yield Picture(np.full((4, 6, 3), values[0], np.uint8), {"frame": number, "time": number})
            never.wait(0.001)
    with Stream(lambda pixels: NOTHING, camera, live=True) as stream:
        until(lambda: stream.shot is not None)
        stream.pause(True)
        come_to_rest(stream)
        shot, values[0] = stream.shot, 1
        until(lambda: 1 in made)
        assert stream.shot is shot
        stream.step()
        until(lambda: stream.shot is not shot)
        assert stream.shot.pixels[0, 0, 0] == 1


def test_the_end_and_going_on_after_it():
    opened = []

    def source():
        opened.append(True)
        return frames(3, rate=1000)
    with Stream(lambda pixels: NOTHING, source) as stream:
        until(lambda: stream.ended)
        stream.pause(False)
        until(lambda: stream.ended and len(opened) == 2)
    with Stream(lambda pixels: NOTHING, source, repeat=True):
        until(lambda: len(opened) > 5)


def test_a_camera_that_is_gone_is_opened_again_until_it_is_back(monkeypatch):
    monkeypatch.setattr(streams, "RETRY_SECONDS", 0.01)
    opened, gone = [], iter([True, False, False, True])

    def source():
        opened.append(True)
        return frames(3, rate=1000) if next(gone, True) else ()
    with Stream(lambda pixels: NOTHING, source, live=True, repeat=True) as stream:
        until(lambda: len(opened) > 5)
    assert stream.error is None
    monkeypatch.setattr(streams, "RETRY_SECONDS", 600)
    with Stream(lambda pixels: NOTHING, lambda: frames(3, rate=1000), live=True, repeat=True) as stream:
        until(lambda: stream.ended and stream.shot)  # said while it waits, and the end does not wait for that


def test_a_source_without_frames_ends_even_where_it_should_repeat():
    with Stream(lambda pixels: NOTHING, lambda: iter(()), repeat=True) as stream:
        until(lambda: stream.ended)


@pytest.mark.parametrize("part", ["source", "model"])
def test_an_error_is_kept_for_who_shows_it(part):
    def fail(*_):
        raise ValueError("gone")
    with Stream(fail if part == "model" else lambda pixels: NOTHING,
                fail if part == "source" else lambda: frames(5, rate=100)) as stream:
        until(lambda: stream.error is not None)
        assert str(stream.error) == "gone"


def ask(stream, count):
    """Threads that ask a stream, each for one picture that is larger than its frames."""
    threads = [threading.Thread(target=stream.ask, args=(np.zeros((9, 9, 3), np.uint8), 60)) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_pictures_from_elsewhere_take_turns_with_frames():
    seen, go = [], threading.Event()

    def detect(pixels):
        seen.append(pixels.shape[0])
        assert go.wait(60)
        until(lambda: stream.waiting or stream.closed)  # a frame, so that there is a choice
        return NOTHING
    with Stream(detect, lambda: frames(rate=1), live=True) as stream:
        until(lambda: seen)
        askers = ask(stream, 4)
        until(lambda: len(stream.asked) == 4)
        go.set()
        for asker in askers:
            asker.join(60)
    assert seen[0] == 4 and [index for index, height in enumerate(seen) if height == 9][:4] == [1, 3, 5, 7]


def test_too_many_or_too_slow_is_busy():
    begun, go = threading.Event(), threading.Event()

    def detect(pixels):
        begun.set()
        assert go.wait(60)
        return NOTHING
    picture = np.zeros((4, 4, 3), np.uint8)
    with Stream(detect) as stream:
        askers = ask(stream, 1)
        assert begun.wait(60)
        askers += ask(stream, streams.MAX_WAITING)
        until(lambda: len(stream.asked) == streams.MAX_WAITING)
        with pytest.raises(Busy, match="wait already"):
            stream.ask(picture, 10)
        go.set()
        for asker in askers:
            asker.join(60)
        go.clear()
        with pytest.raises(Busy, match="within 0.05 s"):
            stream.ask(picture, 0.05)
        go.set()
    with pytest.raises(Busy):
        stream.ask(picture, 1)


def test_an_error_of_the_model_reaches_who_asked_and_the_next_picture_is_served():
    def detect(pixels):
        if pixels.shape[0] == 1:
            raise ValueError("too flat")
        return NOTHING
    with Stream(detect) as stream:
        with pytest.raises(ValueError, match="too flat"):
            stream.ask(np.zeros((1, 4, 3), np.uint8), 60)
        assert len(stream.ask(np.zeros((4, 4, 3), np.uint8), 60).scores) == 0
