"""The floors of the house: imports go down only, nothing happens at import, and only entry points know the options."""
import ast
import glob
import graphlib
import importlib
import os
import re
import subprocess
import sys

import pytest

from src.recipes import read_yaml

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The packages from left to right: each imports only what stands to its left. "ground" and "ideas" are the files at the
# top of src/; within a package imports form no cycle.
PACKAGES = ("ground", "machine", "ideas", "models", "data", "weights", "evaluation", "inference", "live", "export",
            "training")
IDEAS = ("anchor_fit", "anchors", "atss", "box_losses", "boxes", "drawing", "ema", "lettering", "losses", "lr_schedule",
         "matching", "metrics", "optim")
APART = (("models", "data"), ("data", "models"))
NEEDS_MINDSPORE = ("box_losses", "ema", "losses", "optim", "machine.compat", "machine.compile_cache",
                   "machine.distributed", "weights.checkpoint", "weights.load", "weights.recognise",
                   "evaluation.evaluate",
                   "inference.description", "inference.exported", "inference.predictor", "export.exporter",
                   "export.mindir", "export.onnx", "export.trial", "training.anchors", "training.auto",
                   "training.build", "training.checks", "training.fused_loss", "training.fused_update",
                   "training.loop", "training.resume", "training.saver", "training.step", "training.validator")
# the modules that need a package of an optional requirements file
OPTIONAL = {"live.window": "PySide6", "live.server": "waitress"}
# the modules that know options: what they are, and what is built from them; all others take plain arguments
KNOW_OPTIONS = ("config", "option_rules", "training.build", "training.checks")
PROGRAMS = [os.path.relpath(path, ROOT) for folder in ("", "scripts", "bench")
            for path in glob.glob(f"{ROOT}/{folder}/*.py")]


def package_of(name):
    """The package of a module such as data.coco; a file at the top of src/ is of the ground or of the ideas."""
    return name.split(".")[0] if "." in name else "ideas" if name in IDEAS else "ground"


def modules():
    for path in glob.glob(os.path.join(ROOT, "src", "**", "*.py"), recursive=True):
        if not path.endswith("__init__.py"):
            yield os.path.relpath(path, os.path.join(ROOT, "src"))[:-3].replace(os.sep, "."), path


def parsed(path):
    """All nodes of a file."""
    with open(path, encoding="utf-8") as file:
        return list(ast.walk(ast.parse(file.read())))


def imported(path):
    """Modules of src that a file imports, anywhere in it."""
    known = {name for name, _ in modules()}
    for node in parsed(path):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("src."):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"[len("src."):]
                yield full if full in known else node.module[len("src."):]


def test_every_module_is_in_a_package():
    assert {package_of(name) for name, _ in modules()} == set(PACKAGES)
    assert set(IDEAS) | set(NEEDS_MINDSPORE) | set(KNOW_OPTIONS) <= {name for name, _ in modules()}


@pytest.mark.parametrize("name, path", modules())
def test_imports_go_to_the_left(name, path):
    own = package_of(name)
    for other in imported(path):
        assert PACKAGES.index(package_of(other)) <= PACKAGES.index(own), f"{name} imports {other}"
        assert (own, package_of(other)) not in APART, f"{name} imports {other}"


def test_imports_form_no_cycle():
    graph = {name: set(imported(path)) for name, path in modules()}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the modules


@pytest.mark.parametrize("name, path", modules())
def test_only_some_modules_know_options(name, path):
    parameters = {node.arg for node in parsed(path) if isinstance(node, ast.arg)}
    assert name in KNOW_OPTIONS or "options" not in parameters


