"""The live panel of a training: its numbers, and how a terminal shows it while other things are printed."""
import io
import os
import pty
import select
import struct
import sys
import termios
import time
from fcntl import ioctl

import pytest
from programs import ROOT, environment
from rich.console import Console

from src.training import log as logger
from src.training import panel

ROW = {"step": 10, "epoch": 2, "loss": 2.5, "loss_cls": 1.5, "loss_box": 1.0, "lr": 0.02, "grad_norm": 3.25,
       "images_per_second": 34.25, "data_time": 0.002, "step_time": 0.4, "eta": 90.0, "peak_memory": 2.125,
       "skipped": 0}
EVALUATION = {"step": 8, "epoch": 1, "AP": 0.25, "AP50": 0.5, "AP75": 0.125}


def panel_of(*rows, total=20):
    return panel.Panel("runs/first", total=total, steps_per_epoch=8, rows=rows)


def lines_of(shown, columns=100):
    return shown.lines(columns, curves=True)


def drawn(shown, width=80):
    console = Console(file=io.StringIO(), width=width, legacy_windows=False, _environ={})
    console.print(shown)
    return console.file.getvalue().splitlines()


def test_the_numbers_of_a_run():
    shown = panel_of()
    shown.add(EVALUATION)
    shown.add(ROW)
    shown.show(10, 2.25, 20)
    lines = lines_of(shown)
    assert lines[""] == "10/20  epoch 2/3  50%"
    assert lines["time"].startswith("0:00 so far  1:30 left  ends ")
    assert lines["loss"] == "2.2500  mean 2.5000  classes 1.5000  boxes 1.0000"
    assert lines["lr"] == "0.02000  gradient norm 3.25"
    assert lines["speed"] == "34.2 images/s  data 2 ms  step 400 ms  memory 2.1 GiB"
    assert lines["AP"] == "0.2500  best 0.2500 (epoch 1)  AP50 0.5000  AP75 0.1250"


def test_a_run_of_minutes_has_no_end_until_it_is_measured():
    shown = panel_of(total=0)
    shown.show(3, 2.25, 0)
    assert lines_of(shown)[""] == "step 3  epoch 1  measuring for --minutes"
    shown.show(3, 2.25, 40)
    assert lines_of(shown)[""] == "3/40  epoch 1/5  8%"


def test_before_the_first_step_nothing_is_known():
    lines = lines_of(panel_of())
    assert lines[""] == "compiling the first step  it may take minutes" and lines["time"] == "0:00 so far"
    assert lines["loss"] == lines["lr"] == lines["speed"] == "-" and lines["AP"] == "- not evaluated yet"


def test_a_resumed_run_shows_the_scores_of_its_earlier_start_but_not_its_times():
    later = {"step": 16, "epoch": 2, "mAP_11point": 0.9, "mAP_area": 0.5, "AP": 0.75}
    best = {**later, "epoch": 1, "mAP_area": 0.625}
    shown = panel_of({"classes": 4}, ROW, best, {**ROW, "loss": None}, later)
    lines = lines_of(shown)
    assert lines["time"] == "0:00 so far"
    assert lines["mAP"] == "0.5000  best 0.6250 (epoch 1)  █▁"


def test_numbers_that_are_not_finite_and_skipped_steps():
    shown = panel_of()
    shown.add({**ROW, "loss": None, "grad_norm": None, "skipped": 3})
    shown.show(10, float("nan"), 20)
    lines = lines_of(shown)
    assert lines[""].endswith("3 skipped") and lines["lr"].endswith("norm not finite")
    assert lines["loss"] == "nan  mean not finite  classes 1.5000  boxes 1.0000"


@pytest.mark.parametrize("values, expected", [
    ([], ""), ([1.0], ""), ([None, 2.0], ""), ([1, 8], "▁█"), ([2, 2, 2], "▁▁▁"), ([0, 7, 3], "▁█▄"),
    ([0] * 10 + [7] * 10, "▁" * 5 + "█" * 5)])
def test_curves(values, expected):
    assert panel.curve(values) == expected


@pytest.mark.parametrize("width", [20, 45, 80, 200])
def test_every_row_of_the_panel_is_one_row_of_the_terminal(width):
    shown = panel_of(EVALUATION, EVALUATION, ROW, ROW)
    shown.show(10, 2.25, 20)
    lines = drawn(shown, width)
    assert len(lines) == 9 and {len(line) for line in lines} == {min(width - panel.KEYS, panel.MAX_WIDTH)}


STATES = {
    "compiling": ((), None), "measuring": ((), (4, 12.25, 0)), "first row": ((ROW,), (10, 2.25, 20)),
    "large numbers": (({**ROW, "loss": 123.25, "loss_cls": 100.25, "loss_box": 23.0, "step_time": 12.5, "eta": 99999.0,
                        "data_time": 1.25, "skipped": 12}, {**ROW, "eta": 99999.0}), (12345, 123.25, 123456)),
    "evaluated": ((EVALUATION, ROW, ROW, {**EVALUATION, "epoch": 112, "AP": 0.5}), (19000, 2.25, 20000))}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_word_is_cut(state, width):
    """Each line holds the first of its parts that fit: whole ones, and of 80 columns all that an ordinary run has."""
    rows, step = STATES[state]
    shown = panel_of()
    shown.title = "a/folder/of/" + "long/" * 20 + "runs/first"
    for row in rows:
        shown.add(row)
    if step:
        shown.show(*step)
    whole = {part for line in lines_of(shown, 1000).values() for part in line.split(panel.GAP)}
    lines = drawn(shown, width)
    for line in lines[2:-1]:
        parts = line[2 + 7:-1].strip().split(panel.GAP)
        assert set(parts) <= whole, line
    assert lines[0].rstrip("─╮").endswith("long/runs/first ") and "…" not in "".join(lines)
    if state in ("first row", "evaluated") and width == 80:
        assert {"boxes 1.0000", "memory 2.1 GiB"} <= {part for line in lines for part in line[9:-1].split(panel.GAP)}


