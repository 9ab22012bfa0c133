"""What follows an epoch: the state is saved before the evaluation and after it, and what is left says so."""
import os
import re
import sys
from types import SimpleNamespace

import pytest
from programs import ROOT, read_rows, run, succeed

from src.errors import Interrupted
from src.training import loop as engine
from src.training.meter import Meter
from src.training.trainer import Run
from src.weights import checkpoint

OPTIONS = {"eval_start_epoch": 1, "eval_interval": 1, "save_checkpoint_epochs": 1, "save_checkpoint_steps": 0,
           "keep_checkpoint_max": 5, "max_steps": 0, "log_interval": 1, "early_stop": 0}


class Bare(Run):
    """A run of three epochs of four steps; keeps names and meta of what it saves."""

    def __init__(self, evaluate=lambda: False, truth=True, **options):
        self.options, self.truth, self.act = SimpleNamespace(**{**OPTIONS, **options}), truth, evaluate
        self.loader, self.meter, self.log = SimpleNamespace(steps=4), Meter(12, 1), None
        self.rank, self.world, self.folder, self.owed = 0, 1, "run/ckpt", False
        self.step = SimpleNamespace(get_parameters=lambda: [], set_train=lambda: None)
        self.settled, self.kept, self.steps_done, self.saved = 0, None, 0, []

    def save(self, name, steps_done=None, keep=0, settled=False):
        super_rank, self.rank = self.rank, 1  # all of saving but the file
        super().save(name, steps_done, keep, settled)
        self.rank = super_rank
        self.saved.append((name, settled))

    def evaluate(self, epoch, steps_done):
        self.saved.append("evaluated")
        return self.act()


LAST, DONE = ("last", False), ("last", True)


@pytest.mark.parametrize("epoch, options, expected", [
    (1, {}, [LAST, "evaluated", DONE, ("epoch_0001", True)]),
    (1, {"truth": None}, [DONE, ("epoch_0001", True)]),
    (1, {"eval_interval": 2}, [DONE, ("epoch_0001", True)]),
    (2, {"eval_interval": 2, "save_checkpoint_epochs": 3}, [LAST, "evaluated", DONE]),
    (1, {"eval_interval": 2, "save_checkpoint_epochs": 3}, []),
    (1, {"eval_interval": 2, "save_checkpoint_epochs": 3, "save_checkpoint_steps": 3}, [DONE]),
    (3, {"eval_interval": 2, "save_checkpoint_epochs": 2}, [LAST, "evaluated", DONE, ("epoch_0003", True)]),
    (1, {"evaluate": lambda: True, "save_checkpoint_epochs": 3}, [LAST, "evaluated", DONE, ("epoch_0001", True)])])
def test_the_order(epoch, options, expected):
    run = Bare(**options)
    assert run.after_epoch(epoch, 4 * epoch) == ("evaluate" in options) and run.saved == expected
    assert run.settled == 4 * epoch and run.kept == (4 * epoch if expected else None)


def test_an_evaluation_that_fails_has_the_epoch_saved_and_owed():
    def fail():
        raise MemoryError

    run = Bare(fail)
    with pytest.raises(MemoryError):
        run.after_epoch(2, 8)
    assert run.saved == [LAST, "evaluated"] and run.kept == 8 and run.settled == 0


@pytest.mark.parametrize("steps, total, settled, expected", [
    (4, 12, 0, False), (4, 12, 4, True), (5, 12, 4, True), (0, 12, 0, True), (6, 6, 4, False), (12, 12, 8, False)])
def test_what_a_checkpoint_says_is_still_to_do(monkeypatch, steps, total, settled, expected):
    """At the end of an epoch or of the run, unless it was done: a fault in the next epoch's first batch saves again."""
    from src.training import trainer as module
    metas = []
    monkeypatch.setattr(module, "describe", lambda *rest, **facts: facts)
    monkeypatch.setattr(module.checkpoint, "save_run", lambda folder, name, parameters, meta, keep: metas.append(meta))

    class Saving(Bare):
        save = Run.save

        def surroundings(self):
            return {}

    run = Saving()
    run.options, run.model, run.split = {"lr": 1, "typed": []}, None, SimpleNamespace(classes=[], category_ids=[])
    run.meter.total, run.settled, run.best, run.since_best = total, settled, -1, 0
    run.save("last", steps)
    assert metas[0]["settled"] is expected and metas[0]["options"] == {"lr": 1}


@pytest.mark.parametrize("kept, words", [(None, "nothing was saved yet"), (4, r"run/ckpt/last\.ckpt holds the state "
                                                                         r"after step 4, --resume=True goes on")])
def test_the_second_signal_says_what_was_saved(monkeypatch, tmp_path, kept, words):
    def interrupt(*rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "train", interrupt)
    run = Bare()
    (tmp_path / "truth.json").write_text('{"images": []}')
    run.split, run.finish, run.kept, run.meter.done = SimpleNamespace(ground_truth=str(tmp_path / "truth.json")), \
        lambda: None, kept, 6
    with pytest.raises(Interrupted, match=f"^interrupted at once, after step 6; {words}"):
        run.train([], 0)


def test_the_row_of_an_evaluation_that_comes_again_is_taken_out(tmp_path):
    from src.training.log import RunLog
    path = tmp_path / "log.jsonl"
    rows = ['{"step": 4, "AP": 0.1}', '{"step": 8, "loss": 2.0}', '{"step": 8, "AP": 0.2}']
    for evaluated in (True, False):
        path.write_text("\n".join(rows) + "\n")
        log = RunLog()
        log.open(str(tmp_path), 8, evaluated)
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

src.metrics.coco_metrics = fail
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
