"""The readers on real data, and what happens when one breaks."""
import os

import numpy as np
import pytest
from conftest import arrays

from src.classes import COCO_CLASSES
from src.data.coco import read_coco
from src.data.findings import Report
from src.data.records import finish_record
from src.data.txt import read_txt
from src.data.voc import read_voc
from src.errors import DataError, OptionError

SHARED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "shared", "data")
needs_shared = pytest.mark.skipif(not os.path.isdir(SHARED), reason="needs ../shared/data")
NAN, INF = float("nan"), float("inf")


# --- real data

@needs_shared
@pytest.mark.parametrize("split, images, boxes, crowds, empty", [
    ("train2017", 220, 1947, 19, 3), ("val2017", 206, 1786, 21, 2)])
def test_real_coco(split, images, boxes, crowds, empty):
    root, report = os.path.join(SHARED, "coco"), Report()
    file = f"{root}/annotations/instances_{split}.json"
    records, names, ids = read_coco(file, f"{root}/{split}", classes=[], report=report)
    records = [finish_record(record, (record.height, record.width), report) for record in records]
    assert len(records) == images and sum(len(record.boxes) for record in records) == boxes and not report.findings
    assert sum(arrays(record).crowd.sum() for record in records) == crowds
    assert sum(len(arrays(record).boxes) == 0 for record in records) == empty
    assert tuple(names) == COCO_CLASSES and ids[0] == 1 and ids[79] == 90


@needs_shared
def test_real_voc_and_its_txt_give_the_same_records(tmp_path):
    root, report = os.path.join(SHARED, "bccd"), Report()
    voc, names, _ = read_voc(root, "train", classes=[], report=report)
    assert len(voc) == 205 and sum(len(arrays(record).label) for record in voc) == 2805
    assert names == ["Platelets", "RBC", "WBC"]
    lines = []
    for record in voc:
        fields = [os.path.basename(record.path)]
        for box in record.boxes:
            x, y, w, h = box.pixels
            fields.append(f"{x:g},{y:g},{x + w:g},{y + h:g},{box.name}")
        lines.append(" ".join(fields))
    (tmp_path / "train.txt").write_text("\n".join(lines))
    images = os.path.join(root, "JPEGImages")
    other, other_names, _ = read_txt(str(tmp_path / "train.txt"), images, classes=[], report=report)
    assert other_names == names and report.finding_count == 0
    for first, second in zip(voc, other, strict=True):
        first, second = (finish_record(record, (480, 640), report) for record in (first, second))
        assert (first.image_id, first.path) == (second.image_id, second.path)
        for field in ("pixels", "area", "label", "crowd", "boxes"):
            np.testing.assert_array_equal(getattr(arrays(first), field), getattr(arrays(second), field))
    assert report.counts == {"box dropped": 2}, "one box of no size, seen by both readers"


# --- what breaks a reader

@pytest.mark.parametrize("error", [ValueError("odd\n text"), KeyError("x"), RecursionError("deep"), LookupError("x")])
def test_an_exception_of_a_record_is_a_finding(error):
    report = Report()
    with report.catching("annotation unreadable", "a.xml"):
        raise error
    (finding,) = report.findings
    assert finding[:2] == ("annotation unreadable", "a.xml") and type(error).__name__ in finding.reason
    assert "\n" not in finding.reason


@pytest.mark.parametrize("error", [DataError("said already"), OptionError("said already"), MemoryError()])
def test_errors_that_end_the_program_are_no_findings(error):
    report = Report()
    with pytest.raises(type(error)), report.catching("annotation unreadable", "a.xml"):
        raise error
    assert not report.findings
