"""Options: config/default.yaml < recipe < command line. Only entry points see them; the rest takes plain arguments."""
from __future__ import annotations

import difflib
import os
import re
import shutil
import textwrap
from collections.abc import Callable

import yaml
from easydict import EasyDict

from src.classes import COCO_CLASSES, VOC_CLASSES, named_classes
from src.errors import OptionError
from src.files import expand_home, write_atomic
from src.option_rules import DATA_OPTIONS, DATA_PLACES, RENAMED, rule_of
from src.recipes import KINDS, ZOO_RECIPE, read_recipe, read_yaml
from src.text import wrap_paragraphs
from src.version import version_line

DEFAULT_PATH = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "config", "default.yaml")
AUTO_PATH = os.path.join(os.path.dirname(DEFAULT_PATH), "auto.yaml")  # the recipe of --model=auto
VAL_SHARE = 0.2  # of images that come without a split
MEANINGS = 32  # column of --help where they begin
ZOO_KEYS = ("enable_modelarts", "data_url", "train_url", "checkpoint_url", "feature_extractor_base_param")


def read_options(arguments: list[str], program: str = "train.py", *, doc: str = "", strict: bool = False) -> EasyDict:
    """Resolves a command line into all options; `typed` holds the names set on the command line.

    arguments: "--key=value" or "--key", "value". program: who asks, as a user starts it. doc: what it does, for --help.
    strict: options that the program does not use are errors. --help and --version print and exit 0. Raises OptionError
    (exit 2), which names the key, what came and what is allowed.
    """
    if {"-h", "--help"} & set(arguments):
        print(help_text(program, doc), flush=True)
        raise SystemExit(0)
    if "--version" in arguments:
        print(version_line(), flush=True)
        raise SystemExit(0)
    defaults, typed = read_yaml(DEFAULT_PATH), split_arguments(arguments)
    typed = {key: expand_home(value) if rule_of(key).is_path else value for key, value in typed.items()}
    if "resume" in typed and "config_path" not in typed:  # an interrupted run knows its own options
        own = os.path.join(typed.get("output_path", defaults["output_path"]), "config.yaml")
        typed.update({"config_path": own} if os.path.isfile(own) else {})
    chooses = program in ("train.py", "prepare_data.py") and "config_path" not in typed
    if chooses and typed.get("model", chosen_for(typed, program)) == "auto":
        typed["config_path"] = AUTO_PATH
    recipe = read_recipe(typed["config_path"]) if typed.get("config_path") else {}
    if "dataset" in typed and typed["dataset"] != recipe.get("dataset", defaults["dataset"]):
        # train2017 is not a split of VOC; places of files belong to a data set only where the recipe names one
        dropped = ("name", "place") if "dataset" in recipe else ("name",)
        recipe = {key: value for key, value in recipe.items() if rule_of(key).split not in dropped}
    origin = f"{typed.get('config_path')}: "
    values = {**defaults, **{key: convert(key, value, defaults, origin=origin) for key, value in recipe.items()},
              **{key: convert(key, value, defaults) for key, value in typed.items()}}
    unused = [name for name in typed if program not in rule_of(name).programs]
    if strict and unused:
        used = ", --".join(name for name in defaults if program in rule_of(name).programs)
        raise OptionError(f"--{unused[0]} is not used by {program}, which takes --{used}")
    values["model"] = with_full_path(values["model"])
    unseen = [name for name in typed if name in DATA_PLACES and name.startswith("val_")]
    if unseen and values["val_share"]:
        share = values["val_share"]
        raise OptionError(f"--val_share={share:g} takes the validation images out of the training images, "
                          f"--{unseen[0]} says that they have a place of their own; leave one of the two out")
    values["classes"] = named_classes(values["classes"])  # from here on `coco` is a class like others
    return EasyDict({**values, "typed": sorted(typed)})


def with_full_path(model: str) -> str:
    """path/my_file.py:my_model with the path from the root, as a checkpoint keeps it; other names as they are."""
    path, _, builder = model.rpartition(":")
    return f"{os.path.abspath(expand_home(path))}:{builder}" if path.endswith(".py") else model


def chosen_for(typed: dict[str, str], program: str) -> str:
    """The model of a program for which no recipe and no model is typed, "" for the default one."""
    return "auto" if "data" in typed or program == "prepare_data.py" else ""


