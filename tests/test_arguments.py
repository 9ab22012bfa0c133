"""Every program and script, found by its file: --help, and one line for what it does not know."""
import glob
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ROOT, environment

sys.path.insert(0, os.path.join(ROOT, "scripts"))
import compare_metrics  # (found by the line above)

from src.arguments import ArgumentParser
from src.errors import DataError


def is_program(path):
    return path.endswith(".sh") or '__name__ == "__main__"' in Path(path).read_text(encoding="utf-8")


ALL = sorted(os.path.relpath(path, ROOT) for pattern in ("*.py", "scripts/*.py", "scripts/*.sh", "bench/*.py")
             for path in glob.glob(os.path.join(ROOT, pattern)) if is_program(path))
STRICT = [name for name in ALL if name != "scripts/run_tests.sh"]  # that one hands everything on to pytest


def start(name, *words, cwd=ROOT):
    """Runs a program, or a script with no environment to set up."""
    first = "bash" if name.endswith(".sh") else sys.executable
    return subprocess.run([first, os.path.join(ROOT, name), *words], cwd=cwd, env=environment(), capture_output=True,
                          text=True, timeout=120, check=False)


def test_all_kinds_are_found():
    assert {"train.py", "import_weights.py", "scripts/doctor.py", "scripts/run_demo.sh", "bench/loader.py"} <= set(ALL)
    assert len(ALL) > 30


