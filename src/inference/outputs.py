"""What predict.py leaves: predictions.json and what --save names, and where the results of each file go."""
from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from src.data.images import IMAGE_ENDINGS
from src.inference.formats import FORMS, JsonList, Result, describe_objects
from src.inference.found import Detections
from src.inference.sources import Picture, Source
from src.inference.videos import is_camera, plain_url


class PredictionRows(JsonList):
    """predictions.json"""
    name = "predictions.json"


class Outputs:
    """Writes results into a folder. write() is called for each picture, close() at the end.

    save: keys of FORMS. classes: names, label l is classes[l - 1]. thresholds: what each row of predictions.json says
    of them. objects: how many were written.
    """

    def __init__(self, source: Source, folder: str, *, save: Collection[str], classes: list[str], thresholds: dict):
        self.save, self.classes, self.thresholds, self.objects = save, classes, thresholds, 0
        self.stems, self.ids = output_stems(source), numbers_of(source.paths)
        self.json = PredictionRows(folder)
        self.forms = [FORMS[name][0](folder, classes) for name in FORMS if name in save]

    @property
    def rows(self) -> int:
        """How many pictures were written."""
        return self.json.count

    @property
    def notes(self) -> list[str]:
        """What to say of the files, in words."""
        return [note for form in self.forms for note in form.notes]

    @property
    def names(self) -> str:
        """What is in the folder, in words."""
        names = [words for name, (_, words) in FORMS.items() if name in self.save]
        return f"{', '.join(names)} and predictions.json are" if names else "predictions.json is"

    def write(self, picture: Picture, found: Detections) -> None:
        """Writes what was found in a picture. Raises EnvironmentFault."""
        objects = describe_objects(picture.pixels.shape, found, self.classes)
        path = picture.row["file"]
        result = Result(picture, found, objects, self.ids.get(path, self.rows + 1), self.stems[path])
        for form in self.forms:
            form.add(result)
        drawing = {"drawing": f"{result.stem}.png"} if "drawings" in self.save and picture.video is None else {}
        self.json.write({**picture.row, "image_id": result.image_id, **drawing, "objects": objects,
                         "thresholds": self.thresholds})
        self.objects += len(objects)

    def close(self) -> None:
        """Completes the files; of nothing but broken pictures none are left."""
        with contextlib.ExitStack() as stack:
            for form in (self.json, *self.forms):
                stack.callback(form.close, self.rows > 0)


def numbers_of(paths: Sequence[str]) -> dict[str, int]:
    """{path: number} where all files are pictures whose names are numbers, each another one, as COCO's are; else {}."""
    numbers = {path: int(Path(path).stem) for path in paths
               if re.fullmatch("[0-9]{1,18}", Path(path).stem) and path.lower().endswith(IMAGE_ENDINGS)}
    return numbers if len(set(numbers.values())) == len(paths) else {}


def output_stems(source: Source) -> dict[str, str]:
    """{file of a row: where its results go in their folder, without ending}, no two the same: in/sub/a.jpg -> sub/a."""
    if not source.root:
        name = plain_url(source.paths[0])
        address = re.sub(r"\W+", "_", name.partition("://")[2]).strip("_")
        return {name: f"camera{name}" if is_camera(name) else address or "stream"}
    folders = {}
    for path in source.paths:
        folders.setdefault(os.path.dirname(os.path.abspath(path)), []).append(path)
    return {path: os.path.normpath(os.path.join(os.path.relpath(folder, source.root), stem))
            for folder, paths in folders.items() for path, stem in unique_stems(paths).items()}


def unique_stems(paths: list[str]) -> dict[str, str]:
    """{path: name} of files in a folder: a.jpg -> a, or a.jpg where another file is an "a" too.

    No two are the same, not even on file systems that take "A" for "a", or one Unicode form of an umlaut for the other.
    """
    counts, taken, names = Counter(fold_name(Path(path).stem) for path in paths), set(), {}
    shared = {path: counts[fold_name(Path(path).stem)] > 1 for path in paths}
    for path in sorted(paths, key=shared.get):  # the plain names first
        wanted = name = Path(path).name if shared[path] else Path(path).stem
        number = 1
        while fold_name(name) in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(fold_name(name))
        names[path] = name
    return names


def fold_name(name: str) -> str:
    """A name as file systems compare it that mind neither case nor the Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()
