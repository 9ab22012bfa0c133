"""Lists of names as users write them: nothing that YAML knows eats a name, and only what is typed names a list."""
import os
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT, coco_tree

from src.classes import COCO_CLASSES, VOC_CLASSES, checked_classes, named_classes, nearest, one_line
from src.config import read_options, save_options
from src.errors import OptionError

WORDS = ["on", "no", "null", "007", "~", "1e3", "0x1F", "2024-01-01", "1_0", ".inf", "yes", "12:30", "1.0", "True", "N"]


def classes_of(*arguments):
    return read_options(list(arguments)).classes


def recipe_of(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    return f"--config_path={tmp_path}/recipe.yaml"


@pytest.mark.parametrize("around", ["[{}]", "{}"])
@pytest.mark.parametrize("comma", [",", ", "])
def test_words_of_yaml_stay_names(around, comma, tmp_path):
    written = around.format(comma.join(WORDS))
    assert classes_of(f"--classes={written}") == WORDS
    assert classes_of("--classes", written) == WORDS
    quote = "" if "[" in around else "'"
    assert classes_of(recipe_of(tmp_path, f"classes: {quote}{written}{quote}\n")) == WORDS


@pytest.mark.parametrize("text", [
    f"classes: [{', '.join(WORDS)}]\n",
    "classes:\n" + "".join(f"  - {one}\n" for one in WORDS), "_base_: below.yaml\n"])
def test_words_of_yaml_stay_names_in_recipes_and_in_the_saved_options(text, tmp_path):
    (tmp_path / "below.yaml").write_text(f"classes: [{', '.join(WORDS)}]\n")
    options = read_options([recipe_of(tmp_path, text)])
    assert options.classes == WORDS
    save_options(options, tmp_path / "config.yaml")
    assert classes_of(f"--config_path={tmp_path}/config.yaml") == WORDS
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["classes"] == WORDS


def test_words_of_yaml_stay_texts_in_single_options(tmp_path):
    text = ("output_path: 007\nfile_name: 1e3\ntrain_data_type: no\nval_data_type: 2024-01-01\nfreeze_layer: ~\n"
            "source: 'null'\n")
    options = read_options([recipe_of(tmp_path, text)])
    assert (options.output_path, options.file_name, options.train_data_type) == ("007", "1e3", "no")
    assert (options.val_data_type, options.freeze_layer, options.source) == ("2024-01-01", "", "null")
    save_options(options, tmp_path / "config.yaml")
    again = read_options([f"--config_path={tmp_path}/config.yaml"])
    assert all(again[key] == options[key] for key in options if key not in ("typed", "config_path"))


@pytest.mark.parametrize("word, value", [("on", True), ("off", False), ("yes", True), ("No", False), ("true", True)])
def test_words_of_yaml_are_truth_values_where_one_is_asked(word, value, tmp_path):
    assert read_options([recipe_of(tmp_path, f"run_eval: {word}\n")]).run_eval is value
    assert read_options([f"--run_eval={word}"]).run_eval is value


def test_numbers_of_other_lists_are_as_written(tmp_path):
    options = read_options([recipe_of(tmp_path, "lr_milestones: [43, 54.5]\nlr_factors: [1e-1, .01]\n")])
    assert [float(one) for one in options.lr_milestones] == [43, 54.5]
    assert [float(one) for one in options.lr_factors] == [0.1, 0.01]


@pytest.mark.parametrize("written, names", [
    ('["a,b"]', ["a,b"]), ("['a, b', cat]", ["a, b", "cat"]), ("'a, b', c", ["a, b", "c"]), ('"a,b","c"', ["a,b", "c"]),
    ("[c: d]", ["c: d"]), ("['c: d', e]", ["c: d", "e"]), ("c: d", ["c: d"]), ("['bear: 1']", ["bear: 1"]),
    ("[it's, d]", ["it's", "d"]), ("bird's nest, cat, it's", ["bird's nest", "cat", "it's"]), ("'q'", ["'q'"]),
    ("['it''s']", ["it's"]), ("{y}", ["{y}"]), (" lead", [" lead"]), ("#hash", ["#hash"]), ("['#hash']", ["#hash"]),
    ("None", ["None"]), ("bear,", ["bear"]), ("[teddy bear, h\u00e9\u732b]", ["teddy bear", "h\u00e9\u732b"])])
def test_names_with_signs(written, names):
    assert classes_of(f"--classes={written}") == names


@pytest.mark.parametrize("written", [
    "[bear: 1]", "[bear: 1, cat: 2]", "{bear: 1}", "{0: cat}", "[{a: b}]", "[[a]]", "[a: ]", '[""]', '["", cat]',
    "[' ']", " ", "[#hash]", "[bear", "[&x]", "[&x cat]", "[!x]", "[a,,b]", "[*a]"])
def test_what_is_no_list_of_names_is_one_line_and_exit_2(written, tmp_path):
    with pytest.raises(OptionError, match="--classes=.*expected a list such as .a,b.") as error:
        classes_of(f"--classes={written}")
    assert error.value.exit_code == 2 and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{0: cat, 1: dog}", "[cat: 1]", "[c: d]", "[[a]]", '[""]', "[a, ~, '']", "5", "on",
                                  "~", "2024-01-01", "\n  - cat\n  -\n"])
