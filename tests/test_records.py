"""finish_record by hand-computed numbers, and the Report."""
import numpy as np
import pytest
from conftest import arrays, found, txt

from src.data.annotations import image_path
from src.data.findings import KEPT_FINDINGS, Report
from src.data.records import Box, Record, finish_record
from src.data.values import to_pixels

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("corners, reason", [
    ((10, 10, 10, 10), "under 1 pixel"), ((10, 10, 10.5, 40), "under 1 pixel"), ((30, 10, 10, 40), "reversed"),
    ((10, 40, 30, 10), "reversed"), ((NAN, 0, 9, 9), "not finite"), ((0, 0, INF, 9), "not finite"),
    ((120, 5, 140, 9), "outside"), ((-9, -9, -1, -1), "outside"), ((99.5, 5, 140, 9), "under 1 pixel")])
def test_unusable_boxes_are_dropped(tmp_path, corners, reason):
    (record,), _, _ = txt(tmp_path, f"a.jpg {','.join(map(str, corners))},cat 0,0,100,50,cat\n")
    report = Report()
    finished = finish_record(record, (50, 100), report)
    assert arrays(finished).boxes.tolist() == [[0, 0, 1, 1]] and arrays(finished).label.tolist() == [1]
    assert found(report)[0][0] == "box dropped" and report.finding_count == 1 and reason in report.findings[0].reason
    assert report.findings[0].box.startswith("#1 [") and report.findings[0].file.endswith("train.txt:1")


def test_boxes_are_clipped(tmp_path):
    (record,), _, _ = txt(tmp_path, "a.jpg -10,10,50,60,cat 0,0,100.02,50,cat 99,49,100,50,cat\n")
    report = Report()
    finished = finish_record(record, (50, 100), report)
    np.testing.assert_allclose(arrays(finished).boxes, [[0, .2, .5, 1], [0, 0, 1, 1], [.99, .98, 1, 1]], rtol=1e-6)
    assert arrays(finished).pixels.tolist() == [[0, 10, 50, 40], [0, 0, 100, 50], [99, 49, 1, 1]]
    assert arrays(finished).area.tolist() == [2000, 5000, 1]
    assert found(report) == [("box clipped", "#1 [-10, 10, 50, 60]")], "a hundredth of a pixel is rounding, no fault"
    assert arrays(record).pixels[0].tolist() == [-10, 10, 60, 50], "the record as read stays as annotated"


def test_report(tmp_path):
    report = Report()
    assert report.summary() == "no findings" and report.finding_count == 0
    report.add("class without boxes", "f", "none of 'cat'")
    for number in range(KEPT_FINDINGS + 2):
        report.add("box dropped", "f", "why, so", box=f"#{number}")
    assert report.finding_count == KEPT_FINDINGS + 2 and len(report.findings) == KEPT_FINDINGS + 1
    assert report.summary().splitlines()[0] == "      1  class without boxes (a note)"
    assert len(report.summary().splitlines()) == 6 and "f #0: why, so" in report.summary()
    report.write_csv(tmp_path / "report.csv")
    lines = (tmp_path / "report.csv").read_text().splitlines()
    assert lines[:3] == ["kind,file,box,reason", "class without boxes,f,,none of 'cat'", 'box dropped,f,#0,"why, so"']
    assert lines[-1] == "box dropped,,,and 2 more"


def other_form(boxes, corners, size=(100, 80)):
    """In which other form boxes seem to be, written as x1, y1, x2, y2 or else as x, y, w, h."""
    report = Report()
    report.forms.corners = corners
    found = [Box(number, "cat", to_pixels(numbers, "odd", corners=corners)) for number, numbers in enumerate(boxes, 1)]
    finish_record(Record(1, "a.jpg", "a.jpg", boxes=found), (size[1], size[0]), report)
    return report.forms.other_form()


@pytest.mark.parametrize("boxes, corners, words", [
    ([[60, 40, 95, 75], [10, 10, 40, 38], [50, 5, 90, 20]], False, "look like x1, y1, x2, y2; write them as x, y, w"),
    ([[60, 40, 30, 20], [10, 10, 40, 38], [50, 45, 20, 20]], True, "look like x, y, w, h; write them as x1, y1, x2"),
    ([[.1, .1, .4, .4], [.2, 0, .5, 1]], False, "look like fractions"),
    ([[.1, .1, .4, .4], [.2, 0, .5, 1], [10, 10, 20, 20]], True, "look like fractions")])
