"""Public checkpoints that can be imported: ckpt/catalogue.yaml as rows, as a list and as the tables of a page."""
from __future__ import annotations

import argparse
import os
import re
from typing import NamedTuple

import yaml

from src.errors import unknown_name
from src.text import wrap

PATH = os.path.join(os.path.dirname(__file__), "..", "..", "ckpt", "catalogue.yaml")


class Checkpoint(NamedTuple):
    """One public checkpoint; "" where a thing is not known. The fields are those of the file."""
    name: str
    publisher: str
    source: str     # a key of weights.names.SOURCES
    licence: str
    model: str      # of this repository; several are separated by ", "
    options: str    # more options of import_weights.py
    trained: str    # on which data; ImageNet for a backbone
    tried: str      # real, seeded or names
    published: str  # its accuracy
    numbers: str    # the page that states accuracy, address and size; "" where they were not checked with one
    address: str    # that a program can download
    get: str        # how a person gets it, without an address
    inside: str     # the file in an archive
    mb: int         # to download, 0 where not known
    sha256: str     # of the download

    @property
    def file(self) -> str:
        """The name of the downloaded file."""
        return os.path.basename(self.address)

    @property
    def is_backbone(self) -> bool:
        """Whether it is a classifier, for --pre_trained."""
        return self.trained == "ImageNet"

    def commands(self, path: str) -> list[str]:
        """Lines that say how to use the file, or folder, at a path."""
        if self.is_backbone:
            return ["to train on it, with a recipe of its model (docs/models):",
                    f"  python train.py --config_path=config/RECIPE.yaml --pre_trained={path}"]
        options = f" {self.options}" if self.options else ""
        return ["to use it, and to train on it with your classes (those of the same name keep what they know):",
                f"  python import_weights.py {path} --from={self.source} --model={self.model}{options} "
                f"--output=ckpt/{self.name}.ckpt",
                f"  python predict.py --checkpoint_file_path=ckpt/{self.name}.ckpt --source=PICTURES",
                f"  python train.py --config_path=config/RECIPE.yaml --pre_trained=ckpt/{self.name}.ckpt "
                "--filter_weight=True"]


def read_catalogue() -> dict[str, Checkpoint]:
    """All checkpoints by name, in the order of the file."""
    with open(PATH, encoding="utf-8") as file:
        blocks = yaml.safe_load(file)
    found = {}
    for block in blocks:
        for name, row in block["checkpoints"].items():
            end = row.get("file", "")
            address = end if "://" in end else block.get("url", "") + end if end else ""
            texts = {key: str(row.get(key, "")) for key in ("model", "options", "trained", "tried", "published",
                                                            "get", "inside", "sha256")}
            found[name] = Checkpoint(name=name, publisher=block["publisher"], source=block["from"], address=address,
                                     licence=block["licence"], mb=row.get("mb", 0),
                                     numbers=row.get("numbers", block.get("numbers", "")), **texts)
    return found


def find_checkpoint(name: str) -> Checkpoint:
    """The checkpoint of a name. Raises OptionError, which names the nearest."""
    catalogue = read_catalogue()
    if name not in catalogue:
        raise unknown_name("checkpoint", name, list(catalogue))
    return catalogue[name]


HEAD = ["name", "--model", "trained on", "published", "MB", "tried"]
TRIED = ("tried: real = the file itself was imported and gave its known outputs or AP; seeded = the publisher's "
         "network, with seeded weights under the published names, gave the same outputs; names = names and shapes are "
         "known, nothing was compared")


class ListCheckpoints(argparse.Action):
    """--list: prints the catalogue and ends the program."""

    def __init__(self, option_strings: list[str], dest: str, **more: object) -> None:
        super().__init__(option_strings, dest, nargs=0, **more)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(describe_catalogue())
        parser.exit()


def describe_catalogue() -> str:
    """The catalogue for a terminal."""
    rows = [[row.name, f"{re.sub(',.*', ', ..', row.model)} {row.options}".strip(), row.trained, row.published or "-",
             str(row.mb or "-"), row.tried] for row in read_catalogue().values()]
    widths = [max(map(len, column)) for column in zip(HEAD, *rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in (HEAD, *rows)]
    return "\n".join([*lines, "", wrap(TRIED), "python scripts/fetch_weights.py NAME downloads one and says how to use "
                      "it; ckpt/README.md has licences and addresses."])


def page_table(*, backbones: bool) -> list[str]:
    """The lines of a table for ckpt/README.md, of the backbones or of the whole detectors."""
    return ["| " + " | ".join([*HEAD, "publisher", "licence", "numbers from"]) + " |", "|---" * 9 + "|",
            *(page_row(row) for row in read_catalogue().values() if row.is_backbone == backbones)]


def page_row(row: Checkpoint) -> str:
    """A line of a table; the name leads to the file, or says how to get it."""
    name = f"[`{row.name}`]({row.address})" if row.address else f"`{row.name}` ({row.get})"
    models = ", ".join(f"`{model}`" if re.fullmatch(r"\w+", model) else model for model in row.model.split(", "))
    cells = [name, f"{models} `{row.options}`" if row.options else models, row.trained, row.published or "-",
             str(row.mb or "-"), row.tried, row.publisher, row.licence, row.numbers or "not checked"]
    return "| " + " | ".join(cells) + " |"
