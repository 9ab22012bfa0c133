"""What a checkpoint or an exported file says about itself."""
from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypedDict

import mindspore as ms

from src.files import read_json, write_atomic
from src.models.ssd import Model, build_model
from src.version import __version__
from src.weights import checkpoint

FORMATS = {".mindir": "MINDIR", ".onnx": "ONNX"}
THRESHOLDS = ("min_score", "nms_threshold", "nms_candidates", "max_boxes")
RESIZES = {"bilinear": "resized bilinearly (OpenCV)", "antialias": "resized bilinearly with antialiasing (Pillow)",
           "tensorflow": "resized bilinearly from the corner (TensorFlow)"}
DETECTIONS, RAW = ("boxes", "scores", "labels", "count"), ("logits", "deltas")
FIXED_FIELDS = ("model", "image_size", "width", "classes")  # what the weights are made for
ADJUSTABLE_FIELDS = (*THRESHOLDS, "resize")  # what a user may choose at each evaluation
SHOWN_FIELDS = ("draw_score", "class_scores")  # which boxes are worth showing; not all files say it


class Description(TypedDict, total=False):
    """What every file of weights or graphs of this repository says about itself, as JSON; some files say more."""
    model: str            # name in models.ssd.BUILDERS
    image_size: int       # side of the square that the network takes, pixels
    width: float          # multiplier of the channels
    anchor_shapes: list   # per level [w, h] of the anchors of a cell, pixels; [] or absent: the published ones
    clip_anchors: bool    # whether anchors are clipped to the image; absent: as the model's source has it
    clip_before_nms: bool  # whether NMS compares boxes clipped to the image; absent: the same
    classes: list[str]    # names without background: label l is classes[l - 1]
    mean: list[float]     # of RGB, 0..255; the graph subtracts it
    std: list[float]      # the graph divides by it
    score: str            # "sigmoid" or "softmax"
    min_score: float      # a detection has a higher score
    nms_threshold: float  # IoU above which the weaker of two boxes of a class goes
    nms_candidates: int   # (anchor, class) pairs per image that reach NMS
    max_boxes: int        # detections per image
    resize: str           # a key of RESIZES
    draw_score: float     # least score of a box that is worth showing
    class_scores: dict[str, float]  # the same of classes with one of their own
    mindspore: str        # version that wrote the file
    version: str          # of this repository; older files lack it


def describe(model: Model, classes: Sequence[str], thresholds: Mapping, **more: object) -> Description:
    """The Description of a model. thresholds: with ADJUSTABLE_FIELDS; more: what else the file says."""
    return {"model": model.name, "image_size": model.image_size, "width": model.width,
            "anchor_shapes": model.anchor_shapes, "clip_anchors": model.clip_anchors,
            "clip_before_nms": model.clip_before_nms, "classes": list(classes), "mean": list(model.mean),
            "std": list(model.std), "score": model.score,
            **{name: thresholds[name] for name in ADJUSTABLE_FIELDS},
            **{name: thresholds[name] for name in SHOWN_FIELDS if name in thresholds},
            "mindspore": ms.__version__, "version": __version__, **more}


def build_described(meta: Mapping) -> Model:
    """The Model of a Description, or of a part of one with model and classes, with initial weights."""
    model = build_model(meta["model"], len(meta["classes"]) + 1, image_size=meta.get("image_size", 0),
                        width=meta.get("width", 1.0), anchor_shapes=meta.get("anchor_shapes", ()),
                        clip_anchors=meta.get("clip_anchors", True))
    said = {name: meta[name] for name in ("score", "clip_before_nms") if name in meta}
    return replace(model, **said, **{name: tuple(meta[name]) for name in ("mean", "std") if name in meta})


def sidecar_of(path: str) -> str:
    """The .json beside an exported file."""
    return f"{os.path.splitext(path)[0]}.json"


def shown_fields(meta: Mapping, defaults: Mapping, *, overrides: Mapping) -> dict:
    """SHOWN_FIELDS for a file that says meta. A draw_score that the user typed (overrides) counts for all classes."""
    if "draw_score" in overrides:
        return {"draw_score": overrides["draw_score"], "class_scores": {}}
    return {name: meta.get(name, default) for name, default in
            (("draw_score", defaults.get("draw_score", 0.0)), ("class_scores", {}))}


def remember(path: str, facts: dict) -> None:
    """Adds facts to what a checkpoint of ours or an exported file says of itself. Raises DataError for other files,
    EnvironmentFault where it cannot be written."""
    if os.path.splitext(path)[1] not in FORMATS:
        checkpoint.amend(path, facts)
        return
    meta = {**read_json(sidecar_of(path)), **facts}
    write_atomic(sidecar_of(path), f"{json.dumps(meta, indent=1)}\n".encode())


def detector_arguments(meta: Mapping) -> dict:
    """The keyword arguments of a Detector from what a file says about itself; nms_candidates is its topk_candidates."""
    return {"topk_candidates" if name == "nms_candidates" else name: meta[name] for name in THRESHOLDS}
