"""Scripts remove folders that they made and no others; pip and the interpreters are stand-ins."""
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from programs import ROOT

# every "python" of these tests: fits, makes a folder for -m venv, and has all packages
PYTHON = """#!/bin/bash
case "$*" in
    *"-m venv"*) mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/python" ;;
    *--version*) echo "Python 3.11.1" ;;
    *"-m pip"*) exit ${PIP:-0} ;;
esac
"""


@pytest.fixture(name="tree")
def make_tree(tmp_path):
    """A copy of scripts/ and the lists of packages, and a python on the path -> function that runs a script."""
    shutil.copytree(os.path.join(ROOT, "scripts"), tmp_path / "tree" / "scripts")
    for path in Path(ROOT).glob("requirements*.txt"):
        shutil.copy(path, tmp_path / "tree")
    (tmp_path / "bin").mkdir()
    for name in ("python3", "python3.11"):
        (tmp_path / "bin" / name).write_text(PYTHON)
        (tmp_path / "bin" / name).chmod(0o755)

    def start(script, *words, **variables):
        return subprocess.run(["bash", tmp_path / "tree" / "scripts" / script, *words], capture_output=True, text=True,
                              check=False, timeout=60,
                              env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path), **variables})
    start.venv, start.matrix = tmp_path / "tree" / ".venv", tmp_path / "matrix"
    return start


def own_environment(tree, fits=True):
    """.venv as a user made it, with a file of the user's."""
    (tree.venv / "bin").mkdir(parents=True)
    (tree.venv / "notes.txt").write_text("mine")
    if fits:
        (tree.venv / "bin" / "python").write_text(PYTHON)
        (tree.venv / "bin" / "python").chmod(0o755)


def test_an_interrupted_setup_of_ours_is_made_again(tree):
    assert tree("setup_env.sh").returncode == 0
    (tree.venv / ".unfinished").touch()
    (tree.venv / "half").touch()
    (tree.venv / ".installed-requirements.txt").unlink()
    done = tree("setup_env.sh")
    assert done.returncode == 0 and "removing" in done.stdout, done.stderr
    assert not (tree.venv / "half").exists() and not (tree.venv / ".unfinished").exists()
    assert tree("setup_env.sh").stdout == ""


@pytest.mark.parametrize("fits, mark", [(True, ".unfinished"), (False, ".unfinished"), (False, "lib"),
                                        (False, ".installed-requirements.txt")])
def test_an_environment_of_another_origin_stays(tree, fits, mark):
    own_environment(tree, fits)
    (tree.venv / mark).touch()
    done = tree("setup_env.sh")
    assert done.returncode == 4 and "remove or rename it" in done.stderr and done.stderr.count("\n") == 1
    assert (tree.venv / "notes.txt").read_text() == "mine"


def test_an_environment_of_another_origin_is_filled_and_never_marked_for_removal(tree):
    own_environment(tree)
    assert tree("setup_env.sh", PIP="1").returncode == 4
    assert tree("setup_env.sh").returncode == 0
    assert (tree.venv / "notes.txt").exists() and not (tree.venv / ".unfinished").exists()
    assert not (tree.venv / ".made").exists()


def test_the_matrix_keeps_folders_of_another_origin(tree):
    own = tree.matrix / "3.11-ssd300_mobilenet_v2"
    own.mkdir(parents=True)
    (own / "notes.txt").write_text("mine")
    done = tree("run_matrix.sh", "3.11", MATRIX=str(tree.matrix))
    assert done.returncode == 2 and f"{own} is not from this script" in done.stderr
    assert (own / "notes.txt").exists()
    shutil.rmtree(own)
    for _ in range(2):  # the second time over its own folders
        assert tree("run_matrix.sh", "3.11", MATRIX=str(tree.matrix)).returncode == 0


def test_the_matrix_keeps_an_environment_of_another_origin(tree):
    own = tree.matrix / "venv-3.11"
    own.mkdir(parents=True)
    (own / "notes.txt").write_text("mine")
    done = tree("run_matrix.sh", "3.11", MATRIX=str(tree.matrix))
    assert done.returncode == 1 and "is not from this script" in done.stdout
    assert (own / "notes.txt").exists()
