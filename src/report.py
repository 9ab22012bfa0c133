"""Pictures of an evaluation: curves, bars by class, and ground truth beside prediction."""
import os

import numpy as np

from src.data.images import read_image
from src.errors import DataError
from src.visualize import mosaic, plot_per_class, plot_pr_curves, save_png, side_by_side

MOST_PICTURES = 12


def draw_report(folder, metrics, detections, truth, table, split, classes, least_score, engine):
    """Writes pr_curves.png, per_class.png and predictions.png into folder.

    truth: COCO dict; table: [n, 7] rows of evaluate.collect; split: data.mindrecord.Split; least_score: of drawn boxes.
    """
    plot_pr_curves(truth, detections, os.path.join(folder, "pr_curves.png"), engine)
    plot_per_class(metrics, os.path.join(folder, "per_class.png"))
    tiles = []
    for row, image in enumerate(truth["images"][:MOST_PICTURES]):
        try:
            pixels = read_image(os.path.join(split.image_dir, image["file_name"]))
        except DataError:
            continue  # the pictures may have gone since they were converted; the numbers do not need them
        shown = table[(table[:, 0] == row) & (table[:, 5] >= least_score)]
        found = {"boxes": shown[:, 1:5], "labels": shown[:, 6].astype(int), "scores": shown[:, 5]}
        tiles.append(side_by_side(pixels, true_boxes(truth, image), found, classes))
    if tiles:
        save_png(os.path.join(folder, "predictions.png"), mosaic(tiles, columns=3, tile=480))


def true_boxes(truth, image):
    """Boxes [N, 4] as fractions and labels [N] of one image of a COCO dict, as a dict."""
    label = {category["id"]: index + 1 for index, category in enumerate(truth["categories"])}
    mine = [one for one in truth["annotations"] if one["image_id"] == image["id"]]
    boxes = np.array([one["bbox"] for one in mine], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    frame = np.array([image["width"], image["height"]] * 2, np.float32)
    return {"boxes": boxes / frame, "labels": np.array([label[one["category_id"]] for one in mine], int)}
