"""finish_record by hand-computed numbers, and the Report."""
import numpy as np
import pytest
from conftest import arrays, found, txt

from src.data.records import KEPT_FINDINGS, Report, finish_record

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("corners, reason", [
    ((10, 10, 10, 10), "under 1 pixel"), ((10, 10, 10.5, 40), "under 1 pixel"), ((30, 10, 10, 40), "reversed"),
    ((10, 40, 30, 10), "reversed"), ((NAN, 0, 9, 9), "not finite"), ((0, 0, INF, 9), "not finite"),
    ((120, 5, 140, 9), "outside"), ((-9, -9, -1, -1), "outside"), ((99.5, 5, 140, 9), "under 1 pixel")])
def test_unusable_boxes_are_dropped(tmp_path, corners, reason):
    (record,), _, _ = txt(tmp_path, f"a.jpg {','.join(map(str, corners))},cat 0,0,100,50,cat\n")
    report = Report()
    finished = finish_record(record, 50, 100, report)
    assert arrays(finished).boxes.tolist() == [[0, 0, 1, 1]] and arrays(finished).label.tolist() == [1]
    assert found(report)[0][0] == "box dropped" and report.faults == 1 and reason in report.findings[0].reason
    assert report.findings[0].box.startswith("#1 [") and report.findings[0].file.endswith("train.txt:1")


def test_boxes_are_clipped(tmp_path):
    (record,), _, _ = txt(tmp_path, "a.jpg -10,10,50,60,cat 0,0,100.02,50,cat 99,49,100,50,cat\n")
    report = Report()
    finished = finish_record(record, 50, 100, report)
    np.testing.assert_allclose(arrays(finished).boxes, [[0, .2, .5, 1], [0, 0, 1, 1], [.99, .98, 1, 1]], rtol=1e-6)
    assert arrays(finished).pixels.tolist() == [[0, 10, 50, 40], [0, 0, 100, 50], [99, 49, 1, 1]]
    assert arrays(finished).area.tolist() == [2000, 5000, 1]
    assert found(report) == [("box clipped", "#1 [-10, 10, 50, 60]")], "a hundredth of a pixel is rounding, no fault"
    assert arrays(record).pixels[0].tolist() == [-10, 10, 60, 50], "the record as read stays as annotated"


def test_report(tmp_path):
    report = Report()
    assert report.summary() == "no findings" and report.faults == 0
    report.add("class without boxes", "f", None, "none of 'cat'")
    for number in range(KEPT_FINDINGS + 2):
        report.add("box dropped", "f", f"#{number}", "why, so")
    assert report.faults == KEPT_FINDINGS + 2 and len(report.findings) == KEPT_FINDINGS + 1
    assert report.summary().splitlines()[0] == "      1  class without boxes (a note, no fault)"
    assert len(report.summary().splitlines()) == 6 and "f #0: why, so" in report.summary()
    report.write_csv(tmp_path / "report.csv")
    lines = (tmp_path / "report.csv").read_text().splitlines()
    assert lines[:3] == ["kind,file,box,reason", "class without boxes,f,,none of 'cat'", 'box dropped,f,#0,"why, so"']
    assert lines[-1] == "box dropped,,,and 2 more"
