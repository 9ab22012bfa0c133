"""A video that never ends and a model that finds the same in each frame: what the tests of a window and a page show."""
import numpy as np
from programs import until

from src.inference.sources import Picture

CLASSES = ["cat", "dog", "doormat"]
BOXES = np.array([[0.25, 0.5, 0.75, 1], [0, 0, 0.5, 0.5]], np.float32)


def detect(pixels):
    """A dog and, less surely, a cat."""
    return BOXES, np.array([0.875, 0.25], np.float32), np.array([2, 1], np.int32)


def frames():
    """Grey frames of 64 x 48 pixels, 40 a second."""
    for number in range(10 ** 6):
        yield Picture(np.full((48, 64, 3), 90, np.uint8), {"frame": number, "time": number / 40})


def come_to_rest(stream):
    """Waits until a paused stream shows the last frame that it let through."""
    until(lambda: stream.shot is not None and stream.shot.number == stream.count - 1)
