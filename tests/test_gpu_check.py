"""scripts/gpu_check.sh: its comparisons, what it says of a part that fails, and a whole small run on the CPU."""
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from programs import ROOT, environment

sys.path.insert(0, os.path.join(ROOT, "scripts"))
import gpu_check

from src.errors import Interrupted, OptionError


def rows(*losses):
    return [{"loss": loss} for loss in losses]


def start(folder, seconds, **variables):
    command = ["bash", os.path.join(ROOT, "scripts", "gpu_check.sh"), str(folder / "out")]
    done = subprocess.run(command, cwd=folder, env=environment(**variables), capture_output=True, text=True,
                          timeout=seconds, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done, (folder / "out" / "gpu_check.log").read_text()


@pytest.mark.parametrize("level, others, fails", [
    ("O0", (8.0, 4.0, 2.001), False), ("O0", (8.0, 4.0, 2.003), True), ("O2", (8.0, 4.0, 2.05), False),
    ("O2", (8.0, 4.0, 2.1), True), ("O0", (8.0, math.nan, 2.0), True)])
def test_losses_are_compared_by_their_relative_difference(level, others, fails):
    if fails:
        with pytest.raises(gpu_check.Failed, match="at most"):
            gpu_check.compare_losses(rows(8, 4, 2), rows(*others), level=level, name="the CPU's")
    else:
        text = gpu_check.compare_losses(rows(8, 4, 2), rows(*others), level=level, name="the CPU's")
        assert "8.00000, 4.00000, 2.00000" in text


@pytest.fixture(name="check")
def new_check(tmp_path):
    return gpu_check.Check(str(tmp_path / "out"), "CPU", True)


def read_log(check):
    with open(check.log, encoding="utf-8") as file:
        return file.read()


def test_a_part_that_fails_is_a_row_with_its_reason(check, capsys):
    assert check.part("good", lambda: "fine") == 0
    assert check.part("bad", check.start, "train.py", "--epocs=3") == 2
    assert check.part("slow", lambda: check.start("train.py", "--help", seconds=0.001)) == 1
    good, bad, slow = check.rows
    assert re.search(r"good +ok .* fine", good) and re.search(r"slow +FAILED .* stopped after 0.001 s", slow)
    assert re.search(r"bad +FAILED +\d+ s  train.py exit 2: error: .*did you mean 'epoch_size'", bad)
    assert capsys.readouterr().out.count("\n") == 3


def test_each_row_is_in_the_log_at_once_and_a_fault_of_the_script_is_one(check):
    check.part("good", lambda: "fine")
    assert re.search(r"^good +ok .*fine\n", read_log(check), re.MULTILINE)
    assert check.part("odd", lambda: {}["detections"]) == 1
    assert re.search(r"\ngood +ok .*\nodd +FAILED +\d+ s  KeyError: 'detections'\n\nTraceback", read_log(check))
    with pytest.raises(KeyboardInterrupt):
        check.part("interrupted", stop)
    assert read_log(check).count("good ") == 1


def stop(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("failed, code, parts", [(0, 0, 7), (1, 1, 7), (2, 1, 7), (4, 4, 1)])
def test_only_a_device_that_does_not_start_ends_the_check(check, monkeypatch, failed, code, parts):
    def convolution():
        if failed:
            raise gpu_check.Failed("largest relative difference 1.0e+00", failed)
        return "fine"

    for name in ("data_set", "train", "compare", "speed", "evaluate", "export"):
        monkeypatch.setattr(check, name, lambda *_: "fine")
    monkeypatch.setattr(check, "convolution", convolution)
    assert gpu_check.run(check) == code
    assert len(check.rows) == parts and read_log(check).count(" FAILED ") == bool(failed)


def test_a_wrong_convolution_does_not_count_as_a_device_that_does_not_start(check, monkeypatch):
    def start(_, path, device, *__, **___):
        np.savez(path, output=np.ones(3) * (2 if path.endswith("0.npz") else 1))

    monkeypatch.setattr(check, "start", start)
    assert check.part("convolutions", check.convolution) == 1 and "FAILED" in check.rows[0]


def test_an_interruption_names_the_log_and_a_folder_is_not_taken_twice(check, monkeypatch):
    again = ["gpu_check.py", check.folder, "--device=CPU"]
    monkeypatch.setattr(sys, "argv", again)
    with pytest.raises(OptionError, match=f"^{check.folder} exists; name a new one$"):
        gpu_check.main()
    monkeypatch.setattr(sys, "argv", [*again[:1], f"{check.folder}2", *again[2:]])
    monkeypatch.setattr(gpu_check, "run", stop)
    with pytest.raises(Interrupted, match=f"^interrupted; the parts that ended are in {check.folder}2/gpu_check.log$"):
        gpu_check.main()


@pytest.mark.long
def test_a_small_run_on_the_cpu(tmp_path):
    done, log = start(tmp_path, 1500, DEVICE="CPU", QUICK="1")
    assert done.returncode == 0 and "FAILED" not in done.stdout, done.stdout + done.stderr
    for part in ("convolutions, CPU against CPU", "data", "ssd300_mobilenet_v2 O0, batch 2, against CPU",
                 "ssd300_mobilenet_v2 O0, batch 4", "ssd300_mobilenet_v2 O2, batch 4",
                 "evaluation of ssd300_mobilenet_v2, against CPU", "MindIR of ssd300_mobilenet_v2"):
        assert re.search(rf"^{part} +ok +\d+ s  ", log, re.MULTILINE), log
    assert re.search(r"^\d{4}-\d\d-\d\d .* device CPU, quick", log) and "images/s" in log and "this folder" in log


@pytest.mark.long
@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="this machine has an NVIDIA driver")
def test_without_a_driver_it_ends_at_the_first_part(tmp_path):
    done, log = start(tmp_path, 300, DEVICE="GPU")
    assert done.returncode == 4 and done.stdout.count("FAILED") == 1, done.stdout + done.stderr
    assert re.search(r"convolutions, GPU against CPU +FAILED .*no NVIDIA driver", log)
