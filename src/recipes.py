"""Recipes: YAML files of options, each of which may begin with another one."""
from __future__ import annotations

import os

import yaml

from src.errors import OptionError
from src.files import expand_home

ZOO_RECIPE = "; is it a recipe of the model zoo? config/ has one for each of its models"


class Word(str):
    """A scalar of YAML as it is written: on, no, 007 and 2024-01-01 may be names of classes."""


def read_scalar(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Word:
    """What YAML takes for a number, a truth value or a date, as it is written."""
    return Word(node.value)


def read_sequence(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> list:
    """A list with its scalars as they are written."""
    return [item.value if isinstance(item, yaml.ScalarNode) else loader.construct_object(item, deep=True)
            for item in node.value]


class RecipeLoader(yaml.SafeLoader):
    """Leaves the words of a recipe as they are written; the type of an option says what they mean."""

    yaml_constructors = {
        **yaml.SafeLoader.yaml_constructors,
        **{f"tag:yaml.org,2002:{kind}": read_scalar for kind in ("bool", "int", "float", "timestamp")},
        "tag:yaml.org,2002:seq": read_sequence}


def read_recipe(path: str, above: tuple[str, ...] = ()) -> dict:
    """The options of a recipe over those of its `_base_`, a path relative to it. above: the recipes that led here.

    Raises OptionError.
    """
    if os.path.abspath(path) in above:
        raise OptionError(f"{path}: _base_ leads back to itself")
    values = read_yaml(path, RecipeLoader)
    base = values.pop("_base_", None) or ""
    if not isinstance(base, str):
        raise OptionError(f"{path}: _base_={base!r}: expected the path of one recipe")
    if not base:
        return values
    base = os.path.join(os.path.dirname(path), expand_home(base))
    return {**read_recipe(base, (*above, os.path.abspath(path))), **values}


def read_yaml(path: str, loader: type = yaml.SafeLoader) -> dict:
    """The mapping in a YAML file. Raises OptionError when the file is missing or broken, or holds something else."""
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.load(file, loader)
    except OSError as error:
        raise OptionError(f"config_path '{path}' cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        zoo = ZOO_RECIPE if "single document" in str(error) else ""  # the zoo's hold help texts as further documents
        raise OptionError(f"{path} is not valid YAML: {' '.join(str(error).split())}{zoo}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise OptionError(f"{path} must hold 'key: value' lines with names of options")
    return values
