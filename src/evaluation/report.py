"""Pictures of a run: a training batch, and of an evaluation curves, bars by class, ground truth beside prediction."""
import os

import numpy as np

from src.boxes import decode
from src.data.images import read_image
from src.drawing import draw_boxes, to_tile
from src.errors import DataError
from src.evaluation.plots import plot_per_class, plot_pictures, plot_pr_curves

MOST_PICTURES, MOST_OF_A_BATCH = 12, 8


def draw_training_batch(path, batch, anchors, classes):
    """Writes pictures of an augmented batch with the boxes its targets stand for: shows crops, colours and matching.

    batch: images, labels, targets and more, as of TrainLoader; anchors [A, 4].
    """
    tiles = []
    for image, label, target in list(zip(*batch[:3]))[:MOST_OF_A_BATCH]:
        positive = np.flatnonzero(label)
        found = decode(target[positive], anchors[positive])
        # all anchors of one object decode to the same box
        _, first = np.unique(np.column_stack([found.round(3), label[positive]]), axis=0, return_index=True)
        tiles.append(draw_boxes(to_tile(image), found[first], label[positive][first], classes=classes))
    plot_pictures(tiles, path)


def draw_report(folder, metrics, detections, truth, table, split, classes, least_score, engine):
    """Writes pr_curves.png, per_class.png and predictions.png into folder.

    truth: COCO dict; table: [n, 7] rows of evaluate.collect; split: data.mindrecord.Split; least_score: of drawn boxes.
    """
    plot_pr_curves(truth, detections, os.path.join(folder, "pr_curves.png"), engine)
    plot_per_class(metrics, os.path.join(folder, "per_class.png"))
    draw_predictions(os.path.join(folder, "predictions.png"), truth, table, split, classes, least_score)


def draw_predictions(path, truth, table, split, classes, least_score):
    """Writes the first images with their true boxes and beside them with those that were found, arguments as above.

    Returns whether there was anything to draw, and it was drawn.
    """
    pictures, titles = [], []
    for row, image in enumerate(truth["images"][:MOST_PICTURES]):
        try:
            file = os.path.join(split.image_dir, image["file_name"])
            pixels = to_tile(read_image(file, image["height"], image["width"]))  # the frame the boxes were drawn on
        except DataError:
            continue  # the pictures may have gone since they were converted; the numbers do not need them
        boxes, labels = true_boxes(truth, image)
        found = table[table[:, 0] == row]
        shown = found[found[:, 5] >= least_score]
        pictures += [draw_boxes(pixels, boxes, labels, classes=classes),
                     draw_boxes(pixels, shown[:, 1:5], shown[:, 6].astype(int), scores=shown[:, 5], classes=classes)]
        titles += [f"ground truth: {len(boxes)}", prediction_title(found[:, 5], least_score)]
    return bool(pictures) and plot_pictures(pictures, path, titles=titles) is not False


def prediction_title(scores, least_score):
    """How many of the scores [N] of an image are drawn, and where none is, how near the best one came."""
    drawn = np.count_nonzero(scores >= least_score)
    best = "" if drawn or not len(scores) else f", best {scores.max():.2g}"
    return f"prediction above {least_score:g}: {drawn}{best}"


def true_boxes(truth, image):
    """Boxes [N, 4] as fractions and labels [N] of one image of a COCO dict."""
    ids = [category["id"] for category in truth["categories"]]
    mine = [one for one in truth["annotations"] if one["image_id"] == image["id"]]
    boxes = np.array([one["bbox"] for one in mine]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes / ([image["width"], image["height"]] * 2), [ids.index(one["category_id"]) + 1 for one in mine]
