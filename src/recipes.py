"""What recipes and users write -> values of options. A recipe is a YAML file of options that may begin with another."""
from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable

import yaml

from src.errors import OptionError
from src.files import expand_home

ZOO_RECIPE = "; is it a recipe of the model zoo? config/ has one for each of its models"
MAX_BASES, MAX_DEPTH = 20, 50  # recipes that lead to each other, values inside of each other
MAX_EXPANDED = 1 << 20  # letters of a YAML file whose aliases are written out
TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class Word(str):
    """A scalar of YAML as it is written: on, no, 007 and 2024-01-01 may be names of classes."""


def read_sequence(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> list:
    """A list with its scalars as they are written."""
    return [item.value if isinstance(item, yaml.ScalarNode) else loader.construct_object(item, deep=True)
            for item in node.value]


class RecipeLoader(yaml.SafeLoader):
    """Leaves the words of a recipe as they are written; the type of an option says what they mean."""

    yaml_constructors = {
        **yaml.SafeLoader.yaml_constructors,
        **{f"tag:yaml.org,2002:{kind}": lambda loader, node: Word(node.value)
           for kind in ("bool", "int", "float", "timestamp")},
        "tag:yaml.org,2002:seq": read_sequence}


def read_recipe(path: str, above: tuple[str, ...] = ()) -> dict:
    """The options of a recipe over those of its `_base_`, a path relative to it. above: the recipes that led here.

    Raises OptionError.
    """
    if os.path.abspath(path) in above or len(above) > MAX_BASES:
        raise OptionError(f"{path}: _base_ leads back to itself, or through more than {MAX_BASES} recipes")
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
            values = load_yaml(file.read(), loader)
    except OSError as error:
        raise OptionError(f"--config_path '{path}' cannot be read: {error.strerror}") from error
    except ValueError as error:  # a path with a NUL and a text that is not UTF-8 raise it too
        zoo = ZOO_RECIPE if "single document" in str(error) else ""  # the zoo's hold help texts as further documents
        raise OptionError(f"{path} is not valid YAML: {' '.join(str(error).split())}{zoo}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise OptionError(f"{path} must hold 'key: value' lines with names of options")
    return values


def load_yaml(text: str, loader: type, *, as_node: bool = False) -> object:
    """The content of a YAML text, or its node. Raises ValueError, in words, for any text that is not sound."""
    try:
        reader = loader(text)
        reader.compose_node = limited(reader.compose_node)
        node = reader.get_single_node()
        if node and expanded_size(node, {}) > max(MAX_EXPANDED, len(text)):
            raise ValueError(f"its aliases (*name) stand for more than {MAX_EXPANDED:,} letters")
        return node if as_node or not node else reader.construct_document(node)
    except MemoryError:
        raise
    except Exception as error:  # a number or a date that its tag promises may raise anything
        raise ValueError(" ".join(str(error).split())) from error


def limited(compose: Callable) -> Callable:
    """The method of a loader that makes a node with all inside of it, for MAX_DEPTH nodes in each other."""
    depth = 0

    def compose_limited(parent: yaml.Node | None, index: object) -> yaml.Node | None:
        nonlocal depth
        if depth >= MAX_DEPTH:
            raise ValueError("it is nested too deep")
        depth += 1
        node = compose(parent, index)
        depth -= 1
        return node
    return compose_limited


def expanded_size(node: yaml.Node, known: dict[int, float]) -> float:
    """How many letters a node would have with a copy in the place of each alias. known: that of nodes by their id."""
    if isinstance(node, yaml.ScalarNode):
        return len(node.value) + 1
    if id(node) not in known:
        known[id(node)] = math.inf  # where it is met again inside of itself
        parts = itertools.chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(expanded_size(part, known) for part in parts)
    return known[id(node)]


# --- values: what does not fit the type raises ValueError or KeyError

def to_float(value: object) -> float:
    """A finite number. PyYAML reads 1e-3 as a string; True is not a number."""
    number = float(str(value))
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def to_text(value: object) -> str:
    """A string; None and the model zoo's "None" mean empty."""
    if isinstance(value, (list, dict)):
        raise ValueError(value)
    text = "" if value is None or value == "None" else str(value)
    if b"\0" in os.fsencode(text):  # UnicodeEncodeError is a ValueError: half a letter stands in no name either
        raise ValueError(text)
    return text


def to_list(value: object) -> list[str]:
    """A list of names as they are written, from a list of a recipe, "[a,b]" or "a, b"."""
    if isinstance(value, str) and not isinstance(value, Word):
        if value.startswith("{") and ":" in value:
            raise ValueError(value)
        value = read_brackets(value) if value.startswith("[") else read_commas(value)
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise ValueError(value)
    return [str(item) for item in value]


def read_commas(text: str) -> list[str]:
    """The items of "a, 'b, c', d's"; quotes are part of the names unless some hold a comma together."""
    quoted = "|".join(f"{quote}[^{quote}]*,[^{quote}]*{quote}" for quote in "'\"")
    items = re.findall(rf"(?:^|,\s*)((?:{quoted}|[^,]*?)(?=\s*(?:,|$)))", text)
    if any(re.fullmatch(quoted, item) for item in items):
        items = [re.sub(r"""^(["'])(.*)\1$""", r"\2", item) for item in items]
    return [item for item in items if item]


def read_brackets(text: str) -> list[str]:
    """The items of "[a, 'b, c', d: e]" as they are written."""
    try:
        node = load_yaml(text, yaml.SafeLoader, as_node=True)
    except ValueError as error:
        raise ValueError(text) from error
    if not isinstance(node, yaml.SequenceNode):
        raise ValueError(text)
    return [read_item(item, text) for item in node.value]


def read_item(node: yaml.Node, text: str) -> str:
    """One item of a list as it is written; the map bear: 1 is not a name."""
    written = text[node.start_mark.index:node.end_mark.index].strip()
    if isinstance(node, yaml.ScalarNode) and not written.startswith(("&", "!")):  # YAML's anchors and tags
        return node.value
    number = re.fullmatch(r"[-+.\d]*", written.rpartition(":")[2].strip())
    if not isinstance(node, yaml.MappingNode) or written.startswith("{") or number:
        raise ValueError(written)
    return written


# by the type of the default: the function that converts, and what it expects in words (8.5 and True are not whole)
KINDS = {bool: (lambda value: TRUTH[str(value).lower()], "True or False"),
         int: (lambda value: int(str(value)), "a whole number"), float: (to_float, "a number"),
         str: (to_text, "a text"),
         list: (to_list, "a list such as [a,b] of names, each of one letter or more; quote a name with a colon, a "
                         "comma or a #")}