def test_what_is_no_list_of_names_in_a_recipe(text, tmp_path):
    with pytest.raises(OptionError, match="classes=.*expected a list such as .a,b.") as error:
        classes_of(recipe_of(tmp_path, f"classes: {text}\n"))
    assert error.value.exit_code == 2 and "\n" not in str(error.value)


# --- lists of names, and names of lists

def test_only_what_is_typed_names_a_list(tmp_path):
    assert classes_of("--classes=coco") == list(COCO_CLASSES) and classes_of("--classes=[voc]") == list(VOC_CLASSES)
    assert classes_of(recipe_of(tmp_path, "classes: [coco]\n")) == list(COCO_CLASSES)
    assert classes_of("--classes=coco,voc") == ["coco", "voc"]
    for name in ("coco", "voc", "background"):
        assert checked_classes([name]) == [name]
    with pytest.raises(OptionError, match="implicit"):
        classes_of("--classes=background")


@pytest.mark.parametrize("name", ["coco", "voc", "background"])
def test_a_checkpoint_of_a_class_called_like_a_list_is_taken(name, tmp_path):
    import mindspore as ms

    from src.inference.description import describe
    from src.inference.predictor import load_predictor
    from src.models.ssd import build_model
    from src.weights import checkpoint
    options = read_options(["--model=ssd300_mobilenet_v2", "--image_size=64", "--width=0.25", "--compile_cache="])
    model = build_model(options.model, 2, image_size=64, width=0.25)
    path = str(tmp_path / "one.ckpt")
    checkpoint.save(path, list(model.network.get_parameters()), describe(model, [name], options))
    predict = load_predictor(path, batch_size=1, defaults=options, overrides={})
    assert predict.classes == [name] and ms.__version__


@pytest.mark.parametrize("name", ["coco", "background"])
def test_a_conversion_for_a_checkpoint_takes_its_names_as_they_are(name, tmp_path, call):
    root = coco_tree(tmp_path, [(5, [1, 1, 9, 9], 7, {})])
    path = os.path.join(root, "annotations", "instances_train2017.json")
    with open(path, encoding="utf-8") as file:
        text = file.read().replace('{"id": 2, "name": "ant"}', "").replace('"cat"}, ', f'"{name}"}}')
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    assert call.coco([name]).classes == [name] and call.coco().classes == [name]


def test_import_weights_reads_a_list_as_all_programs_do(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"")
    for written in ("[bear: 1]", '[""]'):
        done = subprocess.run([sys.executable, "import_weights.py", str(tmp_path / "x.npz"), f"--classes={written}",
                               "--model=ssd300_resnet50", f"--output={tmp_path}/x.ckpt"], cwd=ROOT, capture_output=True,
                              text=True, check=False)
        assert done.returncode == 2 and "expected a list such as [a,b]" in done.stderr


def test_names_stay_on_one_line():
    names = ("cat", "a\nb", "a\tb", "caf\u00e9", "\ud800")
    assert [one_line(name) for name in names] == ["cat", "a b", "a b", "caf\u00e9", "?"]


# --- the named lists

def test_named_lists():
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80 and len(VOC_CLASSES) == len(set(VOC_CLASSES)) == 20
    assert COCO_CLASSES[0] == "person" and COCO_CLASSES[79] == "toothbrush" and VOC_CLASSES[19] == "tvmonitor"
    assert named_classes(["coco"]) == list(COCO_CLASSES) and named_classes(["voc"]) == list(VOC_CLASSES)
    assert named_classes(["b", "a"]) == ["b", "a"] and named_classes([]) == []


@pytest.mark.parametrize("names, text", [
    (["background", "cat"], "implicit"), (["cat", "dog", "cat"], "'cat' more than once")])
def test_impossible_class_lists(names, text):
    with pytest.raises(OptionError, match=text):
        named_classes(names)


def test_nearest_name():
    assert nearest("aeroplan", VOC_CLASSES) == "aeroplane"
    assert nearest("rbc", ["WBC", "RBC"]) == "RBC"
    assert nearest("xyzzy", VOC_CLASSES) is None
