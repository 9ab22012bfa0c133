"""scripts/gpu_check.sh: its comparisons, what it says of a part that fails, and a whole small run on the CPU."""
import math
import os
import re
import subprocess
import sys

import pytest
from programs import ROOT, environment

sys.path.insert(0, os.path.join(ROOT, "scripts"))
import gpu_check


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
            gpu_check.close(rows(8, 4, 2), rows(*others), level, "the CPU's")
    else:
        assert "8.00000, 4.00000, 2.00000" in gpu_check.close(rows(8, 4, 2), rows(*others), level, "the CPU's")


def test_a_part_that_fails_is_a_row_with_its_reason(tmp_path, capsys):
    check = gpu_check.Check(str(tmp_path), "CPU", True)
    assert check.part("good", lambda: "fine")
    assert not check.part("bad", check.start, "train.py", "--epocs=3")
    assert not check.part("slow", lambda: check.start("train.py", "--help", seconds=0.001))
    good, bad, slow = check.rows
    assert re.search(r"good +ok .* fine", good) and re.search(r"slow +FAILED .* stopped after 0.001 s", slow)
    assert re.search(r"bad +FAILED +\d+ s  train.py exit 2: error: .*did you mean 'epoch_size'", bad)
    assert capsys.readouterr().out.count("\n") == 3


@pytest.mark.slow
def test_a_small_run_on_the_cpu(tmp_path):
    done, log = start(tmp_path, 1500, DEVICE="CPU", QUICK="1")
    assert done.returncode == 0 and "FAILED" not in done.stdout, done.stdout + done.stderr
    for part in ("convolutions, CPU against CPU", "data", "ssd300_mobilenet_v2 O0, batch 2, against CPU",
                 "ssd300_mobilenet_v2 O0, batch 4", "ssd300_mobilenet_v2 O2, batch 4",
                 "evaluation of ssd300_mobilenet_v2, against CPU", "MindIR of ssd300_mobilenet_v2"):
        assert re.search(rf"^{part} +ok +\d+ s  ", log, re.MULTILINE), log
    assert re.search(r"^\d{4}-\d\d-\d\d .* device CPU, quick", log) and "images/s" in log and "this folder" in log


@pytest.mark.slow
@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="this machine has an NVIDIA driver")
def test_without_a_driver_it_ends_at_the_first_part(tmp_path):
    done, log = start(tmp_path, 300, DEVICE="GPU")
    assert done.returncode == 4 and done.stdout.count("FAILED") == 1, done.stdout + done.stderr
    assert re.search(r"convolutions, GPU against CPU +FAILED .*no NVIDIA driver", log)
