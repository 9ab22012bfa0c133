"""The window with a stream, on a screen in memory: controls, keys, saved frames."""
import contextlib
import gc
import os
import threading

import cv2
import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("PySide6", reason="pip install -r requirements-view.txt")
pytest.importorskip("PySide6.QtWidgets", reason="system packages of docs/live.md", exc_type=ImportError)
from programs import until as wait
from PySide6.QtCore import Qt
from PySide6.QtGui import QImage
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from shiboken6 import isValid
from watching import CLASSES, come_to_rest, detect, frames

from src.drawing import class_color
from src.errors import EnvironmentFault
from src.live import screen
from src.live.stream import Stream
from src.live.window import Window, open_window, show_window


@pytest.fixture(scope="module")
def qt():
    return QApplication.instance() or QApplication(["test"])


@pytest.fixture
def window(qt, tmp_path):
    with Stream(detect, frames) as stream, opened(stream, tmp_path) as made:
        until(lambda: made.shot is not None)
        yield made


@contextlib.contextmanager
def opened(stream, folder):
    """A window that takes keys."""
    with open_window(stream, CLASSES, title="a video", score=0.4, folder=str(folder)) as made:
        until(made.isActiveWindow)
        yield made


def until(condition):
    """Lets Qt work until a condition holds."""
    wait(condition, work=QApplication.processEvents)


def hold(window):
    """Pauses a window; returns the number of the frame that it shows from then on."""
    press(window, Qt.Key.Key_Space)
    come_to_rest(window.stream)
    window.take_newest()
    return window.shot.number


def colors(window):
    """The labels whose colours the picture on the screen has."""
    image = window.canvas.grab().toImage().convertToFormat(QImage.Format.Format_RGB32)
    pixels = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.width(), 4)[..., 2::-1]
    return [label for label in range(1, len(CLASSES) + 1) if (pixels == class_color(label)).all(axis=2).any()]


def press(window, key):
    QTest.keyClick(window.canvas, key)
    QApplication.processEvents()


def test_boxes_follow_the_threshold_and_the_classes(window):
    assert colors(window) == [2]
    for _ in range(3):
        press(window, Qt.Key.Key_Down)
    assert window.score_label.text() == "least score  0.25" and colors(window) == [1, 2]
    window.list.item(1).setCheckState(Qt.CheckState.Unchecked)
    assert colors(window) == [1]
    press(window, Qt.Key.Key_N)
    assert colors(window) == []
    press(window, Qt.Key.Key_A)
    assert colors(window) == [1, 2]
    press(window, Qt.Key.Key_Up)
    assert window.slider.value() == 30


def test_pause_step_and_go_on(window):
    number = hold(window)
    assert window.pause_button.text() == "Go on" and window.stream.paused
    press(window, Qt.Key.Key_Right)
    until(lambda: window.shot.number == number + 1)
    window.show_numbers()
    assert window.numbers.text().startswith(f"frame {number + 1}   64 x 48   1 object(s)   model ")
    assert window.numbers.text().endswith("paused")
    press(window, Qt.Key.Key_Space)
    until(lambda: window.shot.number > number + 3)


def test_controls_work_while_the_stream_is_paused(window):
    hold(window)
    window.slider.setValue(95)
    assert colors(window) == []
    window.resize(900, 500)
    window.slider.setValue(0)
    until(lambda: colors(window) == [1, 2])


def test_a_frame_is_saved_in_its_own_size(window, tmp_path):
    number = hold(window)
    press(window, Qt.Key.Key_S)
    name, = os.listdir(tmp_path)
    saved = cv2.imread(str(tmp_path / name))
    assert saved.shape == (48, 64, 3) and name == f"frame_{number:06d}.png"
    assert any((saved == class_color(2)[::-1]).all(axis=2).ravel())
    assert window.statusBar().currentMessage() == f"saved {tmp_path / name}"


def test_a_folder_that_cannot_be_written_is_said(window, tmp_path):
    (tmp_path / "file").write_text("")
    window.folder = str(tmp_path / "file" / "below")
    press(window, Qt.Key.Key_S)
    assert "cannot be written" in window.statusBar().currentMessage()


