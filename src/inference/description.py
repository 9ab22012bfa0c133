"""What a checkpoint or an exported file says about itself, and where it says so."""
import os

import mindspore as ms

FORMATS = {".mindir": "MINDIR", ".onnx": "ONNX"}
THRESHOLDS = ("min_score", "nms_threshold", "nms_candidates", "max_boxes")
RESIZES = {"bilinear": "resized bilinearly (OpenCV)", "antialias": "resized bilinearly with antialiasing (Pillow)"}
DETECTIONS, RAW = ("boxes", "scores", "labels", "count"), ("logits", "deltas")
FIXED = ("model", "image_size", "width", "classes")  # what the weights are made for
FREE = (*THRESHOLDS, "resize")  # what whoever evaluates may choose


def sidecar_of(path):
    """The .json beside an exported file."""
    return f"{os.path.splitext(path)[0]}.json"


def detector_arguments(meta: dict) -> dict:
    """The keyword arguments of a Detector from what a file says of itself; nms_candidates is its topk_candidates."""
    return {"topk_candidates" if name == "nms_candidates" else name: meta[name] for name in THRESHOLDS}


def describe(model, classes, thresholds, **more):
    """What a checkpoint or an exported file says about itself, JSON-able. thresholds: a dict with FREE."""
    return {"model": model.name, "image_size": model.image_size, "width": model.width, "classes": list(classes),
            "mean": list(model.mean), "std": list(model.std), "score": model.score,
            **{name: thresholds[name] for name in FREE}, "mindspore": ms.__version__, **more}
