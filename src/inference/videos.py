"""Frames of videos, streams and cameras, and drawn videos (PyAV, which brings FFmpeg; cameras by OpenCV)."""
from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import cv2
import numpy as np

from src.data.image_bytes import describe_file
from src.data.images import IMAGE_ENDINGS, MAX_IMAGE_PIXELS
from src.errors import DataError, EnvironmentFault
from src.files import finish, open_aside

VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts")
ROTATIONS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
OPEN_SECONDS, STREAM_SECONDS = 20.0, 10.0  # that a stream may take to open, and be silent
DEFAULT_RATE, MAX_RATE = 25, 1000   # frames a second: where a source says none; above, its times are not believed
ENCODERS = ("libx264", "libopenh264", "mpeg4")  # the first that PyAV has: H.264, which every player and browser shows
TICKS = 90000                       # of a drawn video a second, as usual in MPEG


def is_camera(source: str) -> bool:
    """Whether a source is the number of a camera."""
    return re.fullmatch("[0-9]{1,4}", source) is not None


def is_url(source: str) -> bool:
    """Whether a source is the address of a stream."""
    return re.match(r"\w+://", source) is not None


def plain_url(source: str) -> str:
    """A source as it may be shown and saved: of an address without user and password."""
    return re.sub(r"(?<=://)[^/@]*@", "", source)


class VideoReader:
    """Frames of a video file or a stream, turned as its rotation tag asks: (pixels [H, W, 3] uint8 RGB, second).

    live: whether it goes on while nobody reads. rate: frames a second, count: frames, as the file says, 0: unknown.
    ratio: width of a pixel to its height. Raises DataError where it does not open, or is damaged, behind what it gave.
    """

    def __init__(self, source: str):
        self.source, options = source, {"rtsp_transport": "tcp"} if source.startswith("rtsp") else {}
        began = time.monotonic()
        try:
            if not is_url(source) and "HEIC" in describe_file(source):
                raise ValueError("of a picture in tiles FFmpeg would give the first tile")
            timeout = (OPEN_SECONDS, STREAM_SECONDS) if is_url(source) else None
            self.container = av.open(source, options=options, timeout=timeout)
            self.stream = self.container.streams.best("video")  # not a cover
            if self.stream is None:
                raise ValueError("it has no pictures")
            if self.stream.codec_context is None:  # PyAV would crash at its first packet
                raise ValueError("it is written by a codec that is not known")
            if self.stream.width * self.stream.height > MAX_IMAGE_PIXELS:
                raise ValueError(f"its frames have {self.stream.width} x {self.stream.height} pixels, the limit is "
                                 f"{MAX_IMAGE_PIXELS} in all")
            self.stream.codec_context.options = {"max_pixels": str(MAX_IMAGE_PIXELS)}  # of frames behind the header
        except (av.FFmpegError, ValueError) as error:
            raise DataError(self.why_not(error, time.monotonic() - began)) from error
        # RTSP comes as time goes, recordings too
        self.live = is_url(source) and (self.container.duration is None or source.startswith("rtsp"))
        self.stream.thread_type = "SLICE" if self.live else "AUTO"  # several frames at a time come later
        self.rate, self.count = float(self.stream.average_rate or 0), self.stream.frames
        # of MJPEG over HTTP FFmpeg says that 25 frames come a second
        self.has_times = self.container.format.name != "mpjpeg"
        self.ratio = self.stream.sample_aspect_ratio or Fraction(1)

    def close(self) -> None:
        """Gives up a source that is not read."""
        self.container.close()

    def why_not(self, error: Exception, seconds: float) -> str:
        """What is wrong with a source that does not open, in words. seconds: that it took to find out."""
        reason = getattr(error, "strerror", error)
        if is_url(self.source):
            if seconds >= OPEN_SECONDS:  # FFmpeg calls it invalid data, an exit or a timeout
                reason = f"no picture came for {OPEN_SECONDS:g} s"
            return f"--source '{plain_url(self.source)}' cannot be opened ({reason})"
        kind = describe_file(self.source)
        if kind.startswith("it is a video"):  # the rest is advice for annotated pictures
            kind = f"it is a video that cannot be used ({reason}); fetch or copy it again"
        return (f"--source '{self.source}' is neither a picture ({', '.join(IMAGE_ENDINGS)}) nor a video that opens: "
                f"{kind}")

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        start, number, problem = None, 0, ""
        try:
            for packet in self.container.demux(self.stream):
                try:
                    frames = packet.decode()
                except av.InvalidDataError:  # what comes behind may be whole
                    problem = "parts of it are damaged"
                    continue
                for frame in frames:
                    second = frame.time if self.has_times else time.monotonic()
                    second = number / (self.rate or DEFAULT_RATE) if second is None else second
                    start = second if start is None else start
                    yield upright(frame), second - start
                    number += 1
        except av.FFmpegError as error:
            is_silence = isinstance(error, av.ExitError)  # PyAV ends FFmpeg when the time is over
            reason = f"nothing came for {STREAM_SECONDS:g} s" if is_silence else error.strerror
            if is_url(self.source) and not self.live and number == 0:  # such as an index at the end of the file
                reason += "; this server may give files from their beginning only: fetch the file, and give its path"
            problem = f"it breaks off ({reason})"
        finally:
            self.close()
        if number + max(self.rate, 1) < self.count:  # some files count a few frames that are not to be shown
            problem = problem or "it is cut short"
        if problem:
            raise DataError(f"'{plain_url(self.source)}': {problem}, {number} frame(s) were read")