def test_a_class_is_searched_for_with_letters_that_are_keys_elsewhere(window):
    window.activateWindow()
    window.filter.setFocus()
    QTest.keyClicks(window.filter, "do")
    assert [window.list.item(index).isHidden() for index in range(3)] == [True, False, False]
    QTest.keyClicks(window.filter, "g")
    assert [window.list.item(index).isHidden() for index in range(3)] == [True, False, True]
    assert window.filter.text() == "dog" and len(window.hidden()) == 0
    window.leave()
    assert window.filter.text() == "" and window.isVisible()


def test_a_slow_model_does_not_hold_the_window(qt, tmp_path):
    begun, go = threading.Event(), threading.Event()

    def slow(pixels):
        begun.set()
        assert go.wait(60), "the window waited for the model"
        return detect(pixels)
    with Stream(slow, frames) as stream, opened(stream, tmp_path) as made:
        until(begun.is_set)
        press(made, Qt.Key.Key_Up)
        press(made, Qt.Key.Key_Space)
        assert made.slider.value() == 45 and stream.paused and made.shot is None
        go.set()
        until(lambda: made.shot is not None)


def test_a_window_that_ended_leaves_nothing_to_the_garbage_collector(qt, tmp_path):
    """Which deletes what it finds in the thread in which it happens to run."""
    with Stream(detect, frames) as stream:
        with opened(stream, tmp_path) as made:
            parts = [made, made.canvas, made.slider, made.list, *made.timers]
        assert not any(map(isValid, parts))
        del made, parts
        collector = threading.Thread(target=gc.collect)
        collector.start()
        collector.join()


def test_what_ends_the_stream_ends_the_window(qt, tmp_path):
    def fail(pixels):
        raise EnvironmentFault("the device is gone")
    with Stream(fail, frames) as stream, pytest.raises(EnvironmentFault, match="the device is gone"):
        show_window(stream, CLASSES, title="", score=0.4, folder=str(tmp_path))


def test_another_window_does_not_keep_one_that_is_closed(qt, tmp_path, monkeypatch):
    monkeypatch.setattr(Window, "take_newest", Window.close)
    with Stream(detect) as stream, opened(stream, tmp_path) as other:
        other.timers[0].stop()
        show_window(stream, CLASSES, title="", score=0.4, folder=str(tmp_path))
        assert other.isVisible()


def test_an_error_within_qt_is_raised_and_ctrl_c_is_an_end(qt, tmp_path, monkeypatch):
    def fail(self):
        raise raised
    monkeypatch.setattr(Window, "take_newest", fail)
    for raised in (KeyboardInterrupt(), ValueError("broken")):
        expected = contextlib.nullcontext() if raised.args == () else pytest.raises(ValueError, match="broken")
        with Stream(detect, frames) as stream, expected:
            show_window(stream, CLASSES, title="", score=0.4, folder=str(tmp_path))


def test_without_a_screen_one_line_says_so(monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "xcb")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(EnvironmentFault, match=r"no window can open here \(qt\.qpa.*; --serve=8000") as error:
        screen.check_screen()
    assert "\n" not in str(error.value)


def test_a_missing_qt_is_said(monkeypatch):
    monkeypatch.setattr(screen, "PROBE", "import missing_package_of_qt")
    with pytest.raises(EnvironmentFault, match=r"\(ModuleNotFoundError: No module named 'missing_package_of_qt'\)"):
        screen.check_screen()


def test_a_screen_that_does_not_answer_is_said(monkeypatch):
    monkeypatch.setattr(screen, "PROBE", "import time; time.sleep(600)")
    monkeypatch.setattr(screen, "PATIENCE", 0.1)
    with pytest.raises(EnvironmentFault, match=r"\(the screen does not answer within 0\.1 s\); --view=True needs"):
        screen.check_screen()


def test_a_screen_is_found():
    screen.check_screen()  # that in memory
