"""Options that hold paths: the home folder is put in for ~, everywhere a user types one."""
import os
import subprocess
import sys

import pytest
from programs import ROOT
from test_config import DEFAULTS, error_of

from src.config import read_options
from src.option_rules import RULES

# options of free text that are no paths: names, lists, an address
NO_PATHS = ("model", "train_data_type", "val_data_type", "freeze_layer", "score_threshold", "tiles", "host")
PATHS = [name for name, rule in RULES.items() if rule.is_path]
CHOICES = [name for name, rule in RULES.items() if rule.choices]


def test_every_text_option_is_a_choice_a_path_or_known_to_be_neither():
    texts = {key for key, value in DEFAULTS.items() if isinstance(value, str)}
    lists = {key for key, value in DEFAULTS.items() if isinstance(value, list)}
    assert texts == {*PATHS, *NO_PATHS, *CHOICES} - lists and not {*PATHS} & {*NO_PATHS, *CHOICES}


@pytest.mark.parametrize("key", [key for key in PATHS if key != "config_path"])
def test_the_home_folder_is_put_in_for_every_path(key, monkeypatch, tmp_path):
    (tmp_path / "recipe.yaml").write_text(f"{key}: ~/x")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_options([f"--{key}=~/a b/~x"])[key] == f"{tmp_path}/a b/~x"
    assert read_options([f"--{key}", "~"])[key] == str(tmp_path)
    assert read_options(["--config_path=~/recipe.yaml"])[key] == f"{tmp_path}/x"
    for kept in ("a/~/b", "./~", "", "a~", "~nobody-of-this-name/x"):
        assert read_options([f"--{key}={kept}"])[key] == kept


def test_the_home_folder_of_another_user():
    import pwd
    user = pwd.getpwuid(0)
    assert read_options([f"--output_path=~{user.pw_name}/x"]).output_path == f"{user.pw_dir}/x"


def test_recipes_are_found_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, text in (("base.yaml", "lr: 0.3"), ("mine/one.yaml", "_base_: ~/base.yaml\nbatch_size: 3"),
                       ("run/config.yaml", "lr: 0.7")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    options = read_options(["--config_path=~/mine/one.yaml"])
    assert (options.lr, options.batch_size) == (0.3, 3)
    assert read_options(["--resume=True", "--output_path=~/run"]).lr == 0.7
    assert "/nothing.yaml' cannot be read" in error_of("--config_path=~/nothing.yaml")


def test_a_home_folder_that_is_not_known(monkeypatch):
    import pwd
    monkeypatch.setenv("HOME", "")  # would make ~/x the folder /x
    assert "'~/x': the home folder is not known" in error_of("--output_path=~/x")
    assert read_options(["--output_path=x"]).output_path == "x"
    monkeypatch.delenv("HOME")
    assert read_options(["--output_path=~/x"]).output_path == os.path.join(pwd.getpwuid(os.getuid()).pw_dir, "x")
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])
    assert "write the path in full" in error_of("--output_path=~/x")


@pytest.mark.parametrize("program", ["import_weights.py", "scripts/make_demo_data.py", "scripts/compare_metrics.py"])
def test_programs_with_arguments_of_their_own_know_the_home_folder(program, tmp_path):
    (tmp_path / "m.json").write_text('{"AP": 0.5}')
    words = {"import_weights.py": ["~/none.pth", "--model=ssd300_vgg16", "--output=~/x.ckpt"],
             "scripts/make_demo_data.py": ["~/drawn", "--images=1", "--val=1"],
             "scripts/compare_metrics.py": ["~/m.json", "~/m.json"]}[program]
    done = subprocess.run([sys.executable, os.path.join(ROOT, program), *words], cwd=tmp_path, text=True, check=False,
                          capture_output=True, env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 0 or f"'{tmp_path}/none.pth'" in done.stderr, done.stderr
    assert not (tmp_path / "~").exists()
