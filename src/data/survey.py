"""What a converted data set holds, for people: counts, sizes, identical images, and the picture of each finding."""
from __future__ import annotations

import csv
import hashlib
import linecache
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from src.data.findings import Finding
from src.data.image_bytes import BadImage, file_size, read_bytes
from src.data.images import IMAGE_ENDINGS
from src.data.prepare import Split
from src.files import read_json
from src.progress import track

MORE = re.compile(r"and (\d+) more")  # the line of report.csv that stands for findings that were not kept
CORNERS = re.compile(r"\[([^\]]+)\]")  # x1, y1, x2, y2 in the box of a finding
HEAD = 1 << 14    # bytes that tell most files of one size apart
MANY = 20000      # images whose comparison is worth a progress bar
MIN_SHOWN = 0.04  # of the sides of an image: a smaller box could not be seen
TXT_LINE = re.compile(r"(.+):(\d+)")   # a place in a file


class Survey(NamedTuple):
    """One split as its conversion has it."""
    name: str
    root: str                # the folder that holds images and annotations
    truth: dict              # ground_truth.json
    image_dir: str
    findings: list[Finding]  # those that were kept
    counts: Counter          # findings by kind, all of them

    @property
    def classes(self) -> list[str]:
        """The names in the order of the labels."""
        return [category["name"] for category in self.truth["categories"]]


class Measures(NamedTuple):
    """Numbers of the boxes of a split, crowds left out."""
    boxes: np.ndarray      # [C] by class
    images: np.ndarray     # [C] images with the class
    sides: np.ndarray      # [N] square roots of areas, pixels of the image
    aspects: np.ndarray    # [N] width / height
    per_image: np.ndarray  # [I] boxes of each image


def survey_split(split: Split) -> Survey:
    """The Survey of an opened conversion."""
    findings, counts = [], Counter()
    with open(split.report, newline="", encoding="utf-8", errors="surrogateescape") as file:
        for row in list(csv.reader(file))[1:]:
            more = MORE.fullmatch(row[3]) if not row[1] else None
            counts[row[0]] += int(more[1]) if more else 1
            if not more:
                findings.append(Finding(row[0], row[1], row[2] or None, row[3]))
    return Survey(split.name, split.root, read_json(split.ground_truth), split.image_dir, findings, counts)


def measure(survey: Survey) -> Measures:
    """The numbers of the boxes of a split."""
    labels = {category["id"]: label for label, category in enumerate(survey.truth["categories"])}
    items = [item for item in survey.truth["annotations"] if not item["iscrowd"]]
    label = np.array([labels[item["category_id"]] for item in items], int)
    width, height = np.array([item["bbox"] for item in items], float).reshape(-1, 4).T[2:]  # [N] each
    per_image = Counter(item["image_id"] for item in items)
    pairs = {(item["image_id"], item["category_id"]) for item in items}
    images = np.array([labels[category] for _, category in pairs], int)
    return Measures(np.bincount(label, minlength=len(labels)), np.bincount(images, minlength=len(labels)),
                    np.sqrt(width * height), width / height,
                    np.array([per_image[image["id"]] for image in survey.truth["images"]], int))


def identical_images(surveys: Sequence[Survey]) -> list[list[tuple[str, str]]]:
    """Groups of images with the same bytes: (split, file name); those in several splits come first."""
    groups = [[(os.path.join(survey.image_dir, image["file_name"]), survey.name, image["file_name"])
               for survey in surveys for image in survey.truth["images"]]]
    for name, key in (("sizes", size_of), ("beginnings", partial(digest_of, max_bytes=HEAD)), ("bytes", digest_of)):
        places = [(number, place) for number, group in enumerate(groups) for place in group]
        found = defaultdict(list)
        for number, place in track(places, len(places), f"comparing {name}", quiet=len(places) < MANY):
            found[number, key(place[0])].append(place)
        groups = [group for (_, value), group in found.items() if value and len(group) > 1]
    twins = [[place[1:] for place in group] for group in groups]
    return sorted(twins, key=lambda group: -len({split for split, _ in group}))


def size_of(path: str) -> int:
    """The bytes of a file, 0 for none."""
    return max(file_size(path), 0)


def digest_of(path: str, max_bytes: int = -1) -> bytes:
    """A hash of the first bytes of a file, or of all; b"" where it cannot be read."""
    try:
        return hashlib.blake2b(read_bytes(path, max_bytes), digest_size=16).digest()
    except BadImage:
        return b""


class Finder:
    """Finds the image that a finding is about, by what the reader of its format calls it."""

    def __init__(self, survey: Survey):
        self.survey = survey
        self.images = {image["file_name"]: image for image in survey.truth["images"]}
        self.names = defaultdict(list)  # by the last part of the name, and by that without its ending
        for name in self.images:
            base = os.path.basename(name)
            for key in {base, os.path.splitext(base)[0]}:
                self.names[key].append(name)

    def find(self, finding: Finding) -> tuple[str, int, int] | None:
        """Path, height and width of the image (0 where not known), or None where there is none."""
        for name in self.names_in(finding):
            names = [name] if name in self.images else self.names[key_of(name)]
            if len(names) == 1:
                image = self.images[names[0]]
                return os.path.join(self.survey.image_dir, names[0]), image["height"], image["width"]
        return None

    def names_in(self, finding: Finding) -> Iterable[str]:
        """What may be the name of the image, the likeliest first."""
        yield finding.file
        line = TXT_LINE.fullmatch(finding.file)
        text = linecache.getline(line[1], int(line[2])) if line else ""  # "" where it cannot be read
        yield from text.split("\t" if "\t" in text else None)[:1]


def key_of(name: str) -> str:
    """What an image is found by: a/b.jpg by b.jpg alone, an annotation a/b.xml by b."""
    base, ending = os.path.splitext(os.path.basename(name))
    return base + ending if ending.lower() in IMAGE_ENDINGS else base


def box_of(finding: Finding, height: int, width: int) -> np.ndarray:
    """The box that a finding names, [1, 4] as fractions of its image, large enough to be seen; [0, 4] for none."""
    match = CORNERS.search(finding.box or "")
    try:
        values = np.array([float(value) for value in match[1].split(",")]) if match else np.zeros(0)
    except ValueError:
        values = np.zeros(0)
    if len(values) != 4 or not np.isfinite(values).all():
        return np.zeros((0, 4))
    ends = np.clip(values.reshape(2, 2) / (width, height), 0, 1)         # [2, 2] x, y
    middle, half = ends.mean(axis=0), np.maximum(np.abs(ends[1] - ends[0]), MIN_SHOWN) / 2
    return np.clip(np.concatenate([middle - half, middle + half]), 0, 1)[None]
