"""Runs side by side: what is read of them, and what plot_log.py and compare_runs.py show."""
import json
import os
import time

import cv2
import numpy as np
import pytest
import yaml
from conftest import ROOT
from programs import environment

from src.errors import DataError
from src.training import history
from src.training.history import align, differing_options, read_runs, read_times, show
from src.training.log import RunLog

STARTED = "2026-11-27 12:00:00"


def step(number, loss, **more):
    return {"step": number, "epoch": -(-number // 4), "loss": loss, "loss_cls": loss / 2, "loss_box": loss / 2,
            "lr": 0.1, "grad_norm": 1.0, "images_per_second": 8.0, **more}


def write_run(folder, *rows, options=None, seconds=(), steps_done=0, resumed=True, **facts):
    """The folder of a run of 4 steps an epoch; seconds: of each row after STARTED, for TensorBoard."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"lr": 0.1, "output_path": str(folder), **(options or {})}))
    log = RunLog()
    log.open(str(folder), steps_done=steps_done, resumed=resumed)
    log.write({"model": "ssd", "batch": 2, "train_images": 8, "time": STARTED, **facts})
    start, clock = time.mktime(time.strptime(STARTED, "%Y-%m-%d %H:%M:%S")), time.time
    try:
        for row, moment in zip(rows, seconds or range(len(rows))):
            time.time = lambda moment=moment: start + moment
            log.write(row, "train" if "loss" in row else "eval")
    finally:
        time.time = clock
    for file in filter(None, (log.file, log.events)):
        file.close()
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    """One run of two epochs, evaluated after each, and one that was cut short in the first."""
    first = write_run(tmp_path / "a", step(2, 4.0), step(4, 3.0), {"step": 4, "epoch": 1, "AP": 0.25, "AP50": -1.0},
                      step(8, 2.0), {"step": 8, "epoch": 2, "AP": 0.2, "AP50": 0.5}, options={"batch_size": 2},
                      seconds=(60, 120, 130, 200, 240))
    second = write_run(tmp_path / "b", step(2, 9.0), options={"lr": 0.5, "batch_size": 16}, seconds=(30,))
    return [first, second]


def test_series_over_each_axis(runs):
    first, second = read_runs(runs)
    assert (first.name, second.name) == ("a", "b") and first.steps_per_epoch == 4
    assert first.series("loss") == [(0.5, 4.0), (1.0, 3.0), (2.0, 2.0)]
    assert first.series("AP", "step") == [(4, 0.25), (8, 0.2)]
    assert np.array(first.series("AP", "minutes")) == pytest.approx(np.array([(130 / 60, 0.25), (4, 0.2)]))
    assert first.series("AP50") == [(2.0, 0.5)]  # -1 is no number
    assert first.best("AP") == (0.25, 1.0) and second.best("AP") is None and second.series("nothing") == []


def test_a_run_within_its_first_epoch(tmp_path):
    run, = read_runs([write_run(tmp_path / "a", step(2, 4.0), steps_per_epoch=4)])
    assert run.series("loss") == [(0.5, 4.0)]


def test_a_pause_does_not_count(tmp_path):
    """Stopped after 100 seconds, resumed after 1000: the row at 1050 stands at 150 seconds."""
    folder = write_run(tmp_path / "a", step(2, 4.0), step(4, 3.0), step(8, 2.0), seconds=(50, 100, 1050))
    start = time.mktime(time.strptime(STARTED, "%Y-%m-%d %H:%M:%S"))
    seconds = read_times(folder, [start, start + 1000])
    assert [seconds[number, False] for number in (2, 4, 8)] == pytest.approx([50, 100, 150])


def test_a_killed_start_counts_in_the_time_and_its_lost_rows_do_not_in_the_curve(tmp_path):
    """Saved after step 4 (100 s), killed after step 6 (150 s); the second start has step 6 after 60 s, 8 after 90."""
    folder = write_run(tmp_path / "a", step(2, 4.0), step(4, 3.0), step(6, 9.0), seconds=(50, 100, 150))
    start = time.mktime(time.strptime(STARTED, "%Y-%m-%d %H:%M:%S"))
    write_run(tmp_path / "a", step(6, 2.5), step(8, 2.0), seconds=(1060, 1090), steps_done=4,
              time="2026-11-27 12:16:40")
    run, = read_runs([folder])
    assert run.series("loss", "step") == [(2, 4.0), (4, 3.0), (6, 2.5), (8, 2.0)]
    minutes = [x * 60 for x, _ in run.series("loss", "minutes")]
    assert minutes == pytest.approx([50, 100, 150 + 60, 150 + 90]) and max(run.times.values()) == pytest.approx(240)
    assert read_times(folder, [start])[6, False] == pytest.approx(1060)  # without the second start in the log


def test_nothing_of_a_run_that_saved_nothing_is_in_the_one_that_starts_again(tmp_path):
    folder = write_run(tmp_path / "a", step(2, 9.0), step(4, 9.0), seconds=(50, 100))
    write_run(tmp_path / "a", step(2, 2.0), seconds=(1030,), resumed=False, time="2026-11-27 12:16:40")
    run, = read_runs([folder])
    assert run.series("loss", "minutes") == [(pytest.approx(0.5), 2.0)] and len(run.times) == 1
    assert run.facts["time"] == "2026-11-27 12:16:40"


def test_options_that_differ(runs):
    """An option that an old run lacks has the default; where things lie does not count."""
    assert differing_options(read_runs(runs)) == [("batch_size", ["2", "16"]), ("lr", ["0.1", "0.5"])]
    assert show(["a", "b"]) == "a,b" and show("") == "-" and show("/data/coco") == "coco" and show(False) == "False"


def test_runs_of_one_name_get_more_of_their_paths(tmp_path):
    folders = [write_run(tmp_path / above / "run", step(2, 4.0)) for above in ("x", "y")]
    assert [run.name for run in read_runs(folders)] == ["x/run", "y/run"]


def test_what_is_no_run(tmp_path):
    with pytest.raises(DataError, match="is not the folder of a run: .*log.jsonl cannot be read"):
        read_runs([str(tmp_path)])
    with pytest.raises(DataError, match="has not logged a step yet"):
        read_runs([write_run(tmp_path / "new")])


def test_columns():
    assert align([("", "a", ""), ("name", "12", "xy"), ("n", "1", "z")]) == "       a\nname  12  xy\nn      1  z"


def call(program, *arguments):
    """Runs a script -> its exit code, output and errors."""
    import subprocess
    import sys
    done = subprocess.run([sys.executable, os.path.join(ROOT, "scripts", program), *arguments], env=environment(),
                          capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_compare_runs(runs, tmp_path):
    os.makedirs(os.path.join(runs[0], "eval"))
    with open(os.path.join(runs[0], "eval", "metrics.json"), "w", encoding="utf-8") as file:
        json.dump({"AP": 0.375, "APs": -1.0, "per_class": {}}, file)
    code, text, errors = call("compare_runs.py", *runs, f"--output={tmp_path}/out", "--over=minutes")
    assert code == 0, errors
    rows = {line[:26].strip(): line[26:].split() for line in text.splitlines()}
    assert rows["best AP (epoch)"] == ["0.2500", "(1)", "-"]
    assert rows["eval.py AP"] == ["0.3750", "-"] and rows["images seen"] == ["16", "4"]
    assert rows["time, evaluations included"] == ["4:00", "0:30"] and "mAP_area" not in text
    assert "\nOptions that differ\n" in text and (tmp_path / "out" / "comparison.txt").read_text() in text
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert "<h2>Options that differ</h2>" in page and page.count("data:image/svg+xml") == 4  # loss, lr, AP, AP50
    assert cv2.imread(str(tmp_path / "out" / "comparison.png")).std() > 1
    code, _, errors = call("compare_runs.py", runs[0])
    assert code == 2 and "two runs or more" in errors


def test_plot_log(runs, tmp_path):
    code, text, errors = call("plot_log.py", runs[0])
    assert code == 0, errors
    lines = {line.split()[1]: line.split()[2:] for line in text.splitlines()[1:]}
    assert lines["loss"] == ["3", "4", "2", "2", "█▅▁"] and lines["AP"] == ["2", "0.25", "0.25", "0.2", "█▁"]
    assert lines["lr"][2] == "-"
    code, text, errors = call("plot_log.py", *runs, f"--output={tmp_path}/out", "--over=step")
    assert code == 0 and "wrote " in text, errors
    page = (tmp_path / "out" / "curves.html").read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml") == 8 and cv2.imread(str(tmp_path / "out" / "curves.png")).std() > 1


def test_a_chart_of_one_run_has_no_legend(runs):
    figure = history.draw_series(read_runs(runs[:1]), ["loss", "AP", "lr", "AP50"])
    assert not figure.legends and [axis.get_visible() for axis in figure.axes] == [True] * 4 + [False] * 2
    assert len(history.draw_series(read_runs(runs), ["loss"]).legends) == 1
