"""Where pictures to predict on come from: an image, a folder of images, a video, a camera."""
from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from src.data.image_bytes import describe_file
from src.data.images import IMAGE_ENDINGS, read_image
from src.errors import DataError
from src.progress import track

ROTATIONS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


class Picture(NamedTuple):
    """One picture of a source."""
    pixels: np.ndarray  # [H, W, 3] uint8 RGB, turned as a viewer shows it
    row: dict           # how its row in predictions.json begins: {"file": path}, or {"frame": number from 0}


class ImageFiles:
    """The pictures of image files, with progress. A file that cannot be read is named and left out."""
    unit = "picture"

    def __init__(self, paths: list[str]):
        self.paths = paths

    def __iter__(self) -> Iterator[Picture]:
        for path in track(self.paths, len(self.paths), "predicting"):
            try:
                pixels = read_image(path)
            except DataError as error:
                print(f"left out: {error}", flush=True)
                continue
            yield Picture(pixels, {"file": path})


class VideoReader:
    """The frames of a video file or a camera, turned as the rotation tag of the file asks.

    source: a path, or the number of a camera. Raises DataError where it does not open.
    """
    unit = "frame"

    def __init__(self, source: str):
        cv2.setLogLevel(0)  # else OpenCV writes its own lines about a camera that does not open
        self.source, self.capture = source, cv2.VideoCapture(int(source) if source.isdigit() else source)
        if not self.capture.isOpened() and source.isdigit():
            raise DataError(f"source {source}: there is no such camera, or another program uses it")
        if not self.capture.isOpened():
            raise DataError(f"source '{source}' is neither a picture ({', '.join(IMAGE_ENDINGS)}) nor a video that "
                            f"opens: {describe_file(source)}")
        self.capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # some builds of OpenCV turn, some do not
        self.rotation = ROTATIONS.get(round(self.capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360)
        self.rate = self.capture.get(cv2.CAP_PROP_FPS)  # frames a second, as the file says

    def __iter__(self) -> Iterator[Picture]:
        number = 0
        while (frame := self.capture.read()[1]) is not None:
            if self.rotation is not None:
                frame = cv2.rotate(frame, self.rotation)
            yield Picture(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), {"frame": number})
            number += 1
            if number % 50 == 0:
                print(f"{number} frames", flush=True)


def open_source(source: str) -> ImageFiles | VideoReader:
    """The pictures of a source as typed. Raises DataError where there are none."""
    if os.path.isdir(source):
        names = sorted(name for name in os.listdir(source) if name.lower().endswith(IMAGE_ENDINGS))
        if not names:
            raise DataError(f"folder '{source}' holds no pictures ({', '.join(IMAGE_ENDINGS)})")
        return ImageFiles([os.path.join(source, name) for name in names])
    if os.path.exists(source) and stat.S_ISFIFO(os.stat(source).st_mode):  # OpenCV would wait for its other end
        raise DataError(f"source '{source}' is a named pipe; give an image, a folder, a video or a camera number")
    if source.lower().endswith(IMAGE_ENDINGS):
        return ImageFiles([source])
    return VideoReader(source)
