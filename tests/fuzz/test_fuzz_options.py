"""Recipes, command lines and the small texts inside options."""
import os

import pytest
import yaml
from harness import check_both, fuzz
from hypothesis import strategies as st
from mutations import EDITS, ODD, WORDS, edit_bytes, edit_tree, edit_words, to_json

from src import config
from src.anchor_file import read_shapes
from src.config import DEFAULT_PATH, model_options, read_options, save_options, split_options, take_run_data
from src.inference.found import read_scores, shown_scores
from src.inference.tiles import read_tiles
from src.option_rules import RULES
from src.recipes import read_yaml

RECIPE = """_base_: base.yaml
model: ssd300_mobilenet_v2   # a comment
lr: 1e-3
classes: [cat, on, 007, 2024-01-01, 'c: d']
dataset: other
anno_path: &place ~/boxes.txt
val_anno_path: *place
lr_milestones: [3, 5]
run_eval: yes
decay_exclude: [norm]
"""
PROGRAMS = ("train.py", "eval.py", "export.py", "predict.py", "prepare_data.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("options")
    (folder / "base.yaml").write_text("momentum: 0.8\nbatch_size: 4\n")
    return folder


@pytest.fixture(autouse=True)
def read_defaults_once(monkeypatch):
    """config/default.yaml takes most of the time otherwise."""
    defaults = read_yaml(DEFAULT_PATH)
    monkeypatch.setattr(config, "read_yaml", lambda path, *more: dict(defaults) if path == DEFAULT_PATH else read_yaml(
        path, *more))


def check_options(options, path):
    """What every program does with its options, down to the file of the run, which must say the same again."""
    for split in ("train", "val"):
        for value in split_options(options, split).values():
            if isinstance(value, str):
                os.path.exists(value), os.fsencode(value)
    model_options(options)
    save_options(options, path)
    again = read_options([f"--config_path={path}"])
    assert all(again[name] == value for name, value in options.items() if name not in ("typed", "config_path"))


def test_recipes(folder, examples):
    path, saved = str(folder / "recipe.yaml"), str(folder / "config.yaml")
    tree = yaml.safe_load(RECIPE)

    def read_edited(whole, edits, more, program):
        text = edit_words(RECIPE, edits) if whole else yaml.safe_dump(edit_tree(tree, edits), sort_keys=False)
        with open(path, "wb") as file:
            data = text.encode("utf-8", "surrogatepass")
            file.write(edit_bytes(data, more) if more else data)
        check_options(read_options([f"--config_path={path}"], program), saved)

    tally = fuzz("recipes", examples(2500), st.booleans(), EDITS, st.just([]) | EDITS, st.sampled_from(PROGRAMS),
                 read=read_edited)
    check_both(tally)


def test_stored_options_of_a_run(folder, examples):
    """config.yaml beside a checkpoint, which eval.py and export.py take the data from."""
    os.makedirs(folder / "run" / "ckpt")
    path = str(folder / "run" / "config.yaml")
    tree = {"dataset": "other", "anno_path": "a.txt", "image_dir": "b", "classes": ["a", "b"], "val_share": 0.2}

    def read_edited(whole, edits):
        text = yaml.safe_dump(tree)
        with open(path, "wb") as file:
            text = edit_words(text, edits) if whole else yaml.safe_dump(edit_tree(tree, edits))
            file.write(text.encode("utf-8", "surrogatepass"))
        take_run_data(read_options([f"--checkpoint_file_path={folder}/run/ckpt/best.ckpt"], "eval.py"))

    fuzz("config.yaml of a run", examples(1200), st.booleans(), EDITS, read=read_edited)


TEXTS = [value for value in WORDS if "\0" not in value and not any("\ud800" <= letter < "\udc80" for letter in value)]


def test_command_lines(folder, examples):
    """--name=value with values of any kind; a NUL and half a letter cannot be typed."""
    saved, names = (str(folder / "typed.yaml"),
                    [*sorted(read_yaml(DEFAULT_PATH)), "lrr", "", "help=x", "typed", "\udcff"])
    values = st.sampled_from([*map(str, filter(lambda value: not isinstance(value, str), ODD)), *TEXTS]) | st.text(
        st.characters(codec="utf-8", exclude_characters="\0"), max_size=12
    )
    words = st.builds("--{}={}".format, st.sampled_from(names), values) | st.sampled_from(
        ["--resume", "--", "-x", "x", "--lr", "1e-3", "--=", "--config_path=", "--classes=[a,b]", "--data",
         "--model=auto"]
    )

    def read(arguments, program, strict):
        check_options(read_options(arguments, program, strict=strict), saved)

    tally = fuzz("command lines", examples(2500), st.lists(words, min_size=1, max_size=4), st.sampled_from(PROGRAMS),
                 st.booleans(), read=read)
    check_both(tally)


def test_texts_in_options(examples):
    """--tiles, --score_threshold and --only_classes of predict.py, and each option on its own."""
    values = (
        st.sampled_from(TEXTS)
        | st.text(max_size=10)
        | st.builds(
            edit_words, st.sampled_from(["2x2", "0.5,car:0.6", "'a, b':0.1", "[a, 'b, c', d: e]", "1e-3"]), EDITS
        )
    )
    classes, stored = ["car", "a, b"], {"draw_score": 0.2, "class_scores": {"car": 0.3}}

    def read_tile(text):
        read_tiles(text)

    def read_score(text):
        shown_scores(classes, [], read_scores(text, classes, stored))

    def read_class(text):
        shown_scores(classes, [text], stored)

    check_both(fuzz("--tiles", examples(1500), values, read=read_tile))
    check_both(fuzz("--score_threshold", examples(1500), values, read=read_score))
    fuzz("--only_classes", examples(1500), values, read=read_class)
    assert RULES


def test_anchor_files(folder, examples):
    path = str(folder / "anchors.json")
    tree = {"image_size": 300, "shapes": [[[10, 20], [30.5, 40]], [[50, 60]]]}

    def read_edited(edits, more):
        data = to_json(edit_tree(tree, edits))
        with open(path, "wb") as file:
            file.write(edit_bytes(data, more) if more else data)
        read_shapes(path, [2, 1], 300)

    tally = fuzz("anchor files", examples(2500), EDITS, st.just([]) | EDITS, read=read_edited)
    check_both(tally)
