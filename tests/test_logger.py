"""log.jsonl is JSON whatever the numbers, progress in a log file is short, and an error is told once."""
import json

import pytest

from src import errors, logger


def test_what_is_not_finite_is_null(tmp_path):
    log = logger.RunLog()
    log.open(str(tmp_path))
    log.write({"step": 1, "loss": float("nan"), "grad_norm": float("inf"), "lr": 0.5}, "train")
    log.close()
    text = (tmp_path / "log.jsonl").read_text()
    assert json.loads(text, parse_constant=None) == {"step": 1, "loss": None, "grad_norm": None, "lr": 0.5}
    assert "NaN" not in text and "Infinity" not in text


def test_quick_progress_is_one_line(capsys):
    assert list(logger.plain_track(range(30), 30, "checking", False)) == list(range(30))
    assert capsys.readouterr().out == "checking: 30/30, 0:00 left\n"


def test_slow_progress_is_told_every_tenth(capsys, monkeypatch):
    clock = iter(range(0, 10000, 6))
    monkeypatch.setattr(logger.time, "time", lambda: next(clock))
    list(logger.plain_track(range(20), 20, "checking", False))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and lines[0] == "checking: 2/20, 1:48 left"
    list(logger.plain_track(range(20), 20, "checking", True))
    assert capsys.readouterr().out == ""


def raised(error, monkeypatch, capsys, rank):
    """What run_main prints for an error on a rank, and its exit code."""
    def fail():
        raise error
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", str(rank))
    monkeypatch.setattr(errors.time, "sleep", lambda seconds: None)
    with pytest.raises(SystemExit) as end:
        errors.run_main(fail)
    return capsys.readouterr().err, end.value.code


@pytest.mark.parametrize("error, rank, text, code", [
    (errors.DataError("gone"), 0, "error: gone\n", 3), (errors.DataError("gone"), 1, "", 3),
    (errors.RankFault("alone"), 2, "rank 2: error: alone\n", 4),
    (errors.NotFiniteError("nan"), 1, "rank 1: error: nan\n", 5),
    (KeyboardInterrupt(), 0, "error: interrupted before there was anything to save\n", 130)])
def test_the_first_process_speaks_for_all(error, rank, text, code, monkeypatch, capsys):
    assert raised(error, monkeypatch, capsys, rank) == (text, code)
