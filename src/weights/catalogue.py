"""Public checkpoints that can be imported: ckpt/catalogue.yaml as rows."""
from __future__ import annotations

import os
from typing import NamedTuple

import yaml

from src.errors import unknown_name

PATH = os.path.join(os.path.dirname(__file__), "..", "..", "ckpt", "catalogue.yaml")


class Checkpoint(NamedTuple):
    """One public checkpoint; "" where a thing is not known. The fields are those of the file."""
    name: str
    publisher: str
    source: str     # a key of weights.names.SOURCES
    licence: str
    model: str      # of this repository; several are separated by ", "
    trained: str    # on which data; ImageNet for a backbone
    tried: str      # real, seeded or names
    published: str  # its accuracy
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


def read_catalogue() -> dict[str, Checkpoint]:
    """All checkpoints by name, in the order of the file."""
    with open(PATH, encoding="utf-8") as file:
        blocks = yaml.safe_load(file)
    found = {}
    for block in blocks:
        for name, row in block["checkpoints"].items():
            end = row.get("file", "")
            address = end if "://" in end else block.get("url", "") + end if end else ""
            texts = {key: str(row.get(key, "")) for key in ("model", "trained", "tried", "published", "get", "inside",
                                                            "sha256")}
            found[name] = Checkpoint(name=name, publisher=block["publisher"], source=block["from"], address=address,
                                     licence=block["licence"], mb=row.get("mb", 0), **texts)
    return found


def find_checkpoint(name: str) -> Checkpoint:
    """The checkpoint of a name. Raises OptionError, which names the nearest."""
    catalogue = read_catalogue()
    if name not in catalogue:
        raise unknown_name("checkpoint", name, list(catalogue))
    return catalogue[name]


def list_rows(*, backbones: bool) -> list[list[str]]:
    """Rows of a table: name, model, data, published, MB, how it was tried; of the backbones or of the detectors."""
    return [[row.name, row.model, row.trained, row.published or "-", str(row.mb or "-"), row.tried]
            for row in read_catalogue().values() if row.is_backbone == backbones]
