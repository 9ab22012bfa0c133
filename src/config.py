"""Options: config/default.yaml < recipe < command line. Only entry points see them; the rest takes plain arguments."""
import difflib
import math
import os
import re

import yaml
from easydict import EasyDict

from src.classes import named_classes
from src.errors import OptionError
from src.files import expand_home
from src.version import version_line

DEFAULT_PATH = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "config", "default.yaml")

CHOICES = {
    "dataset": ("coco", "voc", "other"),
    "device_target": ("CPU", "GPU", "Ascend"),
    "amp_level": ("O0", "O1", "O2", "O3", "auto"),
    "amp_type": ("float16", "bfloat16"),
    "augmentation": ("zoo", "ssd", "paddle", "mlperf", "nvidia", "flip", "plain"),
    "matching": ("zoo", "nvidia", "ssd"),
    "lr_schedule": ("cosine", "multistep"),
    "optimizer": ("momentum", "nesterov", "rmsprop"),
    "decay_exclude": ("norm", "norm_bias", "body", "none"),
    "loss": ("auto", "focal", "multibox"),
    "loss_normalizer": ("batch", "local", "image"),
    "batch_norm": ("own", "frozen", "sync"),
    "weight_init": ("published", "he"),
    "resize": ("bilinear", "antialias"),
    "metric_engine": ("hotcoco", "pycocotools"),
    "file_format": ("MINDIR", "ONNX"),
    "quantize": ("none", "fp16", "int8"),
}
AT_LEAST_ONE = ("epoch_size", "batch_size", "eval_batch_size", "nms_candidates", "max_boxes", "log_interval",
                "accumulate", "save_checkpoint_epochs", "keep_checkpoint_max", "eval_interval", "calibration_images")
# the graph repeats the post-processing for each image: beyond, MindSpore compiles for minutes or meets its own limit
AT_MOST = {"eval_batch_size": 128, "export_batch_size": 128}
ABOVE_ZERO = ("lr", "loss_scale", "width", "body_lr")
UNIT_INTERVAL = ("match_threshold", "min_score", "nms_threshold", "draw_score", "momentum", "alpha", "lr_end_rate",
                 "empty_negatives", "ema_decay")
# options that hold the path of a file or folder (or of some)
PATHS = ("config_path", "output_path", "compile_cache", "coco_root", "instances_set", "voc_root", "image_dir",
         "val_image_dir", "anno_path", "val_anno_path", "mindrecord_dir", "pre_trained", "checkpoint_file_path",
         "file_name", "source")
# what a recipe says of its own data set and no other: the names of its splits, and where it names the set, their places
SPLIT_NAMES = ("train_data_type", "val_data_type")
SPLIT_PLACES = ("image_dir", "val_image_dir", "anno_path", "val_anno_path")
# what may differ between the hosts of a distributed run: where things lie, and their cores
OF_A_HOST = ("typed", "coco_root", "voc_root", "image_dir", "val_image_dir", "anno_path", "val_anno_path",
             "mindrecord_dir", "pre_trained", "compile_cache", "config_path", "num_workers", "device_id", "output_path")
# what the model zoo called the same thing
RENAMED = {"model_name": "model", "img_shape": "image_size", "use_float16": "amp_level", "num_classes": "classes",
           "data_path": "coco_root", "checkpoint_path": "checkpoint_file_path", "img_path": "source",
           # and what other repositories call it
           "learning_rate": "lr", "epochs": "epoch_size", "num_epochs": "epoch_size", "output_dir": "output_path",
           "save_checkpoint_path": "output_path", "device": "device_target", "weights": "pre_trained",
           "feature_extractor_base_param": "pre_trained", "workers": "num_workers",
           "num_parallel_workers": "num_workers"}
ZOO_KEYS = ("enable_modelarts", "data_url", "train_url", "checkpoint_url", "feature_extractor_base_param")
ZOO_RECIPE = "; is it a recipe of the model zoo? config/ has one for each of its models"


