"""What follows an epoch: the state is saved before the evaluation and after it, and what is left says so."""
import os
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from programs import ROOT, read_rows, run, succeed
from stepping import Loader, make_loop

from src.errors import Interrupted
from src.training.saver import Saver
from src.training.state import RunState
from src.training.validator import Validator
from src.weights import checkpoint


class Written(Saver):
    """A Saver that keeps names and meta of what it would write."""

    def __init__(self, **more):
        super().__init__(SimpleNamespace(get_parameters=lambda: []), "run/ckpt", facts={"options": {"lr": 1}}, **more)
        self.saved = []

    def write(self, name, state, *, settled=False, keep=0):
        def save_run(folder, name, parameters, *, meta, keep):
            self.saved.append({**meta, "name": name})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, "save_run", save_run)
            super().write(name, state, settled=settled, keep=keep)


class Evaluates(Validator):
    """A Validator that calls a function instead, whose result ends the run."""

    def __init__(self, saver, act, **more):
        super().__init__(None, None, None, None, "", "run", None, **more)
        self.saver, self.act = saver, act

    def validate(self, state):
        self.saver.saved.append("evaluated")
        return {"ends": self.act()}

    def ends_run(self, state, metrics):
        return metrics["ends"]


class Scoreless(RunState):
    """A RunState that counts no scores."""

    def count_score(self, score):
        return False


def after(epoch, saver, evaluate=lambda: False, evaluates=True, interval=1):
    """The Loop of a run of three epochs of four steps, after an epoch."""
    validator = Evaluates(saver, evaluate, interval=interval) if evaluates else None
    loop = make_loop(None, Loader(4), np.ones(12), validator=validator, saver=saver)
    loop.state = Scoreless(4, 12, steps_done=4 * epoch, epoch_end_due=True)
    return loop


def names(saver):
    return [row if row == "evaluated" else (row["name"], row["settled"]) for row in saver.saved]


LAST, DONE = ("last", False), ("last", True)


@pytest.mark.parametrize("epoch, options, expected", [
    (1, {}, [LAST, "evaluated", DONE, ("epoch_0001", True)]),
    (1, {"evaluates": False}, [DONE, ("epoch_0001", True)]),
    (1, {"interval": 2}, [DONE, ("epoch_0001", True)]),
    (2, {"interval": 2, "epoch_interval": 3}, [LAST, "evaluated", DONE]),
    (1, {"interval": 2, "epoch_interval": 3}, []),
    (1, {"interval": 2, "epoch_interval": 3, "step_interval": 3}, [DONE]),
    (3, {"interval": 2, "epoch_interval": 2}, [LAST, "evaluated", DONE, ("epoch_0003", True)]),
    (1, {"evaluate": lambda: True, "epoch_interval": 3}, [LAST, "evaluated", DONE, ("epoch_0001", True)])])
def test_the_order(epoch, options, expected):
    saver = Written(**{key: options[key] for key in ("epoch_interval", "step_interval") if key in options})
    loop = after(epoch, saver, **{key: value for key, value in options.items() if not key.endswith("_interval")})
    assert loop.end_epoch() == ("evaluate" in options) and names(saver) == expected
    assert not loop.state.epoch_end_due and saver.last_saved == (4 * epoch if expected else None)


def test_an_evaluation_that_fails_has_the_epoch_saved_and_still_due():
    def fail():
        raise MemoryError

    saver = Written()
    loop = after(2, saver, fail)
    with pytest.raises(MemoryError):
        loop.end_epoch()
    assert names(saver) == [LAST, "evaluated"] and saver.last_saved == 8 and loop.state.epoch_end_due


@pytest.mark.parametrize("steps, total, settled, expected", [
    (4, 12, 0, False), (4, 12, 4, True), (5, 12, 4, True), (0, 12, 0, True), (6, 6, 4, False), (12, 12, 8, False)])
def test_what_a_checkpoint_says_is_still_to_do(steps, total, settled, expected):
    """At the end of an epoch or of the run, unless it was done: a fault in the next epoch's first batch saves again."""
    state, saver = RunState(4, total, steps_done=settled), Written()
    while state.steps_done < steps:
        state.count_step()
    saver.save_last(state)
    assert saver.saved[0]["settled"] is expected and saver.saved[0]["options"] == {"lr": 1}


