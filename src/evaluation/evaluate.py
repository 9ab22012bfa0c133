"""Runs a Predictor over a validation split and measures what it finds."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from src.data.loader import EvalLoader
from src.errors import SSDError, smaller_batch
from src.machine.distributed import gather_rows
from src.metrics import COCO_NAMES, Evaluated, evaluate_boxes, voc_metrics
from src.progress import track

OVERFIT_GOAL = 0.95  # AP50


def collect_detections(predict: Callable, loader: EvalLoader, *, rank: int = 0, world: int = 1) -> np.ndarray:
    """What a Predictor finds, in all processes: [n, 7] of image row, x1, y1, x2, y2 (fractions), score, label."""
    tables = [np.zeros((0, 7), np.float32)]
    steps = -(-len(loader.rows) // loader.batch_size)
    with smaller_batch("eval_batch_size", loader.batch_size):
        for images, rows in track(loader, steps, "evaluating batches", quiet=rank > 0):
            boxes, scores, labels, count = predict(images)       # [B, K, 4] [B, K] [B, K] [B]
            found = np.arange(boxes.shape[1]) < count[:, None]   # [B, K]
            columns = np.repeat(rows, count), boxes[found], scores[found], labels[found]
            tables.append(np.column_stack(columns).astype(np.float32))
    return gather_rows(np.concatenate(tables), rank, world)


def to_coco(table: np.ndarray, ground_truth: dict) -> list[dict]:
    """The table of collect_detections as COCO results: image_id, category_id, bbox x, y, w, h in pixels, score.

    ground_truth: COCO dict with images in the order of the row numbers and categories in that of the labels.
    """
    results = []
    for row, x1, y1, x2, y2, score, label in table.tolist():
        image = ground_truth["images"][int(row)]
        width, height = image["width"], image["height"]
        results.append({"image_id": image["id"], "category_id": ground_truth["categories"][int(label) - 1]["id"],
                        "bbox": [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height], "score": score})
    return results


def first_images(ground_truth: dict, count: int) -> dict:
    """The COCO dict of the first `count` images only; of all images with 0."""
    images = ground_truth["images"][:count or None]
    ids = {image["id"] for image in images}
    annotations = [annotation for annotation in ground_truth["annotations"] if annotation["image_id"] in ids]
    return {**ground_truth, "images": images, "annotations": annotations}


def compute_metrics(ground_truth: dict, detections: list[dict], *, dataset: str,
                    engine: str = "hotcoco") -> tuple[dict, Evaluated]:
    """Metrics by the protocol of the data set, and what the engine measured for them. Arguments: of evaluate_boxes.

    dataset: voc has the metrics of voc_metrics, and of COCO's AP, AP50 and AP75; all others have COCO's.
    """
    evaluated = evaluate_boxes(ground_truth, detections, engine)
    coco = evaluated.metrics()
    if dataset != "voc":
        return coco, evaluated
    voc = voc_metrics(ground_truth, detections)
    per_class = {name: {**coco["per_class"][name], **entry} for name, entry in voc["per_class"].items()}
    return {**voc, **{name: coco[name] for name in COCO_NAMES[:3]}, "per_class": per_class}, evaluated


def has_memorised(metrics: dict, *, images: int, steps_done: int, last: bool, say: Callable[[str], None]) -> bool:
    """Whether a self-test (--overfit) has memorised its images. Raises SSDError when its last step ends without."""
    value = metrics["AP50"]
    result = f"overfit: AP50 {value:.4f} on {images} images after {steps_done} steps"
    if value > OVERFIT_GOAL:
        say(f"{result}, passed")
    elif last:
        raise SSDError(f"{result}, wanted above {OVERFIT_GOAL}; look at train_batch.png (are the boxes right?) and "
                       "eval/predictions.png, try fewer images, a larger --epoch_size or another --lr; with a loss "
                       "near zero the missing boxes are too small for --image_size or overlap by more than "
                       "--nms_threshold")
    return value > OVERFIT_GOAL
