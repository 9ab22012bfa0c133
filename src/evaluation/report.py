"""Pictures with boxes: a training batch, and ground truth beside predictions."""
from __future__ import annotations

import os

import numpy as np

from src.boxes import decode
from src.data.images import read_image
from src.drawing import draw_boxes, to_tile
from src.errors import DataError
from src.evaluation.mistakes import as_objects
from src.evaluation.plots import plot_pictures

MAX_IMAGES, MAX_BATCH_IMAGES = 12, 8  # images of an evaluation and of a training batch that are drawn


def draw_training_batch(path: str, batch: list[np.ndarray], *, anchors: np.ndarray, classes: list[str]) -> None:
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


def draw_predictions(path: str, *, truth: dict, table: np.ndarray, image_dir: str, draw_score: float) -> bool:
    """Draws the first images with their true boxes and beside them with the boxes that were found.

    truth: COCO dict; table: of collect_detections; draw_score: least score of the boxes that are drawn. Returns whether
    the file was written; without an image that can be read it is not.
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
    best = f", best {scores.max():.2g}" if len(scores) and not drawn else ""
    return f"prediction above {draw_score:g}: {drawn}{best}"


def boxes_of(truth: dict, image: dict) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [N, 4] x1, y1, x2, y2 as fractions and labels [N] of one image of a COCO dict."""
    labels = {category["id"]: label for label, category in enumerate(truth["categories"], 1)}
    boxes = [annotation for annotation in truth["annotations"] if annotation["image_id"] == image["id"]]
    objects = as_objects(boxes, [1.0] * len(boxes), image=image, labels=labels)
    return objects.boxes, objects.labels
