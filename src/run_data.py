"""The data of a run goes with its checkpoints: eval.py and export.py need not be told again where it is."""
from __future__ import annotations

import os

from easydict import EasyDict

from src.config import convert
from src.option_rules import DATA_OPTIONS
from src.recipes import read_recipe, read_yaml


def run_of(path: str) -> str | None:
    """The folder of the run that a file lies in, at its top or in its ckpt/; None for a file elsewhere."""
    folder = os.path.dirname(os.path.abspath(path))
    run = os.path.dirname(folder) if os.path.basename(folder) == "ckpt" else folder
    is_run = os.path.isfile(os.path.join(run, "config.yaml")) and os.path.isdir(os.path.join(run, "ckpt"))
    return run if is_run else None


def take_run_data(options: EasyDict) -> tuple[EasyDict, str]:
    """Options with the data of the run that checkpoint_file_path lies in, and a line that says so, "" for no change.

    What the command line or the recipe says is kept, and another --dataset takes nothing. Raises OptionError for a
    config.yaml that cannot be read.
    """
    run = run_of(options.checkpoint_file_path) if options.checkpoint_file_path else None
    if not run:
        return options, ""
    path = os.path.join(run, "config.yaml")
    stored, given = read_yaml(path), set(options.typed)
    given |= set(read_recipe(options.config_path)) if options.config_path else set()
    if "dataset" in given and stored.get("dataset", options.dataset) != options.dataset:
        return options, ""
    taken = {name: convert(name, stored[name], options, origin=f"{path}: ") for name in DATA_OPTIONS
             if name in stored and name not in given}
    shown = " ".join(f"--{name}={as_typed(value)}" for name, value in taken.items() if value != options[name])
    line = f"data of the run, from {os.path.relpath(path)}: {shown}" if shown else ""
    return EasyDict({**options, **taken}), line


def as_typed(value: object) -> object:
    """A value as it stands in a command line."""
    return f"[{','.join(value)}]" if isinstance(value, list) else value
