"""Videos: frames as a player shows them, and a drawn .mp4 that is checked before anybody is told of it."""
import math
import os

import cv2

from src.data.image_bytes import describe_file
from src.errors import DataError, EnvironmentFault

TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
USUAL_RATE, HIGHEST_RATE = 25.0, 1000.0  # frames a second, where a source says none, and above what is taken for one


class VideoSource:
    """The frames of a video file or a camera, [H, W, 3] uint8 RGB, turned as the file's rotation tag asks.

    source: a path or the number of a camera. Raises DataError where it does not open.
    """

    def __init__(self, source, endings=()):
        cv2.setLogLevel(0)  # else OpenCV writes its own lines about a camera that does not open
        camera = source.isdigit()
        self.capture = cv2.VideoCapture(int(source) if camera else source)
        if not self.capture.isOpened():
            raise DataError(f"source {source}: there is no such camera, or another program uses it" if camera else
                            f"source '{source}' is neither a picture ({', '.join(endings)}) nor a video that "
                            f"opens: {describe_file(source)}")
        self.capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # some builds of OpenCV turn, some do not
        self.turn = TURNS.get(round(self.capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360)
        self.rate = self.capture.get(cv2.CAP_PROP_FPS)

    def __iter__(self):
        while (frame := self.capture.read()[1]) is not None:
            frame = frame if self.turn is None else cv2.rotate(frame, self.turn)
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    def close(self):
        """Gives the file or the camera back."""
        self.capture.release()


class VideoFile:
    """A .mp4 that frames [H, W, 3] uint8 RGB are written to; all have the size of the first.

    notes: what differs from the source, in words. close() raises EnvironmentFault unless all frames are in the file.
    """

    def __init__(self, path, rate):
        self.path, self.writer, self.size, self.written, self.notes = path, None, None, 0, []
        self.rate = rate if math.isfinite(rate) and 0 < rate <= HIGHEST_RATE else USUAL_RATE
        if self.rate != rate and rate > 0:
            self.notes.append(f"the source says {rate:g} frames a second, the drawn video has {self.rate:g}")

    def write(self, frame):
        """Appends a frame."""
        shown, frame = frame, even_sides(frame)
        if self.writer is None:
            self.open(frame)
            if frame is not shown:
                self.notes.append(f"frames of {shown.shape[1]} x {shown.shape[0]} pixels are {self.size[0]} x "
                                  f"{self.size[1]} in the drawn video, whose sides must be even")
        if frame.shape[1::-1] != self.size:
            frame = cv2.resize(frame, self.size)
        self.writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self.written += 1

    def open(self, frame):
        """Makes the file for frames like this one."""
        self.size = frame.shape[1::-1]
        self.writer = cv2.VideoWriter(self.path, cv2.VideoWriter_fourcc(*"mp4v"), self.rate, self.size)
        if not self.writer.isOpened():
            raise EnvironmentFault(f"'{self.path}' cannot be written: this OpenCV has no encoder of MPEG-4 for "
                                   f"{self.size[0]} x {self.size[1]} pixels, or the folder cannot be written; give "
                                   "the frames as pictures")

    def close(self):
        """Ends the file and looks into it."""
        if self.writer is None:
            return
        self.writer.release()
        if self.written and not self.whole():
            raise EnvironmentFault(f"'{self.path}' does not hold all {self.written} frames that were drawn; is the "
                                   "disk full? Give the frames as pictures")

    def whole(self):
        """Whether the file opens and has all frames in their size."""
        video = cv2.VideoCapture(self.path)
        video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        frame, count = video.read()[1], round(video.get(cv2.CAP_PROP_FRAME_COUNT))
        video.release()
        return frame is not None and frame.shape[1::-1] == self.size and count == self.written


def even_sides(frame):
    """frame with its last column and row doubled where their number is odd, which the encoder would cut off."""
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        return cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return frame


def drawing_path(source, folder):
    """Where the drawn video of a source goes."""
    name = f"camera{source}" if source.isdigit() else os.path.splitext(os.path.basename(source))[0]
    return os.path.join(folder, f"{name}.mp4")
