"""Streams over a real connection: to their end, and what a server does wrong."""
import socket

import pytest
from stream_server import RtspServer, transport_stream

from src.errors import DataError
from src.inference import videos
from src.inference.videos import VideoReader


@pytest.fixture(scope="module")
def data():
    return transport_stream(50)


def test_a_stream_is_read_to_its_end_and_again(data):
    with RtspServer(data) as server:
        for _ in range(2):
            reader = VideoReader(server.address)
            found = list(reader)
            assert reader.live and {pixels.shape for pixels, _ in found} == {(48, 64, 3)}
            assert len(found) >= 48  # the end of the connection cuts off what FFmpeg has not put together
            values = [pixels.mean() for pixels, _ in found]
            assert values == sorted(values) and values[0] < 5 and values[-1] > 230
            times = [number / 25 for number in range(len(found))]
            assert [second for _, second in found] == pytest.approx(times, abs=1e-4)


def test_a_server_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"rtsp://me:secret@127.0.0.1:{server.getsockname()[1]}/street"
    with pytest.raises(DataError, match=r"'rtsp://127\.0\.0\.1:\d+/street' cannot be opened \(Connection refused"):
        VideoReader(address)


def test_a_server_that_does_not_answer(data, monkeypatch):
    monkeypatch.setattr(videos, "OPEN_SECONDS", 0.5)
    with RtspServer(data, mute=True) as server, \
            pytest.raises(DataError, match=r"cannot be opened \(no picture came for 0\.5 s\)"):
        VideoReader(server.address)


def test_a_stream_that_falls_silent_gives_what_came(data, monkeypatch):
    monkeypatch.setattr(videos, "STREAM_SECONDS", 1)
    with RtspServer(data, stays=True) as server:
        found, frames = [], iter(VideoReader(server.address))
        with pytest.raises(DataError, match=r"it breaks off \(nothing came for 1 s\), \d+ frame\(s\) were read"):
            found.extend(frames)
        assert len(found) >= 45  # the decoder holds some back


def test_a_server_that_is_lost(data):
    with RtspServer(data[:len(data) // 2]) as server:
        assert 10 < len(list(VideoReader(server.address))) < 50
