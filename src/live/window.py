"""A window that shows a stream with boxes: speed, threshold, classes, pause and step, saving a frame (Qt)."""
from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from PySide6.QtCore import QEvent, QEventLoop, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QImage, QKeySequence, QPainter, QPaintEvent, QPixmap, QResizeEvent, QShortcut
from PySide6.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QMainWindow,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)
from shiboken6 import delete

from src.drawing import class_color, draw_boxes, save_png
from src.errors import SSDError
from src.inference.found import Detections
from src.live.stream import Shot, Stream

TICK_MS, TEXT_MS = 33, 500  # between two looks at the stream, and at the numbers of the status bar
SIDE_WIDTH = 250            # pixels of the controls
SIZE = 1180, 720
KEYS = "Space: pause   →: step\n↑ ↓: least score   S: save\nA: all classes   N: none\nF: full screen   Q: quit"


class Canvas(QWidget):
    """Shows a picture in its middle, and a text while there is none. on_resize: called when its size has changed."""

    def __init__(self, on_resize: Callable[[], None]):
        super().__init__()
        self.image, self.on_resize = QImage(), on_resize
        self.setMinimumSize(320, 240)

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels [H, W, 3] as large as they are shown, in pixels of the screen."""
        height, width = pixels.shape[:2]
        factor = self.devicePixelRatioF() * min(self.width() / width, self.height() / height)
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)

    def show_pixels(self, pixels: np.ndarray) -> None:
        """Shows [H, W, 3] uint8 RGB, in pixels of the screen."""
        height, width = pixels.shape[:2]
        self.image = QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888).copy()
        self.image.setDevicePixelRatio(self.devicePixelRatioF())
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802, Qt's name
        """Draws the widget; Qt calls it."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(24, 26, 29))
        if self.image.isNull():
            painter.setPen(QColor(200, 204, 209))
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, "waiting for the first frame")
        else:
            size = self.image.deviceIndependentSize().toSize()
            painter.drawImage((self.width() - size.width()) // 2, (self.height() - size.height()) // 2, self.image)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802, Qt's name
        """Qt calls it."""
        self.on_resize()


class Window(QMainWindow):
    """Shows a Stream. classes: names, label l is classes[l - 1]; folder: for saved frames. closed: its signal."""
    closed = Signal()

    def __init__(self, stream: Stream, classes: Sequence[str], *, title: str, score: float, folder: str):
        super().__init__()
        self.stream, self.classes, self.folder = stream, list(classes), folder
        self.shot: Shot | None = None
        self.found: Detections | None = None  # in it, and shown
        self.setWindowTitle(title)
        self.resize(*SIZE)
        self.canvas = Canvas(self.draw)
        self.build_controls(score)
        self.build_shortcuts()
        self.timers = [QTimer(self, interval=TICK_MS), QTimer(self, interval=TEXT_MS)]
        for timer, work in zip(self.timers, (self.take_newest, self.show_numbers)):
            timer.timeout.connect(work)
            timer.start()
        self.canvas.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.canvas.setFocus()

    def build_controls(self, score: float) -> None:
        """Makes what stands beside the picture."""
        self.score_label = QLabel()
        self.slider = QSlider(Qt.Orientation.Horizontal, minimum=0, maximum=100, value=round(score * 100), pageStep=5)
        self.slider.valueChanged.connect(self.draw)
        self.filter = QLineEdit(placeholderText="find a class", clearButtonEnabled=True)
        self.filter.textChanged.connect(self.filter_classes)
        self.list = QListWidget()
        for label, name in enumerate(self.classes, 1):
            item = QListWidgetItem(name, self.list)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Checked)
            patch = QPixmap(12, 12)
            patch.fill(QColor(*class_color(label)))
            item.setIcon(patch)
        self.list.itemChanged.connect(self.draw)
        self.pause_button = button("Pause", "Space", self.toggle_pause)
        self.step_button = button("Step", "→", self.stream.step)
        side = QVBoxLayout()
        for part in (self.score_label, self.slider, self.filter, self.list,
                     row(button("All", "A", lambda: self.check_all(True)),
                         button("None", "N", lambda: self.check_all(False))),
                     row(self.pause_button, self.step_button), row(button("Save frame", "S", self.save)),
                     QLabel(KEYS, styleSheet="color: #66717c")):
            side.addWidget(part)
        holder = QWidget()
        holder.setLayout(side)
        holder.setFixedWidth(SIDE_WIDTH)
        layout = QHBoxLayout()
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.canvas, 1)
        layout.addWidget(holder)
        center = QWidget()
        center.setLayout(layout)
        self.setCentralWidget(center)
        self.numbers = QLabel("")
        self.statusBar().addPermanentWidget(self.numbers)
        self.show_score()

    def build_shortcuts(self) -> None:
        """Connects the keys. Those of one letter rest while a class is being searched for."""
        for keys, work in (("Space", self.toggle_pause), ("Right", self.stream.step), ("S", self.save),
                           ("Up", lambda: self.slider.setValue(self.slider.value() + 5)),
                           ("Down", lambda: self.slider.setValue(self.slider.value() - 5)),
                           ("A", lambda: self.check_all(True)), ("N", lambda: self.check_all(False)),
                           ("F", self.toggle_full_screen), ("Q", self.close), ("Ctrl+Q", self.close),
                           ("Esc", self.leave)):
            QShortcut(QKeySequence(keys), self).activated.connect(work)

    # --- what is shown

    def take_newest(self) -> None:
        """Shows the newest result, if there is a new one; ends where the stream broke."""
        if self.stream.error:
            self.close()
        shot = self.stream.shot
        if shot is not self.shot:
            self.shot = shot
            self.draw()

    def draw(self) -> None:
        """Draws the frame that is shown, with what the controls say."""
        self.show_score()
        if self.shot is None:
            return
        scores = np.full(len(self.classes), self.slider.value() / 100)
        scores[np.array(self.hidden(), int) - 1] = np.inf
        self.found = self.shot.found.from_scores(scores)
        self.canvas.show_pixels(self.draw_on(self.canvas.fit(self.shot.pixels)))

    def draw_on(self, pixels: np.ndarray) -> np.ndarray:
        """A copy of the frame, of any size, with what was found."""
        boxes, scores, labels = self.found
        return draw_boxes(pixels, boxes, labels, scores=scores, classes=self.classes)

    def show_score(self) -> None:
        """Writes the threshold above its slider."""
        self.score_label.setText(f"least score  {self.slider.value() / 100:.2f}")

    def show_numbers(self) -> None:
        """Writes speed and the like into the status bar."""
        if self.shot:
            (height, width), count = self.shot.pixels.shape[:2], len(self.found.scores)
            speed = f"{self.stream.rate():.1f} frames/s"
            state = "paused" if self.stream.paused else "ended" if self.stream.ended else speed
            self.numbers.setText(f"{self.shot.name}   {width} x {height}   {count} object(s)   model "
                                 f"{self.shot.seconds * 1000:.0f} ms   {state}")
        running = not self.stream.paused and not self.stream.ended
        self.pause_button.setText("Pause" if running else "Again" if self.stream.ended else "Go on")

    def hidden(self) -> list[int]:
        """The labels whose classes are not ticked."""
        return [label for label in range(1, len(self.classes) + 1)
                if self.list.item(label - 1).checkState() != Qt.CheckState.Checked]

    # --- what the controls do

    def toggle_pause(self) -> None:
        """Holds the stream or lets it go on; after its end it begins again."""
        self.stream.pause(not self.stream.paused and not self.stream.ended)
        self.show_numbers()

    def check_all(self, on: bool) -> None:
        """Ticks all classes or none."""
        self.list.blockSignals(True)
        for index in range(self.list.count()):
            self.list.item(index).setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)
        self.list.blockSignals(False)
        self.draw()

    def filter_classes(self, text: str) -> None:
        """Lists only classes with this text in their names."""
        for index, name in enumerate(self.classes):
            self.list.item(index).setHidden(text.lower() not in name.lower())

    def save(self) -> None:
        """Writes the frame with its boxes, in its own size, as a PNG into the folder."""
        if self.shot is None:
            return
        path = os.path.join(self.folder, f"frame_{self.shot.number:06d}.png")
        try:
            save_png(path, self.draw_on(self.shot.pixels))
            self.statusBar().showMessage(f"saved {path}", 5000)
        except SSDError as error:
            self.statusBar().showMessage(str(error), 10000)

    def toggle_full_screen(self) -> None:
        """Fills the screen, or ends that."""
        self.showNormal() if self.isFullScreen() else self.showFullScreen()

    def closeEvent(self, event: QEvent) -> None:  # noqa: N802, Qt's name
        """Qt calls it."""
        self.closed.emit()

    def leave(self) -> None:
        """Ends the search for a class, the full screen, or the window."""
        if self.filter.hasFocus():
            self.filter.clear()
            self.canvas.setFocus()
        elif self.isFullScreen():
            self.showNormal()
        else:
            self.close()


