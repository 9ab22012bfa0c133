"""Every value of a COCO file replaced by every odd one: a finding or a DataError, never another exception."""
import copy
import json
import os

import numpy as np
import pytest
from conftest import picture

from src.data.coco import read_coco
from src.data.convert import coco_annotations
from src.data.findings import Report
from src.data.records import finish_record
from src.errors import SSDError
from src.evaluation.evaluate import to_coco
from src.metrics import evaluate_boxes

SOUND = {
    "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 40}, {"id": 2, "file_name": "b.png"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 20, 10], "area": 150, "iscrowd": 0},
                    {"id": 2, "image_id": 2, "category_id": 5, "segmentation": [[1, 1, 9, 1, 9, 9]]},
                    {"id": 3, "image_id": 2, "category_id": 3,
                     "segmentation": {"size": [20, 40], "counts": [0, 9, 791]}}],
    "categories": [{"id": 3, "name": "cat", "supercategory": ""}, {"id": 5, "name": "dog"}]}
ODD = [None, True, False, 0, -1, -5, 1.5, 7, 2 ** 31, 2 ** 63 - 1, 2 ** 63, -2 ** 63 - 1, 10 ** 30, 10 ** 400, 1e308,
       -1e308, float("nan"), float("inf"), -float("inf"), "", " ", "0", "1", "007", "x", "a\nb", "a\0", "\ud800",
       "null", "\udcff", "1_0", "\u00b2", "x" * 5000, "../a.png", "/", "a\\b", [], [[]], [1], [None] * 4, ["1"] * 4,
       [0] * 4, [[1, 2], [3, 4]], [1e308] * 4, [10 ** 400, 0, 1, 1], {}, {"a": 1}, [[[[[[]]]]]],
       {"counts": "\ud800", "size": [20, 40]}]
FOUND = np.array([[0, 0.1, 0.1, 0.5, 0.6, 0.9, 1], [1, 0.1, 0.1, 0.3, 0.5, 0.8, 1]])  # as of collect_detections


def places(node, path=()):
    """The paths of all values in a JSON tree."""
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def changed(path, value):
    """A copy of SOUND with another value at a path."""
    tree = copy.deepcopy(SOUND)
    if not path:
        return value
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return tree


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the images a.png and b.png."""
    path = tmp_path_factory.mktemp("odd")
    for name in ("a.png", "b.png"):
        picture(path / name)
    return path


@pytest.mark.parametrize("path", sorted(places(SOUND), key=str), ids=lambda path: ".".join(map(str, path)) or "all")
def test_odd_values(path, folder):
    for value in ODD:
        file, report = folder / "instances.json", Report()
        file.write_text(json.dumps(changed(path, value)))
        try:
            records, names, ids = read_coco(str(file), str(folder), classes=[], report=report)
        except SSDError as error:
            assert error.exit_code == 3 and str(error).encode("utf-8", "backslashreplace") and "\n" not in str(error)
            continue
        if not records:
            continue  # a conversion ends here: no usable image
        assert all(type(record.image_id) is int and -2 ** 63 <= record.image_id < 2 ** 63 for record in records)
        assert [os.path.exists(record.path) for record in records], "a name that can be asked for"
        annotations = [item for record in records for item in coco_annotations(record, ids, 1)]
        finished = [finish_record(record, (20, 40), report) for record in records]
        assert all(1 <= box.label <= len(names) for record in finished for box in record.boxes)
        truth = json.loads(json.dumps({
            "images": [{"id": record.truth_id, "width": 40, "height": 20} for record in records],
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for number, name in zip(ids, names)]}))
        detections = to_coco(FOUND[:len(records)], truth)
        for engine in ("hotcoco", "pycocotools"):
            assert evaluate_boxes(truth, detections, engine).stats[0] <= 1
        assert "\n" not in report.forms.other_form()
        report.write_csv(folder / "report.csv")
        assert report.summary().encode("utf-8") and all("\n" not in name and name.strip() for name in names)