def test_a_file_gets_the_lines_of_the_steps_and_no_panel(capsys):
    log = logger.RunLog()
    with log.live(3) as show:
        show(1, 0.5, 3)
        log.say("step 1/3", in_panel=True)
    assert capsys.readouterr().out == "step 1/3\n"


# --- in a terminal

RUN = """
import os, sys, threading, time
from src.progress import track
from src.training.log import RunLog
log = RunLog()
log.open(sys.argv[1], steps_per_epoch=4)
with log.live(8) as show:
    for step in range(1, 9):
        show(step, 1 / step, 8)
        log.say(f"step line {step}", in_panel=True)
        time.sleep(0.1)
        if step == 2:
            print("said by Python")
            print("warned by Python", file=sys.stderr)
            os.write(2, b"warned by C++\\n")
        if step == 4:
            list(track(range(3), 3, "evaluating batches"))
            log.say("epoch 1 is done")
        if step == 5 and sys.argv[2] == "crash":
            os.write(2, b"the cause\\n")
            os.abort()
        if step == 6 and sys.argv[2] == "pause":
            while not os.path.exists(os.path.join(sys.argv[1], "acted")):
                time.sleep(0.05)
            time.sleep(1)
        if step == 6 and sys.argv[2] == "leave":
            def leave():
                log.leave_panel()
                os.write(2, b"the end")
                os._exit(0)
            threading.Thread(target=leave).start()
            time.sleep(600)
print("after the panel")
"""


def on_screen(folder, how, act=lambda process, terminal, screen: None, *, kind="xterm", columns=100):
    """The rows of a terminal with 30 of them after RUN; act is called when it has shown step 6. kind: TERM."""
    pyte = pytest.importorskip("pyte")
    screen = pyte.Screen(columns, 30)
    stream, acted = pyte.ByteStream(screen), False
    process, terminal = pty.fork()
    if process == 0:
        ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        os.chdir(ROOT)
        variables = environment(TERM=kind)
        variables.pop("COLUMNS", None)  # pytest-xdist sets it, and it would count instead of the terminal
        os.execve(sys.executable, [sys.executable, "-c", RUN, str(folder), how], variables)
    end = time.time() + 100
    while time.time() < end and select.select([terminal], [], [], 60)[0]:
        try:
            stream.feed(os.read(terminal, 4096))
        except OSError:  # the other side has closed it
            break
        if not acted and any("6/8" in row for row in screen.display):
            acted = True
            act(process, terminal, screen)
            (folder / "acted").touch()
    os.close(terminal)
    os.waitpid(process, 0)
    return [row.rstrip() for row in screen.display if row.strip()]


def test_what_is_printed_goes_above_the_panel(tmp_path):
    rows = on_screen(tmp_path, "through")
    said = ["said by Python", "warned by Python", "warned by C++", "epoch 1 is done"]
    assert sorted(rows[:4]) == sorted(said)
    assert rows[4].startswith("╭─") and "8/8  epoch 2/2  100%" in rows[6] and rows[-2].startswith("╰─")
    assert rows[-1] == "after the panel" and len(rows) == 14
    assert not (tmp_path / "messages.txt").exists()


def test_a_narrower_terminal_shows_the_panel_once(tmp_path):
    def narrow(process, terminal, screen):
        # the screen of the test keeps its 100 columns: it may still get the rest of a panel that is drawn for them
        ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 50, 0, 0))
    rows = on_screen(tmp_path, "pause", narrow)
    assert [row[:2] for row in rows] == ["╭─", *["│ "] * 7, "╰─", "af"] and {len(row) for row in rows[:-1]} == {46}


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_keys_that_the_terminal_writes_leave_no_trace(tmp_path, columns):
    """It writes ^F behind the panel as it writes ^C; in another row it would stay, and what was said above be lost."""
    def press(process, terminal, screen):
        os.write(terminal, b"\x06\x06")
    rows = on_screen(tmp_path, "pause", press, columns=columns)
    assert [row[:2] for row in rows[4:]] == ["╭─", *["│ "] * 7, "╰─", "af"] and not any("^F" in row for row in rows)
    assert "epoch 1 is done" in rows[:4]


def test_ctrl_c_leaves_a_terminal_that_shows_what_follows(tmp_path):
    rows = on_screen(tmp_path, "pause", lambda process, terminal, screen: os.write(terminal, b"\x03"))
    assert "KeyboardInterrupt" in rows[-1] and sum(row.startswith("╰─") for row in rows) == 1
    assert not (tmp_path / "messages.txt").exists()


def test_another_thread_can_end_the_program_and_leaves_a_good_terminal(tmp_path):
    rows = on_screen(tmp_path, "leave")
    assert rows[-1] == "the end" and sum(row.startswith("╰─") for row in rows) == 1
    assert not (tmp_path / "messages.txt").exists()


def test_a_terminal_that_cannot_draw_over_gets_lines(tmp_path):
    rows = on_screen(tmp_path, "through", kind="dumb")
    assert [row for row in rows if row.startswith("step line")] == [f"step line {step}" for step in range(1, 9)]
    assert not any("╭" in row for row in rows)


def test_a_crash_leaves_its_last_messages_in_a_file(tmp_path):
    on_screen(tmp_path, "crash")
    assert "the cause" in (tmp_path / "messages.txt").read_text()
    assert not any("the cause" in row for row in on_screen(tmp_path, "through"))  # not told again by the next start
