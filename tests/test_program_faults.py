"""The programs where something fails that they need: a folder, file descriptors, a disk; and with names of any kind."""
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from programs import ROOT, environment, read_json, run, succeed

PROGRAMS = ["prepare_data.py", "train.py", "eval.py", "export.py", "predict.py"]
# spaces, brackets, quotes, what shells and formats read, three scripts; 200 letters
NAME = "a b [1] {x} 'q' \"r\" #%d $HOME ~ größe 猫 шар ".ljust(200, "l")


def options(program, place, checkpoint, out):
    """The command line of a program that writes into `out`."""
    weights = f"--checkpoint_file_path={checkpoint}"
    return {
        "prepare_data.py": [*place.data, f"--mindrecord_dir={out}/data"],
        "train.py": [*place.data, f"--mindrecord_dir={out}/data", f"--output_path={out}/run", "--epoch_size=1"],
        "eval.py": [*place.data, weights, f"--mindrecord_dir={out}/data", f"--output_path={out}", "--report=True"],
        "export.py": [weights, "--file_format=MINDIR", f"--file_name={out}/ssd"],
        "predict.py": [weights, f"--source={place.coco}/val2017", f"--output_path={out}/found"],
    }[program]


@pytest.mark.long
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_folder_that_cannot_be_written_is_one_line(program, place, trained):
    """Nobody can write into /proc, root neither."""
    done = run(place, program, *options(program, place, trained.best, "/proc/new"))
    assert done.returncode == 4 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert "/proc/new" in done.stderr and "written" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("count", [8, 20, 32])
def test_too_few_file_descriptors_are_one_line(program, count, place, trained, tmp_path):
    line = [sys.executable, os.path.join(ROOT, program), *options(program, place, trained.best, tmp_path)]
    done = run(place, "bash", "-c", f'ulimit -n {count}; exec "$@"', "bash", *line)
    assert "Traceback" not in done.stderr and done.returncode in (0, 4), done.stderr
    if done.returncode:
        assert done.stderr.count("error: ") == 1 and "Too many open files" in done.stderr, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("variables", [{}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0",
                                                            "PYTHONCOERCECLOCALE": "0"}])
def test_names_of_any_kind_in_any_locale(place, tmp_path, variables):
    """Data, recipe, output and pictures all lie in a folder with such a name, and some have it themselves."""
    folder = tmp_path / NAME
    (folder / "source").mkdir(parents=True)
    shutil.copytree(place.coco, folder / "coco")
    shutil.copy(place.recipe, folder / "recipe.yaml")
    shutil.copy(place.coco / "val2017" / "000001.jpg", folder / "source" / f"{NAME}.jpg")
    own = SimpleNamespace(folder=folder, coco=folder / "coco",
                          data=[f"--config_path={folder}/recipe.yaml", f"--coco_root={folder}/coco"])
    for program in PROGRAMS:
        checkpoint = folder / "run" / "ckpt" / "best.ckpt"
        succeed(own, program, *options(program, own, checkpoint, folder), **variables)
    weights = [f"--checkpoint_file_path={folder}/ssd.mindir", f"--source={folder}/source", "--draw_score=0.01",
               f"--output_path={folder}/again", "--save=[drawings,yolo,voc,crops]"]
    succeed(own, "predict.py", *weights, **variables)
    assert (folder / "again" / f"{NAME}.png").exists() and read_json(folder, "again", "predictions.json")


@pytest.mark.long
@pytest.mark.skipif(subprocess.run(["unshare", "-Urm", "true"], check=False).returncode != 0,
                    reason="no disk of its own can be mounted here")
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("fault", ["kill", "full"])
def test_a_trial_of_the_series(tmp_path, program, fault):
    """What tests/faults/series.py does many times."""
    name = {"prepare_data.py": "convert", "eval.py": "evaluate"}.get(program, program.removesuffix(".py"))
    script = os.path.join(ROOT, "tests", "faults", "series.py")
    line = [sys.executable, script, f"--fault={fault}", f"--program={name}", "--trials=1",
            f"--json={tmp_path}/rows.json", f"--work={tmp_path}/work"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    row, = read_json(tmp_path, "rows.json")["rows"]
    assert row["program"] == name and row["problems"] == []


READER = """
import sys
sys.path.insert(0, {root!r})
import numpy as np
from src.data.mindrecord import read_rows
print(sum(int(row["index"]) for row in read_rows([sys.argv[1]], np.arange(24), ["index", "image"])))
"""


@pytest.mark.long
def test_eight_processes_read_one_conversion(place, trained):
    path = next(place.folder.glob("mindrecord/coco_train2017_*/data.mindrecord000"))
    line = [sys.executable, "-c", READER.format(root=ROOT), str(path)]
    readers = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment()) for _ in range(8)]
    assert [reader.communicate(timeout=300)[0] for reader in readers] == [f"{sum(range(24))}\n"] * 8
