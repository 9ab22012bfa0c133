"""Anchors against numbers of the published configurations."""
import numpy as np

from src.anchors import grid_anchors, grid_shapes, reduced_shapes, ssd_shapes, tile_anchors


def test_order_is_level_row_column_shape():
    anchors = tile_anchors([2, 1], [0.5, 1.0], [np.array([[0.1, 0.2], [0.3, 0.4]]), np.array([[1, 1]])])
    centres = [[.25, .25]] * 2 + [[.75, .25]] * 2 + [[.25, .75]] * 2 + [[.75, .75]] * 2 + [[.5, .5]]
    assert np.allclose(anchors[:, :2], centres)
    assert np.allclose(anchors[:2, 2:], [[0.1, 0.2], [0.3, 0.4]])


def test_grid_shapes_in_pixels_of_the_published_fpn():
    shapes = [640 * shape for shape in grid_shapes([stride / 640 for stride in (8, 128)])]
    root = np.sqrt(2)
    assert np.allclose(shapes[0], [[32, 32], [32 * root, 32 * root], [32 * root, 32 / root], [64, 32],
                                   [32 / root, 32 * root], [32, 64]])
    assert np.allclose(shapes[1][0], [512, 512])


def test_a_grid_that_the_image_cuts_begins_at_its_corner():
    anchors = grid_anchors(320, (64, 128))  # 5 x 5 cells of 64 pixels, 3 x 3 of 128: 384 pixels
    assert np.allclose(np.unique(anchors[:150, 0]) * 320, [32, 96, 160, 224, 288])
    assert np.allclose(np.unique(anchors[150:, 1]) * 320, [0, 128, 256])
    assert anchors.shape == (6 * (25 + 9), 4) and np.allclose(anchors[150, 2:] * 320, 512)
    whole = grid_anchors(640, (64, 128))
    assert np.allclose(np.unique(whole[600:, 0]) * 640, [64, 192, 320, 448, 576])


def test_reduced_shapes_of_the_published_ssd300():
    shapes = reduced_shapes(0.1, (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0))
    assert [len(shape) for shape in shapes] == [3, 6, 6, 6, 6, 6]
    assert np.allclose(shapes[0], [[0.1, 0.1], [0.2 * 2 ** 0.5, 0.2 / 2 ** 0.5], [0.2 / 2 ** 0.5, 0.2 * 2 ** 0.5]])
    assert np.allclose(shapes[1][[0, 5]], [[0.35, 0.35], [np.sqrt(0.35 * 0.5)] * 2])
    assert np.allclose(shapes[5][5], np.sqrt(0.95 * 1.0))


def test_ssd_shapes_by_hand():
    four, six = ssd_shapes((0.1, 0.4, 0.9), [(2,), (2, 3)])
    root = 2 ** 0.5
    assert np.allclose(four, [[0.1, 0.1], [0.2, 0.2], [0.1 * root, 0.1 / root], [0.1 / root, 0.1 * root]])
    assert len(six) == 6 and np.allclose(six[1], 0.6) and np.allclose(six[4], [0.4 * 3 ** 0.5, 0.4 / 3 ** 0.5])
    assert np.allclose(ssd_shapes((0.1, 0.4), [(2,)], between_first=False)[0][[0, 3]], [[0.1, 0.1], [0.2, 0.2]])
