"""Pictures of a run: sizes of their tiles, and what their titles say."""

import cv2
import numpy as np
import pytest
from PIL import Image

from src.boxes import encode
from src.drawing import class_color
from src.evaluation import report


@pytest.fixture
def drawn(monkeypatch):
    """A dict that takes the tiles and titles that would be drawn."""
    taken = {}

    def take(tiles, *, path, titles=()):
        taken.update(tiles=tiles, titles=titles)
        return True
    monkeypatch.setattr(report, "plot_pictures", take)
    return taken


@pytest.mark.parametrize("scores, title", [
    ([0.9, 0.4, 0.08], "prediction above 0.4: 2"),
    ([0.05, 0.08], "prediction above 0.4: 0, best 0.08"),
    ([0.0012], "prediction above 0.4: 0, best 0.0012"),
    ([], "prediction above 0.4: 0"),
])
def test_title_of_predictions(scores, title):
    assert report.prediction_title(np.array(scores, np.float32), 0.4) == title


def test_boxes_of_a_small_batch_are_drawn_on_enlarged_images(drawn):
    anchors = np.array([[0.5, 0.5, 0.2, 0.2], [0.4, 0.5, 0.2, 0.3]], np.float32)
    box = np.array([[0.4, 0.4, 0.6, 0.6]] * 2, np.float32)
    batch = np.full((1, 96, 96, 3), 90, np.uint8), np.array([[2, 2]]), encode(box, anchors)[None]
    report.draw_training_batch("", batch, anchors=anchors, classes=["cat", "dog"])
    tile, = drawn["tiles"]
    assert tile.shape == (300, 300, 3)
    assert tuple(tile[180, 150]) == class_color(2) and (tile[150, 150] == 90).all()
    rows, columns = np.nonzero((tile != 90).any(axis=2))
    # the box from 120 to 180 and its name above, with the dark line around them
    assert (columns.min(), columns.max(), rows.max()) == (118, 182, 182) and 95 < rows.min() < 110


def test_predictions_beside_the_truth(drawn, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((50, 100, 3), 90, np.uint8))
    truth = {"images": [{"id": 5, "file_name": name, "width": 100, "height": 50} for name in ("a.png", "gone.png")],
             "annotations": [{"image_id": 5, "category_id": 7, "bbox": [10, 10, 20, 20]}],
             "categories": [{"id": 7, "name": "cat"}]}
    table = np.array([[0, 0.1, 0.2, 0.3, 0.6, 0.3, 1], [0, 0.1, 0.2, 0.3, 0.6, 0.2, 1]], np.float32)
    arguments = {"truth": truth, "table": table, "image_dir": str(tmp_path)}
    assert report.draw_predictions("", **arguments, draw_score=0.25)
    assert drawn["titles"] == ["ground truth: 1", "prediction above 0.25: 1"]
    assert [tile.shape for tile in drawn["tiles"]] == [(300, 600, 3)] * 2
    report.draw_predictions("", **arguments, draw_score=0.5)
    assert drawn["titles"][1] == "prediction above 0.5: 0, best 0.3"
    assert (drawn["tiles"][1] == 90).all()


@pytest.mark.parametrize("height, width, left_is_red", [(50, 100, True), (100, 50, False)])
def test_predictions_are_drawn_on_the_frame_that_was_annotated(drawn, tmp_path, height, width, left_is_red):
    pixels = np.zeros((50, 100, 3), np.uint8)
    pixels[:, :50] = 255, 0, 0
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned: red on top
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    truth = {"images": [{"id": 5, "file_name": "a.jpg", "width": width, "height": height}], "annotations": [],
             "categories": [{"id": 7, "name": "cat"}]}
    report.draw_predictions("", truth=truth, table=np.zeros((0, 7)), image_dir=str(tmp_path), draw_score=0.5)
    tile = drawn["tiles"][0]
    assert (tile.shape[1] > tile.shape[0]) == left_is_red
    corner = tile[-5, 5] if left_is_red else tile[5, -5]  # of the red half, and not of the other frame's
    assert corner[0] > 200 and corner[1] < 60