def upright(frame: av.VideoFrame) -> np.ndarray:
    """The pixels of a frame, [H, W, 3] uint8 RGB, as a player shows them."""
    pixels = frame.to_ndarray(format="rgb24")
    turn = round(frame.rotation) % 360
    return cv2.rotate(pixels, ROTATIONS[turn]) if turn in ROTATIONS else pixels


class Camera:
    """Frames of a camera: (pixels [H, W, 3] uint8 RGB, second). Its attributes are those of a VideoReader."""
    live, count, ratio = True, 0, Fraction(1)

    def __init__(self, source: str):
        cv2.setLogLevel(0)  # else OpenCV writes its own lines about a camera that does not open
        self.capture = cv2.VideoCapture(int(source))
        if not self.capture.isOpened():
            raise DataError(f"--source {source}: there is no such camera, or another program uses it")
        self.rate = self.capture.get(cv2.CAP_PROP_FPS)

    def close(self) -> None:
        """Gives up a camera that is not read."""
        self.capture.release()

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        start = None
        try:
            while (frame := self.capture.read()[1]) is not None:
                now = time.monotonic()
                start = now if start is None else start
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), now - start
        finally:
            self.close()


def open_video(source: str) -> VideoReader | Camera:
    """The frames of a camera number, an address or a file. Raises DataError."""
    return Camera(source) if is_camera(source) else VideoReader(source)


class VideoWriter:
    """An .mp4 of drawings [H, W, 3] uint8 RGB, there when it is complete; all get the size of the first.

    rate, ratio: as of the VideoReader they come from. notes: how the video differs from the source, in words.
    """

    def __init__(self, path: str, rate: float, ratio: Fraction = Fraction(1)):
        self.path, self.file, self.ratio = path, None, ratio
        self.container, self.size, self.count, self.last, self.notes = None, None, 0, -1, []
        self.believed = not rate > MAX_RATE
        self.rate = rate if math.isfinite(rate) and 0 < rate <= MAX_RATE else DEFAULT_RATE
        if not self.believed:
            self.notes.append(f"the source says {rate:g} frames a second, the drawn video has {self.rate:g}")

    def write(self, drawing: np.ndarray, second: float) -> None:
        """Appends a drawing that is shown from this second on. Raises EnvironmentFault."""
        height, width = drawing.shape[:2]
        # the encoder needs even sides, so an odd last column or row is doubled
        pixels = cv2.copyMakeBorder(drawing, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self.size is None:
            self.size = pixels.shape[1::-1]
            if pixels.shape != drawing.shape:
                self.notes.append(f"frames of {width} x {height} pixels are {width + width % 2} x "
                                  f"{height + height % 2} in the drawn video, whose sides must be even")
        if pixels.shape[1::-1] != self.size:
            pixels = cv2.resize(pixels, self.size)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        tick = round((second if self.believed else self.count / self.rate) * TICKS)
        self.last = frame.pts = max(tick, self.last + 1)  # times of a broken file may go back
        frame.time_base, frame.duration = Fraction(1, TICKS), round(TICKS / self.rate)
        self.count += 1
        self.encode(frame)

    def encode(self, frame: av.VideoFrame | None) -> None:
        """Writes a frame; with None what the encoder holds back, and ends the file."""
        try:
            if self.container is None:
                self.open()
            self.container.mux(self.stream.encode(frame))
            if frame is None:
                self.container.close()
                finish(self.file, self.path)
        except (av.FFmpegError, OSError) as error:
            if self.file:
                finish(self.file, self.path, keep=False)
                self.file = None
            width, height = self.size
            raise EnvironmentFault(f"'{self.path}' cannot be written ({error.strerror}); is the disk full, or are "
                                   f"frames of {width} x {height} pixels too much for a video?") from error

    def open(self) -> None:
        """Makes the file."""
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        encoder = next(name for name in ENCODERS if name in av.codecs_available)
        self.file = open_aside(self.path)
        # the index in front, so that a browser can begin before it has all of the file
        self.container = av.open(self.file.name, "w", format="mp4", options={"movflags": "faststart"})
        options = {"crf": "20", "preset": "veryfast"} if encoder == "libx264" else {}
        self.stream = self.container.add_stream(encoder, Fraction(self.rate).limit_denominator(1001), options=options)
        self.stream.width, self.stream.height = self.size
        self.stream.pix_fmt, self.stream.sample_aspect_ratio = "yuv420p", self.ratio
        self.stream.time_base = self.stream.codec_context.time_base = Fraction(1, TICKS)

    def close(self) -> None:
        """Ends the file."""
        if self.file:
            self.encode(None)
