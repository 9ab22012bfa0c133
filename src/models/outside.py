"""Builders of models in files outside this repository, named like path/my_file.py:my_model."""
from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable

from src.errors import OptionError, unknown_name
from src.text import one_line


def is_outside(name: str) -> bool:
    """Whether a model is named by a file and a builder in it."""
    return name.rpartition(":")[0].endswith(".py")


def same_model(name: str, other: str) -> bool:
    """Whether two names mean one model: they are equal, or files of one name, wherever they lie, with one builder."""
    return name == other or (is_outside(name) and is_outside(other) and
                             os.path.basename(name) == os.path.basename(other))


def may_run(name: str) -> bool:
    """Whether the code of a model that a weight file names, but nobody typed, may run: in the working folder only.

    A weight file could name any file of this machine; what lies in the working folder Python trusts as well.
    """
    here = os.path.realpath(os.curdir)
    return not is_outside(name) or os.path.commonpath([os.path.realpath(name), here]) == here


def load_builder(name: str) -> Callable:
    """The builder of an outside model; its file may import what lies beside it. Raises OptionError."""
    path, _, function = name.rpartition(":")
    if not os.path.isfile(path):
        raise OptionError(f"--model={name}: '{path}' is not a file; say where it is by "
                          f"--model=FOLDER/{os.path.basename(path)}:{function}")
    key = f"outside_model_{os.path.abspath(path)}"  # two files may have one name
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, path)
        module = importlib.util.module_from_spec(spec)
        folder = os.path.dirname(os.path.abspath(path))
        if folder not in sys.path:
            sys.path.append(folder)
        sys.modules[key] = module  # MindSpore looks up the source of cells there
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[key]
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
            line = lines[-1] if lines else getattr(error, "lineno", "?")
            raise OptionError(f"--model={name}: the file fails in line {line} ({type(error).__name__}: "
                              f"{one_line(error)})") from error
    builders = {known: value for known, value in vars(sys.modules[key]).items()
                if callable(value) and getattr(value, "__module__", "") == key}
    if function not in builders:
        raise unknown_name("--model", function, list(builders) or ["(no function)"])
    return builders[function]
