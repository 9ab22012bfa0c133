"""log.jsonl is JSON whatever the numbers, and progress in a log file is short."""
import json

from src import logger


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
