"""Drawings and plots: sizes, what stays untouched, and that every plot comes out whole."""
import itertools
import os

import cv2
import numpy as np
import pytest
from matplotlib.axes import Axes

from src.drawing import choose_plates, class_color, draw_boxes, free_place, label_texts, save_png, shared_areas, to_tile
from src.errors import EnvironmentFault
from src.evaluation import plots
from src.evaluation.plots import CELL, GAP, lay_out, plot_history, plot_per_class, plot_pictures, plot_pr_curves
from src.lettering import fit_text, font_file
from src.metrics import evaluate_boxes, voc_metrics

GREY = np.full((120, 160, 3), 128, np.uint8)


def read(path):
    """A PNG as RGB."""
    return cv2.imread(str(path))[..., ::-1]


def test_colors_are_fixed_and_distinct():
    colors = np.array([class_color(label) for label in range(1, 81)], int)
    assert class_color(1) == (230, 25, 75)
    assert len(np.unique(colors, axis=0)) == 80
    near = [np.abs(one - other).sum() for one, other in itertools.combinations(colors[:20], 2)]
    assert min(near) > 30


def test_box_lies_on_its_pixels_and_the_image_is_not_changed():
    before = GREY.copy()
    drawn = draw_boxes(GREY, [[0.25, 0.5, 0.75, 0.9]], [1], classes=["cat"])
    assert (GREY == before).all()
    for row, column in ((60, 100), (108, 80), (80, 40), (80, 120)):  # middle of the sides, right of the label above
        assert tuple(drawn[row, column]) == class_color(1)
    assert (drawn[84, 80] == 128).all()
    assert (drawn[10] == 128).all()


def test_better_scores_are_drawn_on_top():
    box = [0.25, 0.5, 0.75, 0.9]
    drawn = draw_boxes(GREY, [box, box], [1, 2], scores=[0.9, 0.3])
    assert tuple(drawn[108, 80]) == class_color(1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (8, 8), (30, 700)])
def test_tiny_images_and_boxes_that_leave_them(shape):
    image = np.zeros((*shape, 3), np.uint8)
    boxes = [[-1, -1, 2, 2], [0.5, 0.5, 0.5, 0.5], [1, 1, 1, 1], [0.9, 0, 1, 0.1], [np.nan, 0, np.inf, 1]]
    drawn = draw_boxes(image, boxes, range(1, 6), scores=np.linspace(0, 1, 5), classes=["a name that is long " * 3] * 2)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8


def test_no_boxes():
    drawn = draw_boxes(GREY, np.zeros((0, 4), np.float32), np.zeros(0, int), scores=np.zeros(0), classes=["cat"])
    assert (drawn == GREY).all() and drawn is not GREY


def test_label_stays_inside_at_every_border():
    for box in ([0, 0, 0.1, 0.1], [0.95, 0, 1, 0.1], [0, 0.95, 0.1, 1], [0.95, 0.95, 1, 1]):
        plate = (draw_boxes(GREY, [box], [3], classes=["cat", "dog", "wardrobe"]) == class_color(3)).all(axis=-1)
        assert 400 < plate.sum() < 2000  # a plate of about 60 x 15 pixels less its letters; outside it would be cut


def plates_of(labels):
    """The plates of equal boxes in a picture that is hardly wider than a name."""
    wanted = label_texts(labels, np.full(len(labels), 0.9), ["with_mask", "cat"])
    return choose_plates(wanted, np.array([[50, 60, 60, 80]] * len(labels)), [class_color(label) for label in labels],
                         order=range(len(labels)), shape=(240, 110, 3), drop=True)


def test_names_that_crowd_become_short_and_then_are_left_out():
    plates = plates_of([1] * 6)  # above and below the box, right and left of it
    assert [plate.text for plate in plates] == ["with_mask 0.90", "with_mask 0.90", "0.90", "0.90"]
    corners = np.array([plate.place for plate in plates])
    assert (corners >= 0).all() and (corners <= (110, 240) * 2).all()
    assert (np.triu(shared_areas(corners, corners), 1) == 0).all()
    assert [plate.text for plate in plates_of([1] * 6 + [2])][-1] == "cat 0.90", "each class is named once"


def test_a_given_text_is_always_written():
    boxes = [[0.4, 0.4, 0.5, 0.5]] * 9
    drawn = draw_boxes(GREY, boxes, [0] * 9, colors=[(255, 0, 0)] * 9, texts=["a"] * 8 + [""])
    one = draw_boxes(GREY, boxes[:1], [0], colors=[(255, 0, 0)], texts=["a"])
    assert (drawn == (255, 0, 0)).all(axis=-1).sum() > 2 * (one == (255, 0, 0)).all(axis=-1).sum()