def button(text: str, key: str, work: Callable[[], None]) -> QPushButton:
    """A button that names its key and never takes it from the others."""
    made = QPushButton(text, toolTip=f"key: {key}", focusPolicy=Qt.FocusPolicy.NoFocus)
    made.clicked.connect(lambda: work())  # without Qt's argument
    return made


def row(*parts: QWidget) -> QWidget:
    """Widgets side by side."""
    holder, layout = QWidget(), QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        layout.addWidget(part)
    holder.setLayout(layout)
    return holder


@contextlib.contextmanager
def open_window(stream: Stream, classes: Sequence[str], *, title: str, score: float, folder: str) -> Iterator[Window]:
    """A Window of a Stream, on the screen until the end of the context.

    All of it is deleted there. Its parts refer to each other, so Python would delete them when it collects garbage, in
    whatever thread that happens; Qt allows it in its own thread only.
    """
    window = Window(stream, classes, title=title, score=score, folder=folder)
    try:
        window.show()
        yield window
    finally:
        window.close()
        delete(window)


def show_window(stream: Stream, classes: Sequence[str], *, title: str, score: float, folder: str) -> None:
    """Shows a Stream until its window is closed, or Ctrl-C. Raises what ended the stream or the window."""
    app = QApplication.instance() or QApplication(["ssd"])
    # not app.exec(): that goes on while any other window is open
    loop, raised = QEventLoop(app), []
    with open_window(stream, classes, title=title, score=score, folder=folder) as window:
        window.closed.connect(loop.quit)

        def end(kind: type, error: BaseException, trace: object) -> None:
            raised.append(error)
            window.close()
        before, sys.excepthook = sys.excepthook, end  # Qt would print errors of Python and go on, Ctrl-C too
        try:
            loop.exec()
        finally:
            sys.excepthook = before
    for error in (*raised, stream.error):
        if error and not isinstance(error, KeyboardInterrupt):
            raise error
