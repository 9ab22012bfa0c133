"""What a program takes of the options: those of its own among all, and those of the run that its checkpoint lies in."""
import os
import re

from src.config import DEFAULT_PATH, convert, help_text, read_options, read_recipe, read_yaml
from src.errors import OptionError


def option_groups():
    """{heading: names of its options} of config/default.yaml."""
    groups, names = {}, []
    with open(DEFAULT_PATH, encoding="utf-8") as file:
        for heading, name in re.findall(r"^# --- (.*)|^(\w+):", file.read(), re.MULTILINE):
            if heading:
                names = groups.setdefault(heading.strip(), [])
            else:
                names.append(name)
    return groups


def read_part(arguments, program, doc, names):
    """The options of a script that uses those in names; --help prints doc and them. Raises OptionError for others."""
    if {"-h", "--help"} & set(arguments):
        print(f"{doc}\n{part_of_help(program, names)}")
        raise SystemExit(0)
    options = read_options(arguments, program)
    strange = [name for name in options.typed if name not in names]
    if strange:
        raise OptionError(f"--{strange[0]} is not used by {program}, which takes --{', --'.join(names)}")
    return options


def part_of_help(program, names):
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


def unused_line(options, program):
    """A line that names the typed options which only training uses; "" without any."""
    strange = [f"--{name}" for name in options.typed if name in option_groups()["training"]]
    return f"not used by {program}: {', '.join(strange)} (train.py alone does)" if strange else ""


def run_of(path):
    """The folder of the run that a file lies in, at its top or in its ckpt/; None for a file elsewhere."""
    folder = os.path.dirname(os.path.abspath(path))
    run = os.path.dirname(folder) if os.path.basename(folder) == "ckpt" else folder
    marks = os.path.join(run, "config.yaml"), os.path.join(run, "ckpt")
    return run if os.path.isfile(marks[0]) and os.path.isdir(marks[1]) else None


def take_run_data(options):
    """Options with the data of the run that the checkpoint lies in, where neither the command line nor the recipe says
    them, and a line that tells so ("" where there is nothing to take).

    A data set of another kind (--dataset) takes nothing. Raises OptionError for a config.yaml that cannot be read.
    """
    run = run_of(options.checkpoint_file_path) if options.checkpoint_file_path else None
    if not run:
        return options, ""
    path = os.path.join(run, "config.yaml")
    own, said = read_yaml(path), set(options.typed)
    said |= set(read_recipe(options.config_path)) if options.config_path else set()
    if "dataset" in said and own.get("dataset", options.dataset) != options.dataset:
        return options, ""
    taken = {name: convert(name, own[name], options, f"{path}: ") for name in option_groups()["data"]
             if name in own and name not in said}
    changed = [f"--{name}={value}" for name, value in taken.items() if value != options[name]]
    line = f"data options of the run, from {os.path.relpath(path)}: {' '.join(changed)}" if changed else ""
    return type(options)({**options, **taken}), line