def test_letters_of_any_script():
    """No two names look alike, where the system has a font: not as boxes of missing letters either."""
    def plate(name):
        return draw_boxes(GREY, [[0.1, 0.4, 0.9, 0.9]], [1], classes=[name])
    assert (plate("größe") != plate("gr??e")).any() and (plate("шар") != plate("???")).any()
    font, size = fit_text("a" * 400, (100, 100))
    assert font is None and size[0] <= 100
    assert fit_text("a" * 12, (300, 60))[0].size < fit_text("a", (300, 60))[0].size
    if font_file(frozenset("口罩")) != font_file(frozenset("a")):
        assert (plate("口罩") != plate("罩口")).any()


@pytest.mark.parametrize("plates, place", [
    ([], [40, 46, 100, 60]),  # above the box
    ([[0, 50, 50, 60]], [40, 101, 100, 115]),  # below it
    ([[0, 50, 50, 60], [40, 110, 60, 115]], [60, 46, 120, 60]),  # above it, at its right end
    ([[0, 50, 160, 60], [0, 110, 160, 115]], [122, 60, 182, 74]),  # right of it
])
def test_a_name_leaves_the_other_names_and_boxes_free(plates, place):
    box = np.array([40, 60, 120, 100])
    assert free_place((60, 14), box, (120, 200), plates=np.array(plates).reshape(-1, 4),
                      boxes=box[None]).tolist() == place


def test_shared_areas():
    shared = shared_areas(np.array([[0, 0, 10, 10], [20, 20, 30, 30]]), np.array([[5, 6, 15, 16], [0, 0, 10, 10]]))
    assert shared.tolist() == [[20, 100], [0, 0]]


@pytest.mark.parametrize("shape, tile", [((96, 96), (300, 300)), ((3000, 4000), (300, 400)), ((240, 320), (300, 400)),
                                         ((1, 40), (22, 900)), ((5000, 1), (900, 1))])
def test_tiles_have_one_size(shape, tile):
    assert to_tile(np.zeros((*shape, 3), np.uint8)).shape == (*tile, 3)


def test_rows_fill_the_page():
    places, page = lay_out([2, 1, 1], 2, 0.24)
    high = (2 * CELL - GAP) / 3  # the second row is not full: no higher than the first
    above = GAP + high + 0.24 + GAP
    np.testing.assert_allclose(places, [[GAP, above, 2 * high, high], [2 * GAP + 2 * high, above, high, high],
                                        [GAP, GAP, high, high]])
    np.testing.assert_allclose(page, [2 * CELL + 2 * GAP, above + high + 0.24 + GAP])


def test_pictures_in_a_grid(tmp_path):
    pictures = [np.full((60, 80, 3), value, np.uint8) for value in (10, 20, 30, 40, 50)]
    plot_pictures([*pictures, GREY[:1, :1]], path=str(tmp_path / "grid.png"),
                  titles=["ground truth: 3", "prediction: 0"])
    grid = read(tmp_path / "grid.png")[..., 0]
    # (4 * 3.4 - 3 * 0.06) / (4 * 4 / 3) = 2.516 inches high; two rows of it, of 0.24 for titles and 0.06 between them
    assert grid.shape == (626, 1509)
    assert grid[180, 200::375].tolist() == [10, 20, 30, 40]
    assert grid[500, 200::375].tolist() == [50, 128, 255, 255]
    assert (grid[40:305] == 255).mean() < 0.03  # below its titles a full row has only the narrow gaps