def unused_note(options: EasyDict, program: str) -> str:
    """A line that names the typed options which the program does not use, "" for none."""
    names = [f"--{name}" for name in options.typed if program not in rule_of(name).programs]
    return f"not used by {program}: {', '.join(names)} (--help lists what is)" if names else ""


def split_options(options: EasyDict, split: str) -> dict:
    """The arguments of data.prepare.prepare_split that the options give for split "train" or "val"."""
    place = "train" if options.val_share else split  # with a share both splits are parts of the training images
    anno_path, image_dir = options.anno_path, options.image_dir
    if place == "val":
        anno_path, image_dir = options.val_anno_path, options.val_image_dir
        if not image_dir and (options.dataset == "other" or anno_path):  # without a file a split has its own folder
            image_dir = options.image_dir
    shared = ("dataset", "mindrecord_dir", "strict", "coco_root", "instances_set", "voc_root", "val_share",
              "split_seed")
    return {**{key: options[key] for key in shared}, "split": split, "split_name": options[f"{place}_data_type"],
            "anno_path": anno_path, "image_dir": image_dir}


def model_options(options: EasyDict) -> dict:
    """The arguments of inference.predictor.load_model: all values, and those of them that were typed."""
    return {"defaults": dict(options), "overrides": {name: options[name] for name in options.typed}}


def save_options(options: EasyDict, path: str) -> None:
    """Writes the resolved options as YAML that --config_path reads again."""
    values = {key: value for key, value in options.items() if key != "typed"}
    write_atomic(path, yaml.safe_dump(values, sort_keys=False).encode())


def split_arguments(arguments: list[str]) -> dict[str, str]:
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


def convert(key: str, value: object, defaults: dict, *, origin: str = "--") -> object:
    """A value as the type of the default of key, checked. origin: what errors put before the key.

    Raises OptionError.
    """
    if key not in defaults:
        near = RENAMED.get(key) or next(iter(difflib.get_close_matches(key, defaults, 1, 0.5)), None)
        hint = f"did you mean '{near}'?" if near else "see --help for all options"
        zoo = ZOO_RECIPE if key in ZOO_KEYS and origin != "--" else ""
        raise OptionError(f"{origin}{key} is not an option; {hint}{zoo}")
    to_kind, expected = KINDS[type(defaults[key])]
    try:
        result = to_kind(value)
    except (ValueError, KeyError) as error:
        raise OptionError(f"{origin}{key}={value!r}: expected {expected}") from error
    if rule_of(key).is_path:
        result = expand_home(result)
    problem = rule_of(key).problem(result)
    if problem:
        raise OptionError(f"{origin}{key}={value}: {problem}")
    return result


def help_text(program: str, doc: str = "") -> str:
    """What the program does, and the options it uses with default and meaning, as wide as the terminal."""
    width = shutil.get_terminal_size().columns  # 80 where it is not known
    lines = [f"usage: python {program} [--version] [--config_path=RECIPE] [--key=value ...]\n",
             wrap_paragraphs(doc, width)]
    with open(DEFAULT_PATH, encoding="utf-8") as file:
        text = file.read()
    heading = []
    for group, name, default, meaning in re.findall(r"^# --- (.*)|^(\w+):\s*(.*?)\s+# (.*)", text, re.MULTILINE):
        if group:
            heading = [f"\n{group}:"]
        elif program in rule_of(name).programs:
            lines += [*heading, option_help(f"  --{name}={default}", meaning, width)]
            heading = []
    return "\n".join(lines).strip()


def option_help(option: str, meaning: str, width: int) -> str:
    """The lines of one option, its meaning in a column of its own."""
    before, head = "", option.ljust(MEANINGS)
    if len(option) >= MEANINGS:
        before, head = f"{option}\n", " " * MEANINGS
    return before + textwrap.fill(meaning, width, initial_indent=head, subsequent_indent=" " * MEANINGS,
                                  break_long_words=False, break_on_hyphens=False)


# --- the options that --data stands for