@pytest.mark.parametrize("kept, words", [(None, "nothing was saved yet\n"), (4, "run/ckpt/last.ckpt holds the state "
                                                                         "after step 4, --resume=True goes on")])
def test_the_second_signal_says_what_was_saved_and_ends_the_program(kept, words, monkeypatch, capsys):
    codes = []
    monkeypatch.setattr("src.training.loop.leave_at_once", codes.append)
    loop = make_loop(SimpleNamespace(set_train=lambda: None), Loader(4), np.ones(12), start=6,
                     saver=Written(last_saved=kept))
    loop.stop_now()
    assert capsys.readouterr().err.startswith(f"error: interrupted at once, after step 6; {words}") and codes == [130]


def test_a_signal_behind_the_last_step_says_what_was_saved_too():
    """While the curves are drawn, for example."""
    def interrupt():
        raise KeyboardInterrupt

    loop = make_loop(SimpleNamespace(set_train=lambda: None), Loader(4), np.ones(12), start=6,
                     saver=Written(last_saved=6))
    loop.log.close = interrupt
    loop.train = lambda: None
    with pytest.raises(Interrupted, match="^interrupted at once, after step 6; .* holds the state after step 6"):
        loop.run()


def test_what_ends_after_the_first_signal_is_said():
    loops = []
    for total, what in ((12, "this evaluation and the next step"), (8, "this evaluation")):  # step 8 is the last of 8
        loops.append(after(2, Written(), lambda: loops[-1].tell_stop()))
        loops[-1].state.total_steps = total
        loops[-1].end_epoch()
        loops[-1].tell_stop()
        assert loops[-1].log.said == [f"stopping after {doing}; press Ctrl-C again to stop now" for doing in
                                 (what, "this step")]


def test_the_row_of_an_evaluation_that_comes_again_is_taken_out(tmp_path):
    from src.training.log import RunLog
    path = tmp_path / "log.jsonl"
    rows = ['{"step": 4, "AP": 0.1}', '{"step": 8, "loss": 2.0}', '{"step": 8, "AP": 0.2}']
    for evaluated in (True, False):
        path.write_text("\n".join(rows) + "\n")
        log = RunLog()
        log.open(str(tmp_path), steps_done=8, evaluated=evaluated)
        log.close()
        assert path.read_text().splitlines() == rows[:3 if evaluated else 2]


# --- train.py

FAULTY = """
import os, signal, sys
sys.path.insert(0, {root!r})
import src.metrics, train
from src.errors import run_main

def fail(*rest):
    for _ in range({signals}):
        os.kill(os.getpid(), signal.SIGINT)
    raise ZeroDivisionError("injected")

src.metrics.run_engine = fail
run_main(train.main)
"""


@pytest.mark.long
@pytest.mark.parametrize("signals, code", [(0, 1), (2, 130)])
def test_a_fault_of_the_metric_engine_loses_nothing(place, trained, tmp_path, signals, code):
    """The resumed run makes up for the evaluation and ends as the one that had no fault."""
    program, folder = tmp_path / "faulty.py", tmp_path / "run"
    program.write_text(FAULTY.format(root=ROOT, signals=signals))
    done = run(place, sys.executable, program, *place.data, f"--output_path={folder}")
    assert done.returncode == code
    if signals:
        assert re.fullmatch(r"error: interrupted at once, after step 6; \S+last\.ckpt holds the state after step 6, "
                            r"--resume=True goes on from there\n", done.stderr), done.stderr
    assert os.listdir(folder / "ckpt") == ["last.ckpt"]
    meta = checkpoint.load(str(folder / "ckpt" / "last.ckpt"))[1]
    assert meta["steps_done"] == 6 and not meta["settled"] and meta["options"]["epoch_size"] == 2
    text = succeed(place, "train.py", "--resume=True", f"--output_path={folder}")
    assert "resumed after step 6" in text and "changed since" not in text
    scores = [[(row["step"], row["AP"]) for row in read_rows(one) if "AP" in row] for one in (folder, trained.folder)]
    assert scores[0] == scores[1] and [step for step, _ in scores[0]] == [6, 12]
    assert sorted(os.listdir(folder / "ckpt")) == sorted(os.listdir(trained.folder / "ckpt"))
