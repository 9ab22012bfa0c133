"""The training and the validation part of images that come without a split."""
from __future__ import annotations

import hashlib
import os
from functools import partial

from src.data.annotations import SplitFiles
from src.data.findings import Report
from src.data.records import Annotations, Record

COPY = ".rf."  # Roboflow's augmented copies of one photo differ behind it: they must not be on both sides


def draw(name: str, seed: int) -> float:
    """A number in 0..1 that depends on a file name and the seed alone."""
    photo = name.split(COPY)[0]
    digest = hashlib.sha256(f"{seed}\n{photo}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2 ** 64


def choose_validation(names: list[str], share: float, seed: int) -> set[str]:
    """The names, of all of a data set, that are for validation: those whose number is below the share.

    So further names change nothing for those that are there. Of two or more photos each part gets one at least, unless
    the share is 1.
    """
    numbers = {name: draw(name, seed) for name in names}
    ordered = sorted(set(numbers.values()))
    limit = share
    if len(ordered) > 1 and share < 1:
        limit = min(max(share, ordered[1]), ordered[-1])
    return {name for name, number in numbers.items() if number < limit}


def take_part(files: SplitFiles, split: str, *, share: float, seed: int) -> SplitFiles:
    """The part of a data set that is for split "train" or "val". share: of the images that are for validation."""
    read = partial(read_part, files, split, share=share, seed=seed)
    part = f"the names choose {share:g} of the images for validation (seed {seed})"
    return files._replace(name=split, read=read, part=part)


def read_part(files: SplitFiles, split: str, *, share: float, seed: int, classes: list[str],
              report: Report) -> Annotations:
    """Reads all of the annotations, and keeps the images of one part with what was found in them."""
    def name(record: Record) -> str:
        return os.path.relpath(record.path, files.image_dir).replace(os.sep, "/")

    own = Report()
    records, names, ids = files.read(classes=classes, report=own)
    chosen = choose_validation([name(record) for record in records], share, seed)
    kept = [record for record in records if (name(record) in chosen) == (split == "val")]
    sources = {record.source for record in records} - {record.source for record in kept}
    report.adopt(own, without=sources)
    return Annotations(kept, names, ids)
