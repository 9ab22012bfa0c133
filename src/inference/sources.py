"""Where pictures to predict on come from: images and videos in folders, lists and patterns, streams, a camera."""
from __future__ import annotations

import glob
import itertools
import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from src.classes import nearest
from src.data.image_bytes import BadImage
from src.data.images import IMAGE_ENDINGS, bad_image_message, check_image, load_in_threads
from src.errors import DataError
from src.files import names_in
from src.inference.videos import VIDEO_ENDINGS, Camera, VideoReader, is_camera, is_url, open_video, plain_url

ENDINGS = (*IMAGE_ENDINGS, *VIDEO_ENDINGS)
IMAGES_AT_ONCE = 4  # that are decoded, each by a thread
LIST_FORM = "a list has the path of a picture or video in each line"


class Picture(NamedTuple):
    """One picture of a source."""
    pixels: np.ndarray  # [H, W, 3] uint8 RGB, turned as a viewer shows it
    row: dict           # how its row in predictions.json begins: file; of a video also frame, from 0, and time, seconds
    video: VideoReader | Camera | None = None  # where it comes from, None for an image file


class Source:
    """The pictures of image files, videos, a stream or a camera, in order.

    name: as typed. paths: of the files, or one address or number. root: folder that holds all files, "" without any.
    video: the reader of a single video. total: pictures, as far as known, else None. broken: what could not be read so
    far, in words.
    """

    def __init__(self, name: str, paths: list[str], root: str = "", *, video: VideoReader | Camera | None = None):
        self.name, self.paths, self.root, self.video, self.broken = plain_url(name), paths, root, video, []
        self.live = video is not None and video.live
        has_video = any(path.lower().endswith(VIDEO_ENDINGS) for path in paths)
        self.total = (video.count or None) if video else None if has_video else len(paths)
        self.unit = "frame" if video else "picture"

    def __iter__(self) -> Iterator[Picture]:
        for are_images, run in itertools.groupby(self.paths, self.is_image):
            paths = list(run)
            yield from self.read_images(paths) if are_images else self.read_videos(paths)

    def is_image(self, path: str) -> bool:
        """Whether a path is that of an image file, by its name."""
        return self.video is None and path.lower().endswith(IMAGE_ENDINGS)

    def read_images(self, paths: list[str]) -> Iterator[Picture]:
        """The pictures of image files."""
        for path, pixels in zip(paths, load_in_threads(load_pixels, paths, IMAGES_AT_ONCE)):
            if isinstance(pixels, BadImage):
                self.leave_out(bad_image_message(path, pixels))
            else:
                yield Picture(pixels, {"file": path})

    def read_videos(self, paths: list[str]) -> Iterator[Picture]:
        """The frames of videos; of a damaged one those that can be read."""
        for path in paths:
            count = 0
            try:
                video = self.video or open_video(path)
                for pixels, second in video:
                    yield Picture(pixels, {"file": plain_url(path), "frame": count, "time": round(second, 6)}, video)
                    count += 1
            except DataError as error:
                self.leave_out(str(error), "damaged" if count else "left out")

    def leave_out(self, reason: str, word: str = "left out") -> None:
        """Keeps in mind and says what is wrong with a file."""
        self.broken.append(reason)
        print(f"{word}: {reason}", flush=True)


def load_pixels(path: str, *, capture: bool) -> np.ndarray | BadImage:
    """An image file as [H, W, 3] uint8 RGB, or why it cannot be used. capture: as of check_image()."""
    try:
        return check_image(path, capture=capture).pixels
    except BadImage as error:
        return error


def open_source(source: str, skip: str = "") -> Source:
    """The pictures of a source as typed. skip: the folder of results, left out where it lies in the source.

    Raises DataError where there are none.
    """
    skip = os.path.realpath(skip) if skip else ""
    if os.path.isdir(source):
        return Source(source, files_below(source, skip), source)
    if os.path.isfile(source) and source.lower().endswith(".txt"):
        return with_common_root(source, read_list(source))
    if not os.path.exists(source) and glob.has_magic(source) and not is_url(source):
        return with_common_root(source, files_like(source, skip))
    if is_camera(source) or is_url(source):
        return Source(source, [source], video=open_video(source))
    if not os.path.exists(source):
        raise DataError(f"--source '{source}' does not exist; {near_path(source)}give an image, a video, a folder, a "
                        "pattern, a list (.txt), a camera number or an address such as rtsp://HOST/PATH")
    if stat.S_ISFIFO(os.stat(source).st_mode):  # FFmpeg would wait for its other end
        raise DataError(f"--source '{source}' is a named pipe; give an image, a folder, a video or a camera number")
    is_image = source.lower().endswith(IMAGE_ENDINGS)
    return Source(source, [source], os.path.dirname(source) or ".", video=None if is_image else open_video(source))


def near_path(path: str) -> str:
    """"did you mean '...'? " with the name most like the first one of a path that does not exist, "" for none."""
    while (above := os.path.dirname(path.rstrip(os.sep))) and not os.path.isdir(above):
        path = above
    folder, name = os.path.split(path.rstrip(os.sep))
    near = nearest(name, sorted(names_in(folder or ".")))
    return f"did you mean '{os.path.join(folder, near)}'? " if near else ""


def inside(path: str, folder: str) -> bool:
    """Whether a real path lies in a real folder, or is it."""
    return os.path.commonpath([path, folder]) == folder


def files_below(folder: str, skip: str) -> list[str]:
    """Pictures and videos in a folder and the folders in it, hidden ones left out. Raises DataError for none."""
    paths, seen = [], {skip} - {os.path.realpath(folder)}
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link may lead back to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [os.path.join(place, name) for name in sorted(names) if is_taken(name)]
    if not paths:
        raise DataError(f"folder '{folder}' holds no pictures or videos ({', '.join(ENDINGS)})")
    return paths


def files_like(pattern: str, skip: str) -> list[str]:
    """Pictures and videos whose paths fit a pattern. Raises DataError for none."""
    above = os.path.realpath(os.path.dirname(re.split(r"[*?[]", pattern)[0]))  # the folder that holds all
    skipped = os.path.join(skip, "") if skip and not inside(above, skip) else "\0"  # no path begins with the latter
    found = {}
    for path in sorted(glob.glob(pattern, recursive=True)):
        real = os.path.realpath(path)
        if is_taken(path) and not real.startswith(skipped):
            found.setdefault(real, path)  # a link may lead back to a folder above
    if not found:
        raise DataError(f"no picture or video fits the pattern '{pattern}' ({', '.join(ENDINGS)})")
    return list(found.values())


def is_taken(path: str) -> bool:
    """Whether a folder's or pattern's file is a picture or video by its name; macOS puts ._a.jpg beside a.jpg."""
    return path.lower().endswith(ENDINGS) and not os.path.basename(path).startswith(".")


def read_list(path: str) -> list[str]:
    """The files that a text names, one a line, relative to its folder or else to this one. Raises DataError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            names = [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"list '{path}' cannot be read ({error}); {LIST_FORM}") from error
    if not names:
        raise DataError(f"list '{path}' is empty; {LIST_FORM}")
    beside = [os.path.join(os.path.dirname(path), name) for name in names]
    return list(dict.fromkeys(near if os.path.exists(near) else name for near, name in zip(beside, names)))


def with_common_root(name: str, paths: list[str]) -> Source:
    """A Source of files, whose root is the folder below which all of them lie."""
    return Source(name, paths, os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths]))