def changed(node):
    """What a statement or call changes: the targets of an assignment, the object of .update() and the like."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return [node.func] if node.func.attr in ("update", "setdefault", "pop", "clear", "popitem") else []
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return [target for target in targets if isinstance(target, (ast.Attribute, ast.Subscript))]


@pytest.mark.parametrize("path", [*PROGRAMS, *(os.path.relpath(path, ROOT) for name, path in modules())])
def test_options_are_never_changed_in_place(path):
    for node in [] if path == "src/config.py" else parsed(os.path.join(ROOT, path)):
        for target in changed(node):
            assert getattr(target.value, "id", "") != "options", f"{path}:{node.lineno} changes options"


def test_init_files_are_empty():
    paths = glob.glob(os.path.join(ROOT, "src", "**", "__init__.py"), recursive=True)
    assert all(os.path.getsize(path) == 0 for path in paths)


def can_import(name):
    """Whether a module may be imported here: the optional package that it needs, if any, is there and starts."""
    try:
        return name not in OPTIONAL or bool(importlib.import_module(f"src.{name}"))
    except ImportError as error:
        assert OPTIONAL[name] in str(error) or ".so" in str(error), error
        return False


def test_numpy_modules_do_not_import_mindspore():
    names = ", ".join(f"src.{name}" for name, _ in modules() if name not in NEEDS_MINDSPORE and
                      package_of(name) != "models" and can_import(name))
    code = f"import sys, {names}; sys.exit('mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("program", ["train.py", "eval.py", "export.py", "predict.py", "prepare_data.py"])
def test_help_is_quick_and_wrong_options_end_with_2(program):
    how = {"cwd": ROOT, "capture_output": True, "text": True, "check": False}
    shown = subprocess.run([sys.executable, program, "--help"], **how)
    assert shown.returncode == 0 and "--config_path=" in shown.stdout
    assert ("--epoch_size=" in shown.stdout) == (program == "train.py")
    wrong = subprocess.run([sys.executable, program, "--bach_size=3"], **how)
    assert wrong.returncode == 2 and "did you mean 'batch_size'?" in wrong.stderr and wrong.stderr.count("\n") == 1


CALLED_BY_PLACE = ("construct", "bprop", "_sgd_step", "_rmsprop_step", "old_narrow")  # by MindSpore


@pytest.mark.parametrize("path", [*glob.glob(os.path.join(ROOT, "*.py")), *(path for _, path in modules())])
def test_functions_are_short_and_take_three_arguments_by_place(path):
    with open(path, encoding="utf-8") as file:
        functions = [node for node in ast.walk(ast.parse(file.read())) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        by_place = [argument.arg for argument in function.args.args if argument.arg not in ("self", "cls")]
        assert len(by_place) <= 3 or function.name in CALLED_BY_PLACE, f"{function.name}({', '.join(by_place)})"
        lines = function.end_lineno - function.lineno + 1
        assert lines <= 45, f"{function.name} has {lines} lines"


def test_the_choices_of_matching_are_its_rules():
    from src.matching import MATCHING_RULES
    from src.option_rules import RULES
    assert set(RULES["matching"].choices) == set(MATCHING_RULES)


def test_the_choices_of_loss_are_those_with_a_score_function():
    from src.option_rules import RULES
    from src.training.build import PUBLISHED_LOSSES, SCORES
    assert set(RULES["loss"].choices) == {"auto", *SCORES}
    assert all(SCORES[loss] == score for score, loss in PUBLISHED_LOSSES.items())


NAMES = read_yaml(os.path.join(ROOT, "config", "default.yaml"))


@pytest.mark.parametrize("path", [*glob.glob(os.path.join(ROOT, "*.py")), *(path for _, path in modules())])
def test_messages_write_options_as_they_are_typed(path):
    """--image_size, not image_size; names with an underscore, and any name before a value or a quoted one."""
    nodes = parsed(path)
    apart = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}  # docstrings
    apart |= {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    long_names = "|".join(name for name in NAMES if "_" in name)
    bare = re.compile(rf"(?<![-\w./'`])(({long_names})\b|({'|'.join(NAMES)})(=| '))")
    for node in nodes:
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        text = "".join(str(part.value) for part in parts if isinstance(part, ast.Constant))
        if id(node) not in apart and " " in text and "\n" not in text and "num_classes" not in text:
            assert not bare.search(text), f"{path}:{node.lineno}: {text}"
