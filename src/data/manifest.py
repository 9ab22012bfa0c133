"""manifest.json: what a conversion says of itself, and whether that is still true of the files on disk."""
from __future__ import annotations

import hashlib
import json
import os
from typing import NamedTuple

from src.data.image_bytes import file_size

SCHEMA_VERSION = 2
MISSING = "-"  # the state of a file that is not there


class Manifest(NamedTuple):
    """The content of manifest.json, one key per field."""
    schema: int                 # SCHEMA_VERSION of the program that wrote it
    fingerprint: str            # of the annotation files
    asked_classes: list[str]    # the list of classes it was asked for, [] = those of the annotations
    count: int                  # images
    boxes_per_class: list[int]  # in class order
    left_out: dict[str, int]    # path of each image that could not be used: its bytes, -1 where it is not there
    content: str                # checksum of all image bytes
    classes: list[str]
    category_ids: list          # of each class, in ground_truth.json
    faults: int                 # findings that are more than notes
    summary: str                # report.csv in short
    files: dict[str, int]       # name of each other file of the conversion: its bytes
    images: dict[str, str]      # path of each image below the image folder: its file_state()


class Wanted(NamedTuple):
    """What a conversion must be to be used."""
    paths: list[str]  # conversion_path() for these classes, and for no list: it may have found exactly these classes
    fingerprint: str
    classes: list[str]
    image_dir: str


def fingerprint(files: list[str]) -> str:
    """SHA-256 over names and bytes; a missing file or a folder counts by its name."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(os.fsencode(os.path.basename(path)) + b"\0")
        if os.path.isfile(path):
            with open(path, "rb") as file:
                while part := file.read(1 << 20):
                    digest.update(part)
    return digest.hexdigest()


def file_state(path: str) -> str:
    """The bytes of a file and the time of its last change in nanoseconds, as "bytes time", or MISSING."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return MISSING
    return f"{state.st_size} {state.st_mtime_ns}"


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Writes the manifest of a conversion."""
    with open(os.path.join(folder, "manifest.json"), "w", encoding="utf-8") as file:
        json.dump(manifest._asdict(), file, indent=1)


def read_manifest(folder: str) -> Manifest:
    """The manifest of a conversion; what it lacks is None. Raises OSError, ValueError, AttributeError."""
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
        data = json.load(file)
    return Manifest(*(data.get(name) for name in Manifest._fields))


def why_stale(folder: str, wanted: Wanted, *, compare_times: bool) -> str:
    """Why a conversion is not the wanted one, or "". compare_times: images must have their old times and sizes, not
    just the sizes."""
    try:
        manifest = read_manifest(folder)
        if manifest.schema != SCHEMA_VERSION:
            return "another version of this program wrote it"
        if manifest.fingerprint != wanted.fingerprint:
            return "the annotations have changed"
        if wanted.classes not in (manifest.asked_classes, manifest.classes):
            return "it has other classes"
        for name, size in manifest.files.items():
            if file_size(os.path.join(folder, name)) != size:
                return f"{name} is missing or has another size"
        for path, size in manifest.left_out.items():
            if file_size(path) != size:
                return f"'{path}' could not be used and has changed since"
        return changed_image(manifest.images, wanted.image_dir, compare_times)
    except (OSError, ValueError, TypeError, AttributeError):
        return "its manifest is missing or broken"


def changed_image(images: dict[str, str], image_dir: str, compare_times: bool) -> str:
    """Which image is not as it was when it was converted, in words, or "".

    Where all of the images have gone, the conversion stands for them.
    """
    changed, missing = "", 0
    present = {name: state for name, state in images.items() if state != MISSING}
    for name, before in present.items():
        now = file_state(os.path.join(image_dir, name))
        same = now == before if compare_times else now.split()[0] == before.split()[0]  # bytes
        if not same and not changed:
            changed = name
        missing += now == MISSING
        if changed and not missing:
            break
    return f"image '{changed}' has changed since" if changed and missing < len(present) else ""
