"""bench/soak.py and bench/processes.py: slopes with their error, what a program holds, and what it left."""
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from programs import is_picture


@pytest.fixture
def soak(in_bench):
    return in_bench("soak")


@pytest.fixture
def processes(in_bench):
    return in_bench("processes")


HOURS = (np.arange(400) + 0.5) / 400  # 20 in each of the 20 blocks of an hour


def test_the_slope_of_a_line_has_no_error(soak):
    assert soak.fit_slope(HOURS, 100 + 3 * HOURS) == pytest.approx((3, 0), abs=1e-6)


def test_noise_within_a_block_does_not_count_but_between_blocks(soak):
    assert soak.fit_slope(HOURS, np.tile([5.0, 7.0], 200)) == pytest.approx((0, 0), abs=1e-9)
    means = np.random.default_rng(0).normal(size=20)
    (slope, _), covariance = np.polyfit((np.arange(20) + 0.5) / 20, means, 1, cov=True)  # an independent fit
    found = soak.fit_slope(HOURS, np.repeat(means, 20))
    assert found == pytest.approx((slope, 2.101 * covariance[0, 0] ** 0.5), rel=0.01)


@pytest.mark.parametrize("slope, error, verdict", [(0, 0, "flat"), (0.5, 0.4, "flat"), (-0.5, 0.5, "flat"),
                                                   (0.5, 0.6, "not clear"), (2, 0.9, "grows"), (-2, 0.5, "falls")])
def test_a_verdict_looks_at_the_whole_interval(soak, slope, error, verdict):
    assert soak.judge(slope, error, 1) == verdict


def write_rows(path, rows):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def training(folder, steps=55, leave_out=(), memory=lambda hours: 1000.0):
    """What a training of so many steps leaves, and samples of two hours: the first step comes after one."""
    rows = [{"step": step, "loss": 1.0} for step in range(10, steps + 1, 10) if step not in leave_out]
    rows += [{"step": step, "AP": 0.1} for step in range(20, steps + 1, 20) if f"AP{step}" not in leave_out]
    write_rows(f"{folder}/run/log.jsonl", [{"device": "CPU"}, *sorted(rows, key=lambda row: row["step"])])
    os.makedirs(f"{folder}/run/ckpt")
    for name in ("last", "best", "epoch_0001", "epoch_0002"):
        open(f"{folder}/run/ckpt/{name}.ckpt", "w").close()
    counts = {"rss": 2 ** 31, "files": 30, "threads": 8, "processes": 1, "shared": 0, "cpu": 60}
    write_rows(f"{folder}/samples.jsonl", [{"time": 3600 * hours, "own": 2 ** 20 * memory(hours), **counts,
                                            "done": 10 * (hours > 1)} for hours in np.linspace(0, 2, 401).tolist()])
    with open(f"{folder}/run.json", "w", encoding="utf-8") as file:
        json.dump({"what": "training", "hours": 2.0, "exit_code": 130, "ended": False, "machine": "a machine",
                   "date": "2026-01-01", "commit": "abc"}, file)


def test_growth_before_the_first_step_is_warm_up(soak, tmp_path):
    training(tmp_path, memory=lambda hours: 1000.0 * min(hours, 1))
    result = soak.summarize(str(tmp_path))
    assert result["slopes"]["own"] == {"mean": 1000, "slope": 0, "error": 0, "limit": 20, "verdict": "flat"}
    assert result["faults"] == [] and 1.2 <= result["warm_from"] < 1.22
    assert "| own memory, MiB | 1000 | +0 ± 0 | 20 | flat |" in soak.lines_of(result)


def test_a_leak_is_found_and_drawn(soak, tmp_path):
    training(tmp_path, memory=lambda hours: 1000 + 50 * hours)
    result = soak.summarize(str(tmp_path))
    assert result["slopes"]["own"]["slope"] == pytest.approx(50) and result["slopes"]["own"]["verdict"] == "grows"
    soak.draw([str(tmp_path)], [result], str(tmp_path / "soak.png"))
    assert is_picture(tmp_path / "soak.png")


@pytest.mark.parametrize("leave_out, fault", [((20,), "lacks steps"), (("AP20",), "lacks evaluations"),
                                              (("AP20", "AP40"), "lacks evaluations")])
def test_a_log_with_holes(soak, tmp_path, leave_out, fault):
    training(tmp_path, leave_out=leave_out)
    assert any(fault in text for text in soak.check_training(str(tmp_path)))


def test_files_that_are_cut_or_missing(soak, tmp_path):
    training(tmp_path)
    with open(tmp_path / "run/log.jsonl", "a") as file:
        file.write('{"broken\n{"step": 60, "lo')
    os.remove(tmp_path / "run/ckpt/best.ckpt")
    (tmp_path / "run/ckpt/last.ckpt.part77").touch()
    assert soak.check_training(str(tmp_path)) == [
        "line 9 of log.jsonl is broken", "the last line of log.jsonl is cut",
        "the checkpoints are epoch_0001.ckpt, epoch_0002.ckpt, last.ckpt", "last.ckpt.part77 is left"]


@pytest.mark.parametrize("frames, drawn, fault", [
    ("a0 a1 b0", "a b", None), ("a0 b0 b1", "a b", None), ("a0 a2 b0", "a b", "lacks frames before 2 of a.mp4"),
    ("a0 b1", "a b", "lacks frames before 1 of b.mp4"), ("a0 b0", "a", "2 clips were read, 1 drawn")])
def test_a_prediction(soak, tmp_path, frames, drawn, fault):
    os.makedirs(tmp_path / "run")
    for name in drawn.split():
        (tmp_path / f"run/{name}.mp4").touch()
    rows = [{"file": f"{name}.mp4", "frame": int(number)} for name, number in frames.split()]
    (tmp_path / "run/predictions.json").write_text(json.dumps(rows))
    faults = soak.check_prediction(str(tmp_path))
    assert fault in faults[0] if fault else faults == []


def test_a_tree_of_processes_is_measured_and_stopped(processes):
    code = ("import signal, subprocess, threading, time; subprocess.Popen(['sleep', '60']);"
            "threading.Thread(target=time.sleep, args=(60,), daemon=True).start();"
            "files = [open('/dev/null') for _ in range(50)]; block = bytearray(50 << 20); del block;"
            "signal.signal(signal.SIGINT, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline() == "ready\n"
        found, own = processes.measure_tree(program.pid), processes.tree_of(program.pid)
        assert found["processes"] == 2 == len(own) and found["threads"] == 3 and found["files"] > 50
        assert 0 < found["pss"] <= found["rss"] and 0 < found["own"] <= found["rss"] and found["shared"] == 0
        assert processes.highest_memory(program.pid) > 50 << 20  # though it holds less now
        assert processes.stop_tree(program, signal.SIGINT, 0.2) == -signal.SIGKILL
        deadline = time.time() + 10
        while any(one.is_running() and one.status() != "zombie" for one in own) and time.time() < deadline:
            time.sleep(0.05)
    assert processes.measure_tree(program.pid) == {} and processes.highest_memory(program.pid) == 0
