"""Options: precedence, spelling, and one clear line with exit 2 for everything that cannot be meant."""
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

from src.config import DEFAULT_PATH, help_text, read_options, save_options, split_options, unused_note
from src.errors import OPTION_EXIT, OptionError
from src.option_rules import DATA_OPTIONS, EVERY, RULES, TRAIN, graph_options, rule_of, shared_options
from src.recipes import read_yaml

DEFAULTS = read_yaml(DEFAULT_PATH)
CHOICES = {name: rule.choices for name, rule in RULES.items() if rule.choices}


@pytest.fixture
def recipe(tmp_path):
    """Function: recipe("lr: 0.1", name="a.yaml") -> path of a recipe with that text."""
    def write(text, name="recipe.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)
    return write


def error_of(*arguments):
    """The message of the OptionError that a command line raises: one line, exit 2."""
    with pytest.raises(OptionError) as caught:
        read_options(list(arguments))
    assert caught.value.exit_code == OPTION_EXIT == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_those_of_the_file():
    options = read_options([])
    assert {key: options[key] for key in DEFAULTS} == DEFAULTS
    assert options.typed == []


def test_command_line_over_recipe_over_defaults(recipe):
    path = recipe("lr: 0.1\nbatch_size: 4\n")
    options = read_options([f"--config_path={path}", "--lr=0.2"])
    assert (options.lr, options.batch_size, options.epoch_size) == (0.2, 4, DEFAULTS["epoch_size"])
    assert options.typed == ["config_path", "lr"]


def test_both_spellings_and_bare_flags():
    options = read_options(["--lr", "0.3", "--epoch_size=7", "--resume", "--device_target", "GPU", "--strict"])
    assert (options.lr, options.epoch_size, options.resume) == (0.3, 7, True)
    assert (options.device_target, options.strict) == ("GPU", True)


def test_last_of_a_repeated_option_wins():
    assert read_options(["--lr=0.1", "--lr=0.2"]).lr == 0.2


def test_the_command_users_type():
    options = read_options("--run_distribute=True --lr=0.05 --dataset=coco --device_num=8 --loss_scale=1 "
                           "--device_target=GPU --epoch_size=60 --output_path ./output".split())
    assert (options.run_distribute, options.device_num, options.loss_scale) == (True, 8, 1.0)
    assert isinstance(options.loss_scale, float)
    assert options.output_path == "./output"


@pytest.mark.parametrize("written", ["1e-3", "0.001", ".001", "1E-3"])
def test_numbers_in_scientific_notation(written, recipe):
    assert read_options([f"--lr={written}"]).lr == 1e-3
    assert read_options([f"--config_path={recipe(f'lr: {written}')}"]).lr == 1e-3


@pytest.mark.parametrize("written", ["[cat,dog]", "cat,dog", "[cat, dog]", '["cat", "dog"]'])
def test_lists(written):
    assert read_options([f"--classes={written}"]).classes == ["cat", "dog"]


def test_lists_in_a_recipe_and_empty_ones(recipe):
    assert read_options([f"--config_path={recipe('classes: [1, two words]')}"]).classes == ["1", "two words"]
    assert read_options(["--classes="]).classes == []
    assert read_options(["--classes=[]"]).classes == []
    assert read_options(["--classes=cat"]).classes == ["cat"]


def test_values_with_equals_signs_and_spaces():
    assert read_options(["--coco_root=/data/a=b c"]).coco_root == "/data/a=b c"


@pytest.mark.parametrize("written, value", [("True", True), ("false", False), ("1", True), ("no", False)])
def test_booleans(written, value):
    assert read_options([f"--run_eval={written}"]).run_eval is value


def test_none_means_empty():
    assert read_options(["--pre_trained=None"]).pre_trained == ""


def test_base_of_a_recipe(recipe):
    recipe("lr: 0.1\nbatch_size: 4\nepoch_size: 9\n", "base.yaml")
    recipe("_base_: ../base.yaml\nbatch_size: 8\n", "sub/middle.yaml")
    top = recipe("_base_: sub/middle.yaml\nlr: 0.3\n", "top.yaml")
    options = read_options([f"--config_path={top}"])
    assert (options.lr, options.batch_size, options.epoch_size) == (0.3, 8, 9)


def test_split_names_of_a_recipe_belong_to_its_data_set(recipe):
    path = "--config_path=" + recipe("train_data_type: train2017\nval_data_type: val2017\n")
    assert split_options(read_options([path]), "train")["split_name"] == "train2017"
    options = read_options([path, "--dataset=voc", "--val_data_type=test"])
    assert [split_options(options, split)["split_name"] for split in ("train", "val")] == ["", "test"]
    path = "--config_path=" + recipe("dataset: voc\ntrain_data_type: trainval\n")
    assert read_options([path, "--dataset=voc"]).train_data_type == "trainval"


@pytest.mark.parametrize("typed, near", [
    ("--learning_rte=1", None), ("--epoch_sizes=1", "epoch_size"), ("--LR=1", None), ("--batchsize=2", "batch_size"),
    ("--model_name=x", "model"), ("--checkpoint_path=x", "checkpoint_file_path"), ("--typed=1", None),
])
def test_unknown_key(typed, near):
    message = error_of(typed)
    assert message.startswith(f"{typed.split('=')[0]} is not an option")
    assert near is None or f"did you mean '{near}'?" in message


def test_unknown_key_in_a_recipe_names_the_file(recipe):
    path = recipe("batch_sise: 4")
    message = error_of(f"--config_path={path}")
    assert path in message and "batch_sise" in message and "'batch_size'" in message


@pytest.mark.parametrize("typed, allowed", [
    ("--lr=abc", "a number"), ("--lr=nan", "a number"), ("--lr=inf", "a number"), ("--lr=", "a number"),
    ("--batch_size=8.5", "a whole number"), ("--batch_size=many", "a whole number"),
    ("--run_eval=perhaps", "True or False"),
])
def test_wrong_type_names_key_value_and_what_is_expected(typed, allowed):
    key, value = typed.split("=")
    message = error_of(typed)
    assert key in message and repr(value) in message and allowed in message


@pytest.mark.parametrize("text, allowed", [("lr: [1]", "a number"), ("batch_size: 8.5", "a whole number"),
                                           ("batch_size: true", "a whole number"), ("lr: yes", "a number"),
                                           ("model: [a]", "a text"), ("classes: 5", "a list")])
def test_wrong_type_in_a_recipe(text, allowed, recipe):
    assert f"expected {allowed}" in error_of(f"--config_path={recipe(text)}")


@pytest.mark.parametrize("typed, part", [
    ("--lr=-1", "above 0"), ("--lr=0", "above 0"), ("--batch_size=0", "at least 1"), ("--batch_size=-4", "at least 1"),
    ("--momentum=1.5", "between 0 and 1"), ("--min_score=-0.1", "between 0 and 1"), ("--weight_decay=-1", "at least 0"),
    ("--device_id=-1", "at least 0"),
])
def test_impossible_numbers(typed, part):
    message = error_of(typed)
    assert typed in message and part in message


def test_negative_value_after_a_space():
    assert "--lr=-1" in error_of("--lr", "-1").replace(" ", "")


@pytest.mark.parametrize("key", sorted(CHOICES))
def test_choices(key):
    message = error_of(f"--{key}=wrong")
    assert all(choice in message for choice in CHOICES[key])
    if isinstance(DEFAULTS[key], list):  # of any of them
        assert set(DEFAULTS[key]) <= set(CHOICES[key]) and read_options([f"--{key}=[]"])[key] == []
        assert read_options([f"--{key}={','.join(CHOICES[key])}"])[key] == list(CHOICES[key])
        assert "allowed are" in error_of(f"--{key}={CHOICES[key][0]},wrong")
        return
    assert DEFAULTS[key] in CHOICES[key]
    assert all(read_options([f"--{key}={choice}"])[key] == choice for choice in CHOICES[key])


def test_choice_in_other_letters():
    assert "did you mean GPU?" in error_of("--device_target=gpu")


@pytest.mark.parametrize("arguments", [["lr=1"], ["-lr=1"], ["--"], ["--=1"], ["train.yaml"]])
def test_what_is_no_option(arguments):
    assert "not an option" in error_of(*arguments)


def test_recipe_that_cannot_be_read(recipe, tmp_path):
    assert "missing.yaml" in error_of(f"--config_path={tmp_path}/missing.yaml")
    assert "cannot be read" in error_of(f"--config_path={tmp_path}")
    assert "not valid YAML" in error_of(f"--config_path={recipe('a: [1')}")
    assert "key: value" in error_of(f"--config_path={recipe('- 1')}")
    assert "missing.yaml" in error_of(f"--config_path={recipe('_base_: missing.yaml')}")


def test_saved_options_are_a_recipe(tmp_path):
    options = read_options(["--lr=1e-5", "--classes=cat,dog", "--coco_root=/data"])
    save_options(options, tmp_path / "config.yaml")
    again = read_options([f"--config_path={tmp_path}/config.yaml"])
    assert {key: again[key] for key in DEFAULTS if key != "config_path"} == \
           {key: options[key] for key in DEFAULTS if key != "config_path"}


@pytest.mark.parametrize("program", sorted(EVERY))
def test_help_lists_the_options_of_a_program_as_wide_as_the_terminal(program, monkeypatch):
    for width in (80, 150):
        monkeypatch.setenv("COLUMNS", str(width))
        text = help_text(program, "What it does.")
        used = [name for name in DEFAULTS if program in rule_of(name).programs]
        assert re.findall(r"^  --(\w+)=", text, re.MULTILINE) == used and "config_path" in used
        assert text.startswith(f"usage: python {program} ") and "\n\nWhat it does.\n\nwhat to run:\n" in text
        assert all(len(line) <= width or "[--key" in line for line in text.splitlines())
        assert ("--epoch_size=" in text) == (program == "train.py")


def test_every_option_has_a_program_and_every_rule_an_option():
    assert set(RULES) <= set(DEFAULTS) and all(rule_of(name).programs & EVERY for name in DEFAULTS)
    assert [name for name in DEFAULTS if name in RULES] == list(RULES), "the order of default.yaml"
    for name, rule in RULES.items():
        value = DEFAULTS[name]
        assert rule.programs <= EVERY and rule != rule_of("gamma"), f"{name} needs no line"
        assert not rule.choices or set(value if isinstance(value, list) else [value]) <= set(rule.choices)
        assert isinstance(value, (int, float)) or (rule.minimum, rule.maximum, rule.exclusive) == rule_of("x")[2:5]
        assert not isinstance(value, str) or rule.is_path or rule.choices or rule.programs != TRAIN or rule.split


def test_options_that_may_differ_change_no_graph_or_are_of_a_host():
    options = read_options(["--lr=0.1"])
    shared, graph = shared_options(options), graph_options(options)
    assert "typed" not in {**shared, **graph} and {*shared, *graph} - {*DEFAULTS} == set()
    assert {"lr", "seed", "epoch_size"} <= {*shared} & {*graph}
    assert "voc_root" not in shared and "voc_root" in graph and "max_steps" in shared and "max_steps" not in graph
    assert {"dataset", "classes", "strict"} <= {*DATA_OPTIONS} and "config_path" not in DATA_OPTIONS
    assert not rule_of("epoch_size").needs_steps and rule_of("lr").needs_steps


def test_unused_options_are_named():
    options = read_options(["--lr=0.1", "--epoch_size=2", "--eval_batch_size=2"], "eval.py")
    assert unused_note(options, "eval.py") == "not used by eval.py: --epoch_size, --lr (--help lists what is)"
    assert unused_note(options, "train.py") == ""
    assert unused_note(options, "prepare_data.py").startswith("not used by prepare_data.py: --epoch_size, --eval_batch")


def test_every_default_has_its_own_type():
    options = read_options([])
    for key, value in DEFAULTS.items():
        assert type(options[key]) is type(value) and isinstance(value, (bool, int, float, str, list)), key


def test_help_and_exit_code_of_a_program(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import sys\nfrom src.config import read_options\nfrom src.errors import run_main\n"
                       "run_main(lambda: print(read_options(sys.argv[1:]).lr))\n")

    def run(*arguments):
        return subprocess.run([sys.executable, program, *arguments], capture_output=True, text=True, check=False,
                              env={**os.environ, "PYTHONPATH": ROOT})
    assert (run("--lr=1e-3").returncode, run("--lr=1e-3").stdout) == (0, "0.001\n")
    assert run("--help").returncode == 0 and "--keep_checkpoint_max=5" in run("--help").stdout
    wrong = run("--lr=abc")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: --lr") and wrong.stderr.count("\n") == 1


def test_recipes_in_the_repository_are_valid():
    folder = os.path.dirname(DEFAULT_PATH)
    for name in sorted(set(os.listdir(folder)) - {"default.yaml"}):
        path = os.path.join(folder, name)
        read_options([f"--config_path={path}"])
        with open(path, encoding="utf-8") as file:
            assert len(yaml.safe_load(file)) <= 35


@pytest.mark.parametrize("typed, text", [
    ("--classes=[cat", None), ("", "_base_: recipe.yaml\n"), ("", "_base_: [a]\n"), ("", "1: 2\n"),
    ("", "\udcff: 1\n"),
])
def test_nonsense_is_one_line_too(typed, text, tmp_path):
    if text:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        typed = f"--config_path={path}"
    assert error_of(typed)


def test_list_with_spaces_after_the_commas():
    assert read_options(["--classes=cat, dog"]).classes == ["cat", "dog"]