def test_save_png(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    save_png(str(tmp_path / "new" / "a.png"), image)
    assert (read(tmp_path / "new/a.png") == image).all()
    assert os.listdir(tmp_path / "new") == ["a.png"]


def test_save_png_where_it_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        save_png(str(tmp_path / "file" / "a.png"), GREY)
    (tmp_path / "a.png").mkdir()
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        save_png(str(tmp_path / "a.png"), GREY)
    assert sorted(os.listdir(tmp_path)) == ["a.png", "file"]


@pytest.mark.parametrize("rows, panels", [
    ([{"versions": {}}, {"step": 10, "epoch": 1, "loss": 1.0}, {"step": 20, "epoch": 1, "loss": None}], 1),
    ([{"step": step, "epoch": 1 + step // 50, "loss": 1 / step, "loss_cls": 0.5 / step, "loss_box": 0.5, "lr": 0.1}
      for step in range(1, 200)] + [{"step": 50 * one, "epoch": one, "AP": 0.1, "AP50": 0.2} for one in (1, 2)], 3),
    ([{"epoch": 1, "step": 5, "mAP_11point": 0.1, "mAP_area": 0.2}], 1),
])
def test_plot_history(rows, panels, tmp_path):
    plot_history(rows, path=str(tmp_path / "history.png"), steps_per_epoch=50)
    height, width, _ = read(tmp_path / "history.png").shape
    assert round(width / height * 3.8 / 5.2) == panels


def shown(monkeypatch):
    """A list that takes the figures that would be saved."""
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    return figures


@pytest.mark.parametrize("steps, steps_per_epoch, unit, ticks", [
    ([5], 3, "epoch", [1]),  # 1.67 epochs
    ([6], 3, "epoch", [1, 2]),
    ([5], 40, "step", [4, 5]),
    ([2, 4], 4, "step", [1, 2, 3, 4]),
])
def test_the_history_has_whole_numbers_on_its_axis(steps, steps_per_epoch, unit, ticks, monkeypatch):
    figures = shown(monkeypatch)
    plot_history([{"step": step, "epoch": 1, "loss": 1.0} for step in steps], path="",
                 steps_per_epoch=steps_per_epoch)
    axis = figures[0].axes[0]
    low, high = axis.get_xlim()
    assert [tick for tick in axis.get_xticks() if low <= tick <= high] == ticks
    assert axis.get_xlabel() == unit
    assert high == max(steps) / (steps_per_epoch if unit == "epoch" else 1)


@pytest.mark.parametrize("points, marker, size", [(1, "o", 5), (2, "o", 3), (30, "None", 0)])
def test_few_points_of_the_history_are_marked(points, marker, size, monkeypatch):
    figures = shown(monkeypatch)
    plot_history([{"step": step, "loss": 1.0} for step in range(1, points + 1)], path="", steps_per_epoch=5)
    line, = figures[0].axes[0].lines
    assert (line.get_marker(), line.get_markersize()) == (marker, size)


def test_the_history_of_a_run_that_was_cut_short_ends_within_its_epoch(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "plot", lambda axis, x, y, **_: drawn.append((x, y)))
    plot_history([{"step": 5, "epoch": 1, "loss": 3.0}, {"step": 10, "epoch": 1, "loss": 2.0}],
                 path=str(tmp_path / "a"), steps_per_epoch=8)
    assert drawn == [((0.625, 1.25), (3.0, 2.0))]


@pytest.mark.parametrize("classes", [1, 30])
@pytest.mark.parametrize("found", [True, False])
def test_plots_of_metrics(classes, found, tmp_path):
    truth = {"images": [{"id": 1}], "categories": [{"id": at, "name": f"class {at}"} for at in range(1, classes + 2)],
             "annotations": [{"image_id": 1, "category_id": at, "bbox": [0, 0, 9, 9]} for at in range(1, classes + 1)]}
    detections = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}] if found else []
    plot_pr_curves(evaluate_boxes(truth, detections), path=str(tmp_path / "pr.png"))
    for name, metrics in (("coco", coco_metrics(truth, detections)), ("voc", voc_metrics(truth, detections))):
        plot_per_class(metrics, path=str(tmp_path / f"{name}.png"))
    for name in ("pr", "coco", "voc"):
        assert read(tmp_path / f"{name}.png").std() > 5


def coco_metrics(*arguments):
    return evaluate_boxes(*arguments).metrics()


def two_classes():
    """Truth whose labels are 1 cat (id 7) and 2 ant (id 2), a box each, and detections: ant is found."""
    truth = {"images": [{"id": 1}], "categories": [{"id": 7, "name": "cat"}, {"id": 2, "name": "ant"}],
             "annotations": [{"image_id": 1, "category_id": one, "bbox": [0, 0, 9, 9]} for one in (7, 2)]}
    return truth, [{"image_id": 1, "category_id": 2, "bbox": [0, 0, 9, 9], "score": 0.5}]


def test_a_class_has_one_color_in_boxes_and_curves(monkeypatch):
    figures = shown(monkeypatch)
    plot_pr_curves(evaluate_boxes(*two_classes()), path="")
    colors = {line.get_label().split()[0]: tuple(np.rint(np.multiply(line.get_color(), 255)).astype(int).tolist())
              for line in figures[0].axes[0].lines[:2]}
    assert colors == {"ant": class_color(2), "cat": class_color(1)}