@pytest.mark.parametrize("name", ALL)
def test_help_says_how_to_call_it(name, tmp_path):
    done = start(name, "--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert os.path.basename(name) in done.stdout and os.listdir(tmp_path) == []


PYTHON = [name for name in ALL if name.endswith(".py") and not name.startswith("bench/")]


@pytest.mark.parametrize("name", PYTHON)
def test_version_is_said_in_one_line(name, tmp_path):
    done = start(name, "--version", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert re.fullmatch(r"ssd-mindspore 1\.0\.0( \(commit \w+\))?\n", done.stdout) and os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", STRICT)
def test_an_unknown_argument_is_refused_in_one_line(name, tmp_path):
    done = start(name, "--no_such_option=1", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "", done.stdout + done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and os.listdir(tmp_path) == []
    assert "no_such_option" in done.stderr or "required" in done.stderr


@pytest.mark.parametrize("name", ["run_demo.sh", "gpu_check.sh", "setup_env.sh", "python.sh"])
def test_a_script_takes_no_more_words_than_it_knows(name):
    done = start(f"scripts/{name}", "one", "two")
    assert done.returncode == 2 and done.stderr.startswith("error: 2 arguments came") and done.stderr.count("\n") == 1


def test_pytest_says_what_it_does_not_know(tmp_path):
    """run_tests.sh in a folder of its own with stand-ins for the environment and for pytest's exit code 4."""
    (tmp_path / "scripts").mkdir()
    for name in ("run_tests.sh", "arguments.sh"):
        (tmp_path / "scripts" / name).write_bytes(Path(ROOT, "scripts", name).read_bytes())
    (tmp_path / "scripts" / "setup_env.sh").write_text("")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nshift 2\nprintf "%s\\n" "$*"\nexit "$CODE"\n')
    python.chmod(0o755)
    for code, wanted in ((4, 2), (1, 1), (0, 0)):
        done = subprocess.run(["bash", tmp_path / "scripts" / "run_tests.sh", "-m", "long"], capture_output=True,
                              text=True, env=environment(CODE=str(code)), check=False)
        assert done.returncode == wanted and done.stdout == "-m long\n" and done.stderr == ""
    both = [subprocess.run(["bash", tmp_path / "scripts" / "run_tests.sh", *words], capture_output=True, text=True,
                           env=environment(CODE="0"), check=False).stdout for words in ([], ["--all", "-x"])]
    assert re.fullmatch(r"-n [1-4] --dist loadfile --max-worker-restart 0\n", both[0])
    assert re.fullmatch(r"-n [1-4] --dist loadfile --max-worker-restart 0 -m not long -x\n", both[1])


@pytest.mark.parametrize("name, words, option", [
    ("scripts/model_info.py", ["--coco_root=x"], "coco_root"), ("scripts/list_categories.py", ["--lr=1"], "lr"),
    ("scripts/anchor_stats.py", ["--epoch_size=1"], "epoch_size")])
def test_an_option_of_other_programs_is_refused(name, words, option):
    done = start(name, *words)
    assert done.returncode == 2 and f"error: --{option} is not used by {name}, which takes " in done.stderr
    assert done.stderr.count("\n") == 1 and f"--{option}=" not in start(name, "--help").stdout


def test_a_wrong_option_gets_the_nearest_name(capsys):
    parser = ArgumentParser("what it does")
    parser.add_argument("--device", choices=("GPU", "CPU"))
    for words, said in ((["--devise=GPU"], "unrecognized arguments: --devise=GPU; did you mean --device?"),
                        (["x"], "unrecognized arguments: x; see --help"), (["--dev=GPU"], "did you mean --device?"),
                        (["--device=TPU"], "invalid choice: 'TPU'")):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args(words)
        error = capsys.readouterr().err
        assert ended.value.code == 2 and said in error and error.count("\n") == 1 and error.startswith("error: ")


def test_the_slurm_script_away_from_the_repository(tmp_path):
    script = os.path.join(ROOT, "scripts/slurm_train.sh")
    done = subprocess.run(["bash", script, "1", "0.1", "coco", "x.yaml"], capture_output=True, text=True, check=False,
                          env=environment(SLURM_SUBMIT_DIR=str(tmp_path)))
    assert done.returncode == 2 and "is not this repository" in done.stderr and done.stderr.count("\n") == 1


def test_the_doctor_takes_the_wish_for_a_gpu(monkeypatch, capsys):
    import doctor
    for name in ("check_machine", "check_mindspore", "check_launchers", "check_folder"):
        monkeypatch.setattr(doctor, name, lambda *_: None)
    monkeypatch.setattr(doctor, "check_packages", lambda _: [])
    monkeypatch.setattr(doctor.process, "prepare", lambda: None)
    for target, usable, code in (("GPU", False, 4), ("GPU", True, 0), ("CPU", False, 0), ("", False, 0)):
        monkeypatch.setattr(doctor, "check_gpu", lambda _, usable=usable: usable)
        monkeypatch.setattr(sys, "argv", ["doctor.py", *([f"--device_target={target}"] if target else [])])
        assert doctor.main() == code
        assert ("or use --device_target=CPU" in capsys.readouterr().out) == (code == 4)


@pytest.mark.parametrize("version, code", [("3.7", 4), ("3.8", 0), ("3.9", 0)])
def test_the_doctor_starts_on_old_pythons(version, code):
    found = glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}.*/bin/python"))
    if not found:
        pytest.skip(f"no Python {version} here")
    done = subprocess.run([found[0], "-S", os.path.join(ROOT, "scripts/doctor.py"), "--help"], capture_output=True,
                          text=True, check=False)
    assert done.returncode == code and "Traceback" not in done.stderr


def test_metrics_that_cannot_be_compared(tmp_path):
    for content in ("", "[1]", "{"):
        (tmp_path / "metrics.json").write_text(content)
        with pytest.raises(DataError, match="is not a metrics.json"):
            compare_metrics.read_numbers(str(tmp_path / "metrics.json"))
    (tmp_path / "metrics.json").write_text('{"AP": 1, "per_class": {}}')
    assert compare_metrics.read_numbers(str(tmp_path / "metrics.json")) == {"AP": 1.0}
    (tmp_path / "other.json").write_text('{"AP": 1, "AP50": 0.5}')
    done = start("scripts/compare_metrics.py", str(tmp_path / "metrics.json"), str(tmp_path / "other.json"))
    assert done.returncode == 1 and "AP50                 -  0.5000  DIFFERENT" in done.stdout
