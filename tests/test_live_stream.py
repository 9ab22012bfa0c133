"""A stream: the newest frame wins, pause and step, the end, pictures from elsewhere, errors."""
import threading
import time

import numpy as np
import pytest

from src.inference.sources import Picture
from src.live import stream as streams
from src.live.stream import Busy, Stream

NOTHING = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)


def frames(count, rate=0.0, made=None):
    """The pictures of a video of so many frames, whose value is their number; image files where the rate is 0."""
    for number in range(count):
        if made is not None:
            made.append(number)
        row = {"frame": number, "time": number / rate} if rate else {"file": f"{number}.png"}
        yield Picture(np.full((4, 6, 3), number % 256, np.uint8), row)


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


def test_a_slow_model_gets_the_newest_frame_and_holds_nobody():
    seen = []

    def detect(pixels):
        seen.append(int(pixels[0, 0, 0]))
        time.sleep(0.1)
        return NOTHING
    began = time.monotonic()
    with Stream(detect, lambda: frames(100, rate=200)) as stream:
        until(lambda: stream.ended and stream.shot and stream.shot.number == 99)
    assert time.monotonic() - began < 5 and seen[-1] == 99
    assert seen == sorted(seen) and 2 <= len(seen) < 20  # of half a second of video


def test_frames_of_a_video_come_at_their_times_and_those_of_a_camera_at_once():
    with Stream(lambda pixels: NOTHING, lambda: frames(9, rate=20)) as stream:
        began = time.monotonic()
        until(lambda: stream.ended)
        assert 0.38 < time.monotonic() - began < 3
    with Stream(lambda pixels: NOTHING, lambda: frames(9, rate=0.1), live=True) as stream:
        until(lambda: stream.ended, 5)


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
    with Stream(lambda pixels: NOTHING, lambda: frames(1000, rate=200, made=made)) as stream:
        until(lambda: stream.shot is not None)
        stream.pause(True)
        time.sleep(0.05)
        before, count = stream.shot.number, len(made)
        time.sleep(0.1)
        assert stream.shot.number == before and len(made) == count
        for step in (1, 2, 3):
            stream.step()
            until(lambda step=step: stream.shot.number == before + step)
        stream.pause(False)
        until(lambda: stream.shot.number > before + 3)


def test_a_paused_camera_goes_on_so_that_a_step_shows_what_is_now():
    made, now = [], threading.Event()

    def camera():
        for picture in frames(100000, rate=1, made=made):
            yield picture
            now.wait(0.001)
    with Stream(lambda pixels: NOTHING, camera, live=True) as stream:
        until(lambda: stream.shot is not None)
        stream.pause(True)
        time.sleep(0.02)
        shot, count = stream.shot, len(made)
        until(lambda: len(made) > count + 20)
        assert stream.shot is shot
        stream.step()
        until(lambda: stream.shot is not shot)
        assert stream.shot.pixels[0, 0, 0] >= (count + 20) % 256 - 1


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


def test_pictures_from_elsewhere_take_turns_with_frames():
    seen = []

    def detect(pixels):
        seen.append(pixels.shape[0])
        time.sleep(0.01)
        return NOTHING
    with Stream(detect, lambda: frames(100000, rate=1), live=True) as stream:
        askers = [threading.Thread(target=stream.ask, args=(np.zeros((9, 9, 3), np.uint8), 10)) for _ in range(4)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
    places = [index for index, height in enumerate(seen) if height == 9]
    assert len(places) == 4 and seen[places[0]:places[-1]].count(4) >= 2


def test_too_many_or_too_slow_is_busy():
    go = threading.Event()

    def detect(pixels):
        go.wait(10)
        return NOTHING
    picture = np.zeros((4, 4, 3), np.uint8)
    with Stream(detect) as stream:
        threads = [threading.Thread(target=lambda: stream.ask(picture, 10)) for _ in range(streams.MAX_WAITING + 1)]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
        with pytest.raises(Busy, match="wait already"):
            stream.ask(picture, 10)
        go.set()
        for thread in threads:
            thread.join()
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
            stream.ask(np.zeros((1, 4, 3), np.uint8), 5)
        assert len(stream.ask(np.zeros((4, 4, 3), np.uint8), 5).scores) == 0
