"""What --data finds: which format it is, and the options that name the same data."""
from __future__ import annotations

import os
import shlex
from typing import NamedTuple

from src.data.layouts import Tree
from src.errors import DataError


class Part(NamedTuple):
    """Annotations that were found, with the folder of their images; paths relative to the root of a Tree."""
    split: str      # train, val, test, or "" where no name says it
    anno_path: str  # "" where the images tell it
    image_dir: str


class Found(NamedTuple):
    """A data set of one format."""
    dataset: str            # --dataset
    words: str              # what it is
    options: dict[str, str]  # names and values of the other options that say where it lies
    has_val: bool           # it gives a validation split
    unused: list[str]       # paths of further annotations

    def typed(self) -> str:
        """The options as a user would type them."""
        return " ".join(f"--{name}={shlex.quote(value)}" for name, value in
                        {"dataset": self.dataset, **self.options}.items())


def merge(tree: Tree, parts: list[Part], words: str) -> Part:
    """One Part of all that are of one split. Raises DataError where they have no folder in common that says so."""
    first, *others = parts
    if not others:
        return first
    annos, images = ([getattr(part, name) for part in parts] for name in ("anno_path", "image_dir"))
    anno = os.path.commonpath(annos) or "." if all(annos) else ""
    image = os.path.commonpath(images) or "."
    is_file = any(os.path.isfile(tree.path(path)) for path in annos if path)
    alike = all(os.path.relpath(part.anno_path, anno) == os.path.relpath(part.image_dir, image)
                for part in parts) if all(annos) else not any(annos)
    if is_file or not alike:
        places = ", ".join(f"'{tree.path(part.anno_path or part.image_dir)}'" for part in parts[:4])
        raise DataError(f"'{tree.root}' holds more than one set of {words}, which no name tells apart as training and "
                        f"validation: {places}; name one of them by --data, or each by its options (docs/data.md)")
    return Part(first.split, anno, image)


def arrange(tree: Tree, parts: list[Part], *, dataset: str, words: str) -> Found | None:
    """The parts that were found as the training and the validation split, None for no parts.

    A part that no name calls anything is for training where no other one is; test stands in for val. Raises DataError.
    """
    splits = {}
    for part in parts:
        splits.setdefault(part.split, []).append(part)
    splits = {split: merge(tree, same, words) for split, same in splits.items()}
    if not splits:
        return None
    train = next(splits[split] for split in ("train", "", "val", "test") if split in splits)
    val = next((splits[split] for split in ("val", "test") if split in splits and splits[split] != train), None)
    check_apart(tree, [part for part in (train, val) if part], words)
    given = {}
    for prefix, part in (("", train), ("val_", val)):
        for name in ("anno_path", "image_dir") if part else ():
            if getattr(part, name):
                given[f"{prefix}{name}"] = tree.path(getattr(part, name))
    unused = [tree.path(part.anno_path or part.image_dir) for part in splits.values() if part not in (train, val)]
    return Found(dataset, words, given, has_val=val is not None, unused=unused)


def check_apart(tree: Tree, parts: list[Part], words: str) -> None:
    """Raises DataError where the folder of one split lies in that of another one, so that images would be in both."""
    places = [os.path.abspath(tree.path(part.anno_path or part.image_dir)) for part in parts]
    for inner in places:
        for outer in places:
            if inner != outer and os.path.commonpath([inner, outer]) == outer:
                raise DataError(f"{words} of one split are in '{inner}', inside those of another split in '{outer}'; "
                                "move each split into a folder of its own, such as train/ and val/")