def read_options(arguments, program=""):
    """Resolves a command line -> EasyDict of all options; `typed` holds the names set on the command line.

    arguments: list of "--key=value" or "--key", "value". Raises OptionError (exit 2) naming the key, what came and
    what is allowed. `--help` prints every option, `--version` the version; both exit 0.
    """
    if "-h" in arguments or "--help" in arguments:
        print(help_text(program), flush=True)
        raise SystemExit(0)
    if "--version" in arguments:
        print(version_line(), flush=True)
        raise SystemExit(0)
    options = EasyDict(read_yaml(DEFAULT_PATH))
    typed = {key: expand_home(value) if key in PATHS else value for key, value in split_arguments(arguments).items()}
    if "resume" in typed and "config_path" not in typed:  # an interrupted run knows its own options
        own = os.path.join(typed.get("output_path", options.output_path), "config.yaml")
        typed.update({"config_path": own} if os.path.isfile(own) else {})
    recipe = read_recipe(typed["config_path"]) if typed.get("config_path") else {}
    if "dataset" in typed and typed["dataset"] != recipe.get("dataset", options.dataset):
        # train2017 is no list of VOC, and a TXT file none of COCO's
        for key in (*SPLIT_NAMES, *(SPLIT_PLACES if "dataset" in recipe else ())):
            recipe.pop(key, None)
    for origin, values in ((f"{typed.get('config_path')}: ", recipe), ("--", typed)):
        for key, value in values.items():
            options[key] = convert(key, value, options, origin)
    options.classes = named_classes(options.classes)  # from here on a list is names, and `coco` one like others
    options.typed = sorted(typed)
    return options


def split_options(options, split):
    """The arguments of data.prepare.prepare_split that the options give for split "train" or "val"."""
    shared = ("dataset", "mindrecord_dir", "strict", "coco_root", "instances_set", "voc_root")
    anno_path, image_dir = options.anno_path, options.image_dir
    if split == "val":
        # the folder of a named annotation file; beside COCO's own one lies its own folder
        own = options.dataset == "coco" and not options.val_anno_path
        anno_path, image_dir = options.val_anno_path, options.val_image_dir or ("" if own else image_dir)
    return {**{key: options[key] for key in shared}, "split": split, "split_name": options[f"{split}_data_type"],
            "anno_path": anno_path, "image_dir": image_dir}


def save_options(options, path):
    """Writes the resolved options as YAML that --config_path reads again."""
    values = {key: value for key, value in options.items() if key != "typed"}
    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump(values, file, sort_keys=False)


def split_arguments(arguments):
    """["--lr=1", "--device_target", "CPU", "--resume"] -> {"lr": "1", "device_target": "CPU", "resume": "True"}"""
    typed, rest = {}, list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise OptionError(f"'{word}' is not an option; options are written --key=value (see --help)")
        key, equals, value = word[2:].partition("=")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "True"
        typed[key] = value
    return typed


def read_recipe(path, above=()):
    """A recipe as a dict, its `_base_` (a path relative to the recipe) read first. above: the recipes that led here."""
    if os.path.abspath(path) in above:
        raise OptionError(f"{path}: _base_ leads back to itself")
    values = read_yaml(path, RecipeLoader)
    base = values.pop("_base_", None) or ""
    if not isinstance(base, str):
        raise OptionError(f"{path}: _base_={base!r}: expected the path of one recipe")
    base = os.path.join(os.path.dirname(path), expand_home(base)) if base else ""
    below = read_recipe(base, (*above, os.path.abspath(path))) if base else {}
    return {**below, **values}


class Word(str):
    """What YAML takes for a number, a truth value or a date, as it is written: on, no, 007, 2024-01-01 may be names."""


class RecipeLoader(yaml.SafeLoader):
    """Leaves the words of a recipe as they are written; the type of an option says what they mean."""

    yaml_constructors = {
        **yaml.SafeLoader.yaml_constructors,
        **{f"tag:yaml.org,2002:{kind}": lambda loader, node: Word(node.value)
           for kind in ("bool", "int", "float", "timestamp")},
        "tag:yaml.org,2002:seq": lambda loader, node: [item.value if isinstance(item, yaml.ScalarNode) else
                                                       loader.construct_object(item, deep=True) for item in node.value]}


