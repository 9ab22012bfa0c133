"""The door for Python: a file of weights or an exported file as a function of pictures, with results to look at.

    from src.inference.api import load

    model = load("runs/mine/ckpt/best.ckpt")
    found = model("picture.jpg")
"""
from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from src.config import model_options, read_options
from src.data.images import read_image
from src.drawing import draw_boxes, encode_png, save_png
from src.errors import DataError
from src.inference.found import Detections, read_scores, shown_scores
from src.inference.sources import near_path
from src.inference.tiles import WHOLE, read_tiles
from src.machine import process

if TYPE_CHECKING:
    from src.inference.predictor import Predictor


@dataclass(frozen=True, eq=False, repr=False)
class Found:
    """What a model found in one picture, the best score first. In a notebook it shows the picture with its boxes."""
    image: np.ndarray   # [H, W, 3] uint8 RGB
    boxes: np.ndarray   # [N, 4] float32, x1, y1, x2, y2 in pixels of the image
    scores: np.ndarray  # [N] float32, 0..1
    labels: np.ndarray  # [N] int32; label l is classes[l - 1]
    names: list[str]    # N, the class of each box
    classes: list[str]  # all that the model knows, without background

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        counts = ", ".join(f"{count} {name}" for name, count in Counter(self.names).most_common())
        return f"{len(self)} object(s) in {width} x {height} pixels{': ' if counts else ''}{counts}"

    def draw(self) -> np.ndarray:
        """The picture with boxes, names and scores, [H, W, 3] uint8 RGB."""
        height, width = self.image.shape[:2]
        return draw_boxes(self.image, self.boxes / (width, height, width, height), self.labels, scores=self.scores,
                          classes=self.classes)

    def save(self, path: str) -> None:
        """Writes the drawing as a PNG. Raises EnvironmentFault."""
        save_png(path, self.draw())

    def _repr_png_(self) -> bytes:
        return encode_png(self.draw())


class LoadedModel:
    """A function of a picture. classes: the names it knows; meta: what its file says of itself; min_shown: least score
    of what it returns, one for all classes or [C]; windows: parts of a picture that it looks at, as of tiles.py."""

    def __init__(self, predict: Predictor, path: str, *, min_shown: float | np.ndarray, windows: np.ndarray = WHOLE):
        self.predict, self.path, self.min_shown, self.windows = predict, path, min_shown, windows
        self.classes, self.meta = list(predict.classes), predict.meta

    def __repr__(self) -> str:
        return (f"{self.meta['model']} of '{self.path}': {self.meta['image_size']} pixels, "
                f"{len(self.classes)} class(es): {', '.join(self.classes)[:100]}")

    def __call__(self, image: str | os.PathLike | np.ndarray) -> Found:
        """What is in a picture, a path or an array [H, W, 3] uint8 RGB. Raises DataError."""
        pixels = read_picture(os.fspath(image)) if isinstance(image, (str, os.PathLike)) else check_pixels(image)
        found = Detections(*self.predict.detect(pixels, self.windows))
        boxes, scores, labels = found.from_scores(np.broadcast_to(self.min_shown, len(self.classes)))
        height, width = pixels.shape[:2]
        boxes = boxes * np.array([width, height, width, height], np.float32)
        return Found(pixels, boxes, scores, labels, [self.classes[label - 1] for label in labels], self.classes)


def read_picture(path: str) -> np.ndarray:
    """The pixels of an image file. Raises DataError."""
    if not os.path.exists(path):
        raise DataError(f"picture '{path}' does not exist; {near_path(path)}give the path of an image, or an array of "
                        "pixels")
    return read_image(path)


def check_pixels(image: object) -> np.ndarray:
    """A picture as an array, such as one of numpy or Pillow -> [H, W, 3] uint8. Raises DataError for another kind."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise DataError(f"a picture is an array [H, W, 3] of uint8 (RGB) or the path of a file; this is "
                        f"{list(pixels.shape)} of {pixels.dtype}")
    return pixels


def load(path: str, **typed: object) -> LoadedModel:
    """The detector in a .ckpt or other weights, a .mindir or an .onnx, ready for pictures.

    typed: options of predict.py by their names, such as device_target="GPU", min_score=0.05, draw_score=0.3 (the least
    score of what is returned), tiles="2x2", or model and classes for weights that do not say them. Raises OptionError,
    DataError, EnvironmentFault. MindSpore is prepared and imported here unless that was done before.
    """
    arguments = [f"--{name}={value}" for name, value in {"checkpoint_file_path": os.fspath(path), **typed}.items()]
    options = read_options(arguments, "predict.py", strict=True)
    if "mindspore" not in sys.modules:
        process.prepare(options.device_target)
    from src.inference.predictor import load_predictor
    from src.machine import compat, distributed

    if not compat.is_running(options.device_target):  # of another model, or by code of the user
        distributed.start(options.device_target, options.device_id)
    # without compile_cache: MindSpore would put the graphs of all models of this process into one folder
    predict = load_predictor(options.checkpoint_file_path, batch_size=1, **model_options(options))
    predict.meta.update(read_scores(options.score_threshold, predict.classes, predict.meta))
    scores = shown_scores(predict.classes, options.only_classes, predict.meta)
    return LoadedModel(predict, options.checkpoint_file_path, min_shown=scores, windows=read_tiles(options.tiles))
