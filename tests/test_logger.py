"""log.jsonl is JSON whatever the numbers, progress in a log file is short, and an error is told once."""
import json
import sys
from types import SimpleNamespace

import pytest

import train
from src import errors, progress
from src.training import log as logger
from src.training.state import RunState


def test_what_is_not_finite_is_null(tmp_path):
    log = logger.RunLog()
    log.open(str(tmp_path))
    log.write({"step": 1, "loss": float("nan"), "grad_norm": float("inf"), "lr": 0.5}, "train")
    log.close()
    text = (tmp_path / "log.jsonl").read_text()
    assert json.loads(text, parse_constant=None) == {"step": 1, "loss": None, "grad_norm": None, "lr": 0.5}
    assert "NaN" not in text and "Infinity" not in text


def test_rows_that_will_come_again_are_taken_out(tmp_path):
    path = tmp_path / "log.jsonl"
    rows = [{"classes": 4}, {"step": 2, "loss": 3.0}, {"step": 2, "AP": 0.1}, {"step": 4, "loss": 2.0}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 6, "lo')
    log = logger.RunLog()
    log.open(str(tmp_path), steps_done=3)
    log.write({"step": 4, "loss": 1.5})
    log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [*rows[:3], {"step": 4, "loss": 1.5}]


def test_a_log_without_a_folder_draws_nothing(tmp_path):
    logger.RunLog().picture("eval/predictions", str(tmp_path / "missing.png"), 3)


def test_a_text_that_is_there_before_the_folder_becomes_a_file_in_it(tmp_path):
    log = logger.RunLog()
    log.keep("pre_trained.txt", "all names")
    log.open(str(tmp_path))
    log.close()
    assert (tmp_path / "pre_trained.txt").read_text() == "all names\n"


def test_quick_progress_is_one_line(capsys):
    assert list(progress.track(range(30), 30, "checking")) == list(range(30))
    assert capsys.readouterr().out == "checking: 30/30, 0:00 left\n"


def test_slow_progress_is_told_every_tenth(capsys, monkeypatch):
    clock = iter(range(0, 10000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    list(progress.track(range(20), 20, "checking"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and lines[0] == "checking: 2/20, 1:48 left"
    list(progress.track(range(20), 20, "checking", quiet=True))
    assert capsys.readouterr().out == ""


FACTS = {"mindspore": "2.10.0", "numpy": "1.26.4", "device": "CPU", "processes": 1, "model": "net", "image_size": 300,
         "frozen_tensors": 0, "parameters": 1234567, "anchors": 8732, "classes": 2, "train_images": 40, "batch": 4,
         "commit": "abc1234"}


def test_what_is_trained_in_words():
    text = train.facts_in_words(FACTS)
    assert text == ("training net at 300 pixels (1,234,567 parameters, 8,732 anchors, 2 classes) on 40 images, 4 a "
                    "step; CPU, 1 process(es), MindSpore 2.10.0, numpy 1.26.4, commit abc1234")
    assert "(1,234,567 parameters, 3 tensors frozen, 8,732" in train.facts_in_words({**FACTS, "frozen_tensors": 3})


@pytest.mark.parametrize("minutes, steps, lines", [(0, 3, 1), (2, 3, 2), (2, 20, 1)])
def test_the_end_of_a_run(minutes, steps, lines, capsys):
    options = SimpleNamespace(dataset="coco", output_path="runs/a", minutes=minutes, device_target="CPU")
    train.tell_end(options, logger.RunLog(), RunState(10, steps, steps_done=steps, best=0.5))
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("done: runs/a/ckpt/last.ckpt, best AP 0.5000 in best.ckpt, peak memory")
    assert len(said) == lines and ("this is not a training yet: 3 step(s)" in said[-1]) == (lines == 2)


def raised(error, monkeypatch, capsys, rank):
    """What run_main prints for an error on a rank, and its exit code."""
    def fail():
        raise error
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", str(rank))
    monkeypatch.setattr(errors.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(errors.os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as end:
        errors.run_main(fail)
    return capsys.readouterr().err, end.value.code


@pytest.mark.parametrize("error, rank, text, code", [
    (errors.DataError("gone"), 0, "error: gone\n", 3),
    (errors.DataError("gone"), 1, "rank 1: error: gone\n", 3),  # nobody else was started who could say it
    (errors.RankFault("alone"), 2, "rank 2: error: alone\n", 4),
    (errors.NotFiniteError("nan"), 1, "rank 1: error: nan\n", 5),
    (KeyboardInterrupt(), 0, "error: interrupted before there was anything to save\n", 130)])
def test_the_first_process_speaks_for_all(error, rank, text, code, monkeypatch, capsys):
    assert raised(error, monkeypatch, capsys, rank) == (text, code)
