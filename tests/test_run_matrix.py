"""scripts/run_matrix.sh with stand-ins for the interpreters: its table, its exit codes and its end at a signal."""
import hashlib
import os
import re
import signal
import subprocess
import uuid
from pathlib import Path

import pytest
from programs import ROOT, environment, left_behind, until

# the program and its options are $1, $2 ...; what a test says of a program is in the variable of its name
STAND_IN = """#!/usr/bin/env bash
case $1 in
    *make_demo_data.py) eval "$DATA" ;;
    *train.py) eval "$TRAIN" ;;
esac
"""


@pytest.fixture(name="matrix")
def make_matrix(tmp_path):
    """MATRIX with an environment for the leg 1.10 whose Python is the stand-in."""
    python = tmp_path / "venv-1.10" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN)
    python.chmod(0o755)
    digest = hashlib.sha256(Path(ROOT, "requirements-mindspore-gpu-1.10.txt").read_bytes()).hexdigest()
    (tmp_path / "venv-1.10" / ".installed").write_text(f"{digest}  -\n")
    return tmp_path


def start(matrix, *legs, **variables):
    """The script with pipes; DATA and TRAIN: what the stand-in does for a program."""
    return subprocess.Popen(["bash", os.path.join(ROOT, "scripts", "run_matrix.sh"), *legs], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                            env=environment(MATRIX=str(matrix), **{"DATA": "", "TRAIN": "", **variables}))


def finish(process):
    """Exit code, output, errors of the script."""
    out, errors = process.communicate(timeout=60)
    return process.returncode, out, errors


def test_the_table_of_a_leg(matrix):
    code, out, _ = finish(start(matrix, "1.10"))
    assert code == 0
    table = out[out.index("\nleg "):].split("\n")[1:-1]
    assert table[0].split() == ["leg", "network", "data", "train", "eval", "export", "mindir", "equal"]
    assert [row.split() for row in table[1:]] == [["1.10", name, *["ok"] * 6]
                                                  for name in ("ssd300_mobilenet_v2", "ssd_resnet50_fpn")]


@pytest.mark.parametrize("variables, cells", [
    ({"DATA": "exit 4"}, r"exit 4 +- +- +- +- +-"), ({"TRAIN": "exit 1"}, r"ok +exit 1 +- +- +- +-")])
def test_what_failed_is_named(matrix, variables, cells):
    code, out, _ = finish(start(matrix, "1.10", **variables))
    assert code == 1 and re.search(rf"^1.10 +ssd300_mobilenet_v2 +{cells} *$", out, re.MULTILINE), out


def test_leg_names_are_checked_before_the_first_runs(matrix):
    code, out, errors = finish(start(matrix, "1.10", "3.13"))
    assert (code, out, errors) == (2, "", "error: no leg 3.13; known are 3.10 3.11 3.12 1.10\n")


def test_no_leg_at_all_is_a_failure(tmp_path):
    """A copy of the script far from any .venv, and a PATH without Python."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "mkdir", "cat", "sha256sum"):
        found = next(path for path in os.environ["PATH"].split(":") if os.path.exists(os.path.join(path, name)))
        (tools / name).symlink_to(os.path.join(found, name))
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "run_matrix.sh"
    script.write_bytes(Path(ROOT, "scripts", "run_matrix.sh").read_bytes())
    for name in ("requirements.txt", "requirements-mindspore-gpu-1.10.txt"):
        (tmp_path / name).touch()
    done = subprocess.run([tools / "bash", script], capture_output=True, text=True, check=False, timeout=60,
                          env={"PATH": str(tools), "HOME": str(tmp_path), "MATRIX": str(tmp_path / "matrix")})
    assert done.returncode == 1 and done.stderr == "error: no leg could be run; the table says why\n", done.stderr
    assert done.stdout.count("not run: no Python 3.") == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_with_all_it_started(matrix, number):
    mark = uuid.uuid4().hex
    process = start(matrix, "1.10", TRAIN=f"touch {matrix}/trains; sleep 600", SSD_TEST_MARK=mark)
    until((matrix / "trains").exists)
    process.send_signal(number)
    code, out, errors = finish(process)
    assert (code, errors) == (130, "") and "leg " not in out
    assert left_behind(mark) == []


def test_a_program_that_was_interrupted_ends_it(matrix):
    code, out, _ = finish(start(matrix, "1.10", TRAIN="exit 130"))
    assert code == 130 and out.endswith("train.py was interrupted\n")