def read_yaml(path, loader=yaml.SafeLoader):
    """The mapping in a YAML file. Raises OptionError when it is missing, broken or no mapping."""
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.load(file, loader)
    except OSError as error:
        raise OptionError(f"config_path '{path}' cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        zoo = ZOO_RECIPE if "single document" in str(error) else ""  # its recipes hold help texts as further ones
        raise OptionError(f"{path} is not valid YAML: {' '.join(str(error).split())}{zoo}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise OptionError(f"{path} must hold 'key: value' lines with names of options")
    return values


def convert(key, value, options, origin="--"):
    """value as the type of the default of key, checked. Raises OptionError."""
    if key not in options:
        near = RENAMED.get(key) or next(iter(difflib.get_close_matches(key, options, 1, 0.5)), None)
        hint = f"did you mean '{near}'?" if near else "see --help for all options"
        hint += ZOO_RECIPE if key in ZOO_KEYS and origin != "--" else ""
        raise OptionError(f"{origin}{key} is not an option; {hint}")
    kind, expected = CONVERTERS[type(options[key])]
    try:
        result = kind(value)
    except (TypeError, ValueError, KeyError, yaml.YAMLError) as error:
        raise OptionError(f"{origin}{key}={value!r}: expected {expected}") from error
    result = expand_home(result) if key in PATHS else result
    problem = impossible(key, result)
    if problem:
        raise OptionError(f"{origin}{key}={value}: {problem}")
    return result


def impossible(key, value):
    """What is wrong with a value of the right type, or None."""
    if key in CHOICES and value not in CHOICES[key]:
        near = [choice for choice in CHOICES[key] if choice.lower() == value.lower()]
        return f"allowed are {', '.join(CHOICES[key])}" + (f"; did you mean {near[0]}?" if near else "")
    if key in AT_LEAST_ONE and value < 1:
        return "must be at least 1"
    if key in AT_MOST and value > AT_MOST[key]:
        return f"must be at most {AT_MOST[key]}"
    if key in ABOVE_ZERO and value <= 0:
        return "must be above 0"
    if key in UNIT_INTERVAL and not 0 <= value <= 1:
        return "must lie between 0 and 1"
    return "must not be negative" if isinstance(value, (int, float)) and value < 0 else None


def to_float(value):
    """A finite float from a number or a string: PyYAML reads 1e-3 as a string."""
    if not math.isfinite(float(str(value))):
        raise ValueError(value)
    return float(value)


def to_str(value):
    """A string; None and the model zoo's "None" mean empty."""
    if isinstance(value, (list, dict)):
        raise ValueError(value)
    return "" if value is None or value == "None" else str(value)


def to_list(value):
    """A list of names as they are written, from a list of a recipe, "[a,b]" or "a, b"."""
    if isinstance(value, str) and not isinstance(value, Word):
        if value.startswith("{") and ":" in value:
            raise ValueError(value)
        value = read_brackets(value) if value.startswith("[") else read_commas(value)
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise ValueError(value)
    return [str(item) for item in value]


def read_commas(text):
    """The items of "a, 'b, c', d's"; quotes are part of the names unless some hold a comma together."""
    quoted = "|".join(f"{quote}[^{quote}]*,[^{quote}]*{quote}" for quote in "'\"")
    items = re.findall(rf"(?:^|,\s*)((?:{quoted}|[^,]*?)(?=\s*(?:,|$)))", text)
    if any(re.fullmatch(quoted, one) for one in items):
        items = [re.sub(r"""^(["'])(.*)\1$""", r"\2", one) for one in items]
    return [one for one in items if one]


def read_brackets(text):
    """The items of "[a, 'b, c', d: e]" as they are written. Raises YAMLError, ValueError for what is no list."""
    node = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(node, yaml.SequenceNode):
        raise ValueError(text)
    return [read_item(item, text) for item in node.value]


def read_item(node, text):
    """One item of a list as it is written. Raises ValueError for what is no name, such as the map bear: 1."""
    written = text[node.start_mark.index:node.end_mark.index].strip()
    if isinstance(node, yaml.ScalarNode) and not written.startswith(("&", "!")):  # YAML's anchors and tags
        return node.value
    number = re.fullmatch(r"[-+.\d]*", written.rpartition(":")[2].strip())
    if not isinstance(node, yaml.MappingNode) or written.startswith("{") or number:
        raise ValueError(written)
    return written


WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
# by the type of the default: the function, which fails on anything else (str: 8.5 and True are no int), and its words
CONVERTERS = {bool: (lambda value: WORDS[str(value).lower()], "True or False"),
              int: (lambda value: int(str(value)), "a whole number"),
              float: (to_float, "a number"), str: (to_str, "a text"),
              list: (to_list, "a list such as [a,b] of names, each of one letter or more; quote a name with a colon, a "
                              "comma or a #")}


def help_text(program):
    """Every option with its default and meaning, in the groups of default.yaml."""
    lines = [f"usage: python {program or 'train.py'} [--config_path=RECIPE] [--key=value ...]"]
    with open(DEFAULT_PATH, encoding="utf-8") as file:
        text = file.read()
    for group, name, default, meaning in re.findall(r"^# --- (.*)|^(\w+):\s*(.*?)\s+# (.*)", text, re.MULTILINE):
        lines.append(f"\n{group}:" if group else f"  {f'--{name}={default}':<40} {meaning}")
    return "\n".join(lines)
