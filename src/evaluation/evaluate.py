"""Runs a Predictor over a validation split and turns its boxes into the COCO result format."""
import numpy as np

from src.errors import SSDError, smaller_batch
from src.machine.distributed import gather_rows
from src.metrics import coco_metrics, voc_metrics
from src.progress import track

OVERFIT_GOAL = 0.95  # AP50


def collect(predict, loader, rank=0, world=1, quiet=False):
    """All detections of all processes: [n, 7] float32 of row, x1, y1, x2, y2 (fractions), score, label."""
    tables = [np.zeros((0, 7), np.float32)]
    steps = -(-len(loader.rows) // loader.batch_size)
    with smaller_batch("eval_batch_size", loader.batch_size):
        for images, rows in track(loader, steps, "evaluating", quiet or rank > 0):
            boxes, scores, labels, count = predict(images)
            found = np.arange(boxes.shape[1]) < count[:, None]
            owner = np.broadcast_to(rows[:, None], found.shape)[found]
            tables.append(np.column_stack([owner, boxes[found], scores[found], labels[found]]).astype(np.float32))
    return gather_rows(np.concatenate(tables), rank, world)


def to_coco(table, ground_truth):
    """Rows of `collect` -> COCO results: image_id, category_id, bbox x, y, w, h in pixels of the original image, score.

    ground_truth: COCO dict with images in the order of the row numbers and categories in that of the labels.
    """
    results = []
    for row, x1, y1, x2, y2, score, label in table.tolist():
        image = ground_truth["images"][int(row)]
        width, height = image["width"], image["height"]
        results.append({"image_id": image["id"], "category_id": ground_truth["categories"][int(label) - 1]["id"],
                        "bbox": [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height], "score": score})
    return results


def first_images(ground_truth, count):
    """The COCO dict of the first `count` images only; all of them with 0."""
    images = ground_truth["images"][:count or None]
    ids = {image["id"] for image in images}
    annotations = [one for one in ground_truth["annotations"] if one["image_id"] in ids]
    return {**ground_truth, "images": images, "annotations": annotations}


def score(table, ground_truth, dataset, engine="hotcoco"):
    """Metrics of the rows of `collect` by the protocol of the data set, and the rows as COCO results."""
    detections = to_coco(table, ground_truth)
    voc = dataset == "voc"
    return voc_metrics(ground_truth, detections) if voc else coco_metrics(ground_truth, detections, engine), detections


def learnt_by_heart(metrics, images, steps_done, *, last, say) -> bool:
    """Whether the images of the self-test are known by heart. Raises SSDError when its last step ends without."""
    value = metrics.get("AP50", metrics.get("mAP_area"))
    if value > OVERFIT_GOAL:
        say(f"overfit: AP50 {value:.4f} on {images} images after {steps_done} steps, passed")
    elif last:
        raise SSDError(f"overfit: AP50 {value:.4f} on {images} images after {steps_done} steps, wanted above "
                       f"{OVERFIT_GOAL}; look at train_batch.png (are the boxes right?) and eval/predictions.png, "
                       "try fewer images, a larger --epoch_size or another --lr; with a loss near zero the "
                       "missing boxes are too small for --image_size or overlap by more than --nms_threshold")
    return value > OVERFIT_GOAL
