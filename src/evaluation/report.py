"""Pictures of a run: a training batch; of an evaluation curves, bars, and ground truth beside prediction."""
from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from src.boxes import decode
from src.data.images import read_image
from src.drawing import draw_boxes, to_tile
from src.errors import DataError
from src.evaluation.plots import plot_per_class, plot_pictures, plot_pr_curves

MAX_IMAGES, MAX_BATCH_IMAGES = 12, 8  # images of an evaluation and of a training batch that are drawn


def draw_training_batch(path: str, batch: Sequence[np.ndarray], *, anchors: np.ndarray, classes: Sequence[str]) -> None:
    """Draws images of an augmented batch with the boxes that its targets encode: shows crops, colours and matching.

    batch: images [B, H, W, 3], labels [B, A], targets [B, A, 4] and more, as TrainLoader gives them; anchors [A, 4].
    """
    tiles = []
    for image, label, target in zip(*(part[:MAX_BATCH_IMAGES] for part in batch[:3])):
        positive = np.flatnonzero(label)
        boxes, labels = decode(target[positive], anchors[positive]), label[positive]
        # all anchors of one object decode to the same box
        _, first = np.unique(np.column_stack([boxes.round(3), labels]), axis=0, return_index=True)
        tiles.append(draw_boxes(to_tile(image), boxes[first], labels[first], classes=classes))
    plot_pictures(tiles, path=path)


def draw_report(folder: str, *, truth: dict, table: np.ndarray, detections: list[dict], metrics: dict, image_dir: str,
                draw_score: float, engine: str) -> None:
    """Writes pr_curves.png, per_class.png and predictions.png of an evaluation into folder.

    truth: COCO dict. table [n, 7], detections: the same boxes, as collect_detections and to_coco give them. metrics: of
    compute_metrics. draw_score: boxes of a lower score are not drawn.
    """
    plot_pr_curves(truth, detections, path=os.path.join(folder, "pr_curves.png"), engine=engine)
    plot_per_class(metrics, path=os.path.join(folder, "per_class.png"))
    draw_predictions(os.path.join(folder, "predictions.png"), truth=truth, table=table, image_dir=image_dir,
                     draw_score=draw_score)


def draw_predictions(path: str, *, truth: dict, table: np.ndarray, image_dir: str, draw_score: float) -> bool:
    """Draws the first images with their true boxes and beside them with the boxes that were found.

    Arguments as of draw_report. Returns whether the file was written; without an image that can be read it is not.
    """
    classes = [category["name"] for category in truth["categories"]]
    pictures, titles = [], []
    for row, image in enumerate(truth["images"][:MAX_IMAGES]):
        try:
            # read in the orientation that the boxes were annotated in
            pixels = read_image(os.path.join(image_dir, image["file_name"]), image["height"], image["width"])
        except DataError:
            continue  # images may have gone since they were converted; the numbers do not need them
        tile = to_tile(pixels)
        true_boxes, true_labels = boxes_of(truth, image)
        found = table[table[:, 0] == row]
        boxes, scores, labels = found[:, 1:5], found[:, 5], found[:, 6].astype(int)
        shown = scores >= draw_score
        pictures += [draw_boxes(tile, true_boxes, true_labels, classes=classes),
                     draw_boxes(tile, boxes[shown], labels[shown], scores=scores[shown], classes=classes)]
        titles += [f"ground truth: {len(true_boxes)}", prediction_title(scores, draw_score)]
    return bool(pictures) and plot_pictures(pictures, path=path, titles=titles)


def prediction_title(scores: np.ndarray, draw_score: float) -> str:
    """How many of the scores [N] of an image are drawn; where none is, also the best score."""
    drawn = np.count_nonzero(scores >= draw_score)
    title = f"prediction above {draw_score:g}: {drawn}"
    if drawn or len(scores) == 0:
        return title
    return f"{title}, best {scores.max():.2g}"


def boxes_of(truth: dict, image: dict) -> tuple[np.ndarray, list[int]]:
    """Boxes [N, 4] x1, y1, x2, y2 as fractions and labels [N] of one image of a COCO dict."""
    labels = {category["id"]: label for label, category in enumerate(truth["categories"], 1)}
    annotations = [annotation for annotation in truth["annotations"] if annotation["image_id"] == image["id"]]
    boxes = np.array([annotation["bbox"] for annotation in annotations]).reshape(-1, 4)  # x, y, w, h in pixels
    boxes[:, 2:] += boxes[:, :2]
    size = [image["width"], image["height"]] * 2
    return boxes / size, [labels[annotation["category_id"]] for annotation in annotations]
