"""What a program takes of the options: those of its own among all, and those of the run that its checkpoint lies in."""
import os
import re
from collections.abc import Callable, Iterable

from src.config import DEFAULT_PATH, convert, help_text, read_options, read_recipe, read_yaml
from src.errors import OptionError

USE_OF_DATA = ("use_difficult", "augmentation", "match_threshold", "matching", "num_workers")  # of the group "data"


def option_groups() -> dict:
    """{heading: names of its options} of config/default.yaml."""
    groups, names = {}, []
    with open(DEFAULT_PATH, encoding="utf-8") as file:
        for heading, name in re.findall(r"^# --- (.*)|^(\w+):", file.read(), re.MULTILINE):
            if heading:
                names = groups.setdefault(heading.strip(), [])
            else:
                names.append(name)
    return groups


def data_options() -> list:
    """Names of the options that say which data it is, and where: not how training uses it."""
    return [name for name in option_groups()["data"] if name not in USE_OF_DATA]


def read_part(arguments: list, program: str, doc: str, *, names: Iterable):
    """The options of a script that uses those in names; --help prints doc and them. Raises OptionError for others."""
    if {"-h", "--help"} & set(arguments):
        print(f"{doc}\n{part_of_help(program, names)}")
        raise SystemExit(0)
    options = read_options(arguments, program)
    strange = [name for name in options.typed if name not in names]
    if strange:
        raise OptionError(f"--{strange[0]} is not used by {program}, which takes --{', --'.join(names)}")
    return options


def part_of_help(program: str, names: Iterable) -> str:
    """The usage line of config.help_text and its lines about names, under their headings."""
    usage, *lines = help_text(program).splitlines()
    kept, heading = [usage], None
    for line in lines:
        if not line.startswith("  --"):
            heading = line
        elif re.match(r"  --(\w+)", line)[1] in names:
            kept += [f"\n{heading}", line] if heading else [line]
            heading = None
    return "\n".join(kept)


def unused_line(options, program: str) -> str:
    """A line that names the typed options which only training uses; "" without any."""
    strange = [f"--{name}" for name in options.typed if name in option_groups()["training"]]
    return f"not used by {program}: {', '.join(strange)} (train.py alone does)" if strange else ""


def run_of(path: str):
    """The folder of the run that a file lies in, at its top or in its ckpt/; None for a file elsewhere."""
    folder = os.path.dirname(os.path.abspath(path))
    run = os.path.dirname(folder) if os.path.basename(folder) == "ckpt" else folder
    marks = os.path.join(run, "config.yaml"), os.path.join(run, "ckpt")
    return run if os.path.isfile(marks[0]) and os.path.isdir(marks[1]) else None


def read_beside_run(arguments: list, program: str, needs_data: Callable) -> tuple:
    """The options of a program that takes a checkpoint, and lines to print about them ("" for none).

    Where needs_data(options) says so, the data is that of the run that the checkpoint lies in, unless typed.
    """
    options = read_options(arguments, program)
    lines = [unused_line(options, program)]
    if needs_data(options) and options.checkpoint_file_path:
        options, line = take_run_data(options)
        lines.append(line)
    return options, "\n".join(filter(None, lines))


def model_options(options) -> dict:
    """What load_model and load_predictor take of the options: their values, and those of them that were typed."""
    return {"defaults": dict(options), "overrides": {name: options[name] for name in options.typed}}


def take_run_data(options) -> tuple:
    """Options with the data of the run that the checkpoint lies in, where neither the command line nor the recipe says
    them, and a line that tells so ("" where there is nothing to take).

    A data set of another kind (--dataset) takes nothing. Raises OptionError for a config.yaml that cannot be read.
    """
    run = run_of(options.checkpoint_file_path)
    if not run:
        return options, ""
    path = os.path.join(run, "config.yaml")
    own, said = read_yaml(path), set(options.typed)
    said |= set(read_recipe(options.config_path)) if options.config_path else set()
    if "dataset" in said and own.get("dataset", options.dataset) != options.dataset:
        return options, ""
    taken = {name: convert(name, own[name], options, f"{path}: ") for name in data_options()
             if name in own and name not in said}
    shown = " ".join(f"--{name}={as_typed(value)}" for name, value in taken.items() if value != options[name])
    line = f"data of the run, from {os.path.relpath(path)}: {shown}" if shown else ""
    return type(options)({**options, **taken}), line


def as_typed(value):
    """A value as it stands in a command line."""
    return f"[{','.join(value)}]" if isinstance(value, list) else value