def test_boxes_in_another_form_are_recognised(boxes, corners, words):
    reason = other_form(boxes, corners)
    assert words in reason and "\n" not in reason


@pytest.mark.parametrize("boxes, corners", [
    ([], False), ([[10, 10, 40, 38], [60, 40, 40, 40]], False), ([[10, 10, 40, 38], [60, 40, 95, 75]], True),
    ([[60, 40, 95, 75], [10, 10, 30, 30], [5, 5, 50, 50]], False),       # one box too large
    ([[50, 48, 10, 10], [10, 10, 50, 48]], True),                        # corners swapped
    ([[-5, -5, 200, 200], [-9, 3, 120, 50], [90, 70, 60, 60]], False),   # sloppy, but nothing else either
    ([[0, 0, 0, 0], [NAN, NAN, NAN, NAN], [INF, 0, 1, 1]], False)])
def test_boxes_in_the_form_they_are_read_in_are_left_in_peace(boxes, corners):
    assert other_form(boxes, corners) == ""


@pytest.mark.parametrize("numbers", ["1234", {"1": 0, "2": 0, "3": 0, "4": 0}, [True, 1, 2, 3], ["1_0", 1, 2, 3], None,
                                     [10 ** 400, 1, 2, 3], [1e308] * 4, [1, 2, 3], [[1], 2, 3, 4], 7])
@pytest.mark.parametrize("corners", [True, False])
def test_what_is_not_four_numbers_is_a_finding(numbers, corners):
    report = Report()
    with report.catching("box dropped", "a.jpg", box="#3"):
        to_pixels(numbers, "odd", corners=corners)
    assert found(report) == [("box dropped", "#3")] and "cannot be read" not in report.findings[0].reason


def test_numbers_written_as_text_are_numbers():
    assert to_pixels(["10", "1e1", " 30.5", "40"], "odd", corners=False) == (10, 10, 30.5, 40)


def test_a_class_name_stays_on_one_line_and_is_said_once():
    report = Report()
    names = ("a\nb", "a\nb", "\x1b[31mred", "caf\xe9 \u732b", "a\u2028b")
    assert [report.class_name(name, "a.xml") for name in names] == ["a b", "a b", " [31mred", "caf\xe9 \u732b", "a b"]
    assert report.counts == {"class name changed": 3} and r"'a\nb' is read as 'a b'" in report.summary()


def test_findings_can_be_printed_and_written_whatever_they_hold(tmp_path):
    report = Report()
    report.add("image unusable", "a\nb\ud800.jpg", "x" * 9000)
    report.add("image missing", "caf\udce9.jpg", "gone", box="#1")
    report.write_csv(tmp_path / "report.csv")
    lines = report.summary().splitlines()
    assert len(lines) == 4 and all(line.encode("utf-8") and len(line) < 600 for line in lines)
    assert b"caf\xe9.jpg" in (tmp_path / "report.csv").read_bytes(), "a file name that is not UTF-8 keeps its bytes"


@pytest.mark.parametrize("name, found_at", [
    ("sub/a.jpg", "sub/a.jpg"), (r"sub\a.jpg", "sub/a.jpg"), (r"gone\a.jpg", r"gone\a.jpg"),
    (r"odd\b.jpg", r"odd\b.jpg")])
def test_backslashes_in_the_name_of_an_image(tmp_path, name, found_at):
    (tmp_path / "sub").mkdir()
    for path in ("sub/a.jpg", r"odd\b.jpg"):
        (tmp_path / path).write_bytes(b"")
    assert image_path(str(tmp_path), name) == str(tmp_path / found_at)


@pytest.mark.parametrize("name", [5, None, "", " ", [], {}, True, "a\0.jpg", "a\ud800.jpg"])
def test_names_that_no_file_can_have(tmp_path, name):
    report = Report()
    with report.catching("image unusable", "image 7"):
        image_path(str(tmp_path), name)
    (finding,) = report.findings
    assert finding[:2] == ("image unusable", "image 7") and "Error" not in finding.reason
    assert report.summary().encode("utf-8")