def take_data(options: EasyDict, identify: Callable) -> tuple[EasyDict, str]:
    """Options with those that --data stands for, as if they were typed, and a line that names them; "" without --data.

    identify: data.formats.identify. Options of a recipe that say where data lies do not count, nor do its classes of
    COCO or VOC. A typed option wins over the --data of a recipe; with a typed --data it must say the same, but for the
    names of splits. Raises OptionError, DataError.
    """
    typed = [name for name in DATA_PLACES if name in options.typed]
    if not options.data or (typed and "data" not in options.typed):
        return options, ""
    found = identify(options.data, options.dataset if "dataset" in typed else "")
    places = {**read_yaml(DEFAULT_PATH), "dataset": found.dataset, **found.options}
    has_lists = "coco_root" in found.options or "voc_root" in found.options
    for name in typed:
        said, here = (os.path.abspath(value) if rule_of(name).is_path else value
                      for value in (options[name], places[name]))
        if rule_of(name).split == "name" and has_lists:
            found = found._replace(options={**found.options, name: options[name]})
        elif said != here:
            raise OptionError(f"--data={options.data} is the same as {found.typed()}, but --{name}={options[name]} is "
                              "given too; leave one of the two out")
    new = {name: found.options.get(name, places[name]) for name in DATA_PLACES}
    if "val_share" not in options.typed:
        new["val_share"] = 0.0 if found.has_val or "val_data_type" in typed else VAL_SHARE
    shown = [found.typed()]
    if "classes" not in options.typed and options.classes in (list(COCO_CLASSES), list(VOC_CLASSES)):
        new["classes"] = []
        shown.append("--classes=[]")
    share = new.get("val_share", options.val_share)
    if share:
        shown.append(f"--val_share={share:g} (no validation images are given: the file names choose them)")
    unused = f"; not used: {', '.join(found.unused)}" if found.unused else ""
    line = f"--data={options.data} holds {found.words}, the same as {' '.join(shown)}{unused}"
    return EasyDict({**options, **new, "data": "", "typed": sorted({*options.typed, *DATA_PLACES})}), line


# --- the data of a run goes with its checkpoints

def run_of(path: str) -> str | None:
    """The folder of the run that a file lies in, at its top or in its ckpt/; None for a file elsewhere."""
    folder = os.path.dirname(os.path.abspath(path))
    run = os.path.dirname(folder) if os.path.basename(folder) == "ckpt" else folder
    is_run = os.path.isfile(os.path.join(run, "config.yaml")) and os.path.isdir(os.path.join(run, "ckpt"))
    return run if is_run else None


def take_run_data(options: EasyDict) -> tuple[EasyDict, str]:
    """Options with the data of the run that checkpoint_file_path lies in, and a line that says so, "" for no change.

    What is typed or in the recipe is kept, and another --dataset takes nothing. Raises OptionError.
    """
    run = run_of(options.checkpoint_file_path) if options.checkpoint_file_path else None
    if not run:
        return options, ""
    path = os.path.join(run, "config.yaml")
    stored, given = read_yaml(path), set(options.typed)
    given |= set(read_recipe(options.config_path)) if options.config_path else set()
    if "dataset" in given and stored.get("dataset", options.dataset) != options.dataset:
        return options, ""
    if any(name in given and is_other(name, stored.get(name), options[name]) for name in DATA_PLACES):
        given |= {"val_share", "split_seed"}  # they belong to the place of the data
    taken = {name: convert(name, stored[name], options, origin=f"{path}: ") for name in DATA_OPTIONS
             if name in stored and name not in given}
    shown = {name: f"[{','.join(value)}]" if isinstance(value, list) else value for name, value in taken.items()
             if value != options[name]}
    words = " ".join(f"--{name}={value}" for name, value in shown.items())
    shorter = min(os.path.relpath(path), path, key=len)
    line = f"data of the run, from {shorter}: {words}" if words else ""
    return EasyDict({**options, **taken}), line


def on_run_data(options: EasyDict) -> bool:
    """Whether the validation split is that of the run which checkpoint_file_path lies in."""
    run = run_of(options.checkpoint_file_path)
    if not run:
        return False
    stored = EasyDict({**read_yaml(DEFAULT_PATH), **read_yaml(os.path.join(run, "config.yaml"))})
    theirs, ours = split_options(stored, "val"), split_options(options, "val")
    return not any(is_other(name, theirs[name], value) for name, value in ours.items()
                   if name not in ("mindrecord_dir", "strict"))


def is_other(name: str, stored: object, value: object) -> bool:
    """Whether an option of a run is not as it is now; one that the run does not know is as it was."""
    if stored is None or not rule_of(name).is_path:
        return stored not in (None, value)
    return os.path.abspath(str(stored)) != os.path.abspath(value)