def test_curves_and_bars_name_their_rule(monkeypatch):
    figures = shown(monkeypatch)
    truth, detections = two_classes()
    plot_pr_curves(evaluate_boxes(truth, detections), path="")
    plot_per_class(coco_metrics(truth, detections), path="")
    plot_per_class(voc_metrics(truth, detections), path="")
    curves, coco, voc = (figure.axes[0] for figure in figures)
    assert "COCO rule" in curves.get_title() and "COCO rule" in curves.get_legend().get_title().get_text()
    assert coco.get_xlabel().startswith("COCO rule: AP at") and voc.get_xlabel().startswith("VOC rules at IoU .50")


@pytest.mark.parametrize("measure, names", [(coco_metrics, ["AP", "AP50"]), (voc_metrics, ["AP_area", "AP_11point"])])
def test_the_legend_of_the_bars_has_the_order_of_their_numbers(measure, names, monkeypatch):
    figures = shown(monkeypatch)
    metrics = measure(*two_classes())
    metrics["per_class"]["ant"].update({names[0]: 0.25, names[1]: 0.75})
    plot_per_class(metrics, path="")
    axis = figures[0].axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == names
    assert axis.texts[-1].get_text() == "0.250 | 0.750"
    colors = [handle.get_facecolor() for handle in axis.get_legend().get_patches()]
    assert [bars[-1].get_facecolor() for bars in axis.containers[::-1]] == colors


def test_numbers_that_do_not_exist_are_not_drawn(monkeypatch):
    figures = shown(monkeypatch)
    plot_history([{"step": 1, "loss": 2.0, "AP": -1.0, "AP50": -1.0}, {"step": 2, "loss": float("nan"), "AP": None}],
                 path="", steps_per_epoch=5)
    axis, = figures[0].axes
    assert axis.get_title() == "loss" and [line.get_xdata().tolist() for line in axis.lines] == [[1]]


NAMES = ["$$", "_private", "a\nb", "100$ & \\$x$ ^_{", "long " * 20, "\u732b", "x", "\0"]


def test_names_are_drawn_as_they_are(tmp_path, monkeypatch, capfd):
    truth = {"images": [{"id": 1}], "categories": [{"id": at, "name": name} for at, name in enumerate(NAMES, 1)],
             "annotations": [{"image_id": 1, "category_id": at, "bbox": [0, 0, 9, 9]} for at in range(1, 9)]}
    plot_pr_curves(evaluate_boxes(truth, []), path=str(tmp_path / "pr.png"))
    plot_per_class(coco_metrics(truth, []), path=str(tmp_path / "bars.png"))
    plot_pictures([GREY], path=str(tmp_path / "grid.png"), titles=["$$ $x"])
    assert sorted(os.listdir(tmp_path)) == ["bars.png", "grid.png", "pr.png"] and capfd.readouterr() == ("", "")
    figures = shown(monkeypatch)
    plot_pr_curves(evaluate_boxes(truth, []), path="")
    texts = [text.get_text().replace(r"\$", "$") for text in figures[0].axes[0].get_legend().get_texts()]
    assert {"$$  0.000", " _private  0.000", "a b  0.000", "100$ & \\$x$ ^_{  0.000"} <= set(texts) and len(texts) == 9
    assert max(map(len, texts)) < 40
    draw_boxes(GREY, [[0, 0, 1, 1]], [3], classes=NAMES)


def test_the_bars_end_at_1_and_the_numbers_stand_right_of_them(monkeypatch):
    figures = shown(monkeypatch)
    plot_per_class(coco_metrics(*two_classes()), path="")
    axis = figures[0].axes[0]
    assert axis.get_xlim() == (0, 1) and {text.get_position()[0] for text in axis.texts} == {1.01}
    figures[0].canvas.draw()
    legend, texts = axis.get_legend().get_window_extent(), [text.get_window_extent() for text in axis.texts]
    assert all(text.x1 < legend.x0 for text in texts)


def test_a_plot_that_fails_is_a_warning(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise ValueError("no\nfont")

    monkeypatch.setattr(plots, "save_figure", fail)
    plot_per_class(coco_metrics(*two_classes()), path=str(tmp_path / "bars.png"))
    said = capsys.readouterr().err
    assert said == f"warning: '{tmp_path / 'bars.png'}' could not be drawn (ValueError: no font)\n"
    monkeypatch.undo()
    (tmp_path / "bars.png").mkdir()
    with pytest.raises(EnvironmentFault):
        plot_per_class(coco_metrics(*two_classes()), path=str(tmp_path / "bars.png"))
