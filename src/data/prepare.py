"""Opens the MindRecord files of a split; rank 0 converts first when they are missing or stale, the others wait."""
from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from src.classes import checked_classes
from src.data.annotations import SplitFiles
from src.data.conversions import ReadLock, conversion_lock, conversion_path, is_converting, list_conversions
from src.data.convert import convert_split
from src.data.formats import split_files
from src.data.manifest import Wanted, fingerprint, read_manifest, why_stale
from src.errors import DataError, EnvironmentFault, RankFault
from src.files import read_json

POLL_SECONDS = 0.5
GRACE_SECONDS = 5      # in which rank 0 begins to convert images that have other times
SILENCE_SECONDS = 900  # after which a conversion that writes nothing counts as dead


@dataclass
class Split:
    """An opened conversion."""
    name: str                   # such as train2017
    folder: str                 # of the conversion
    image_dir: str              # what file names in ground_truth are relative to
    root: str                   # the folder that holds images and annotations
    files: list[str]            # of MindRecord
    ground_truth: str           # path of ground_truth.json, in COCO's format
    report: str                 # path of report.csv
    converted: bool             # by this call, not earlier
    classes: list[str]
    category_ids: list          # category_ids[label - 1]: id of the class in ground_truth
    count: int                  # images
    boxes_per_class: list[int]  # in class order
    summary: str                # the report in short
    finding_count: int          # findings that are more than notes
    fingerprint: str            # of the annotations
    content: str                # checksum of the images
    lock: ReadLock              # keeps the folder from being removed

    def image_names(self) -> list[str]:
        """The file name of each image, in the order of the rows; read again each time, for there may be very many."""
        return [image["file_name"] for image in read_json(self.ground_truth)["images"]]


def prepare_split(split: str, dataset: str, *, mindrecord_dir: str, classes: list[str], strict: bool = False,
                  rank: int = 0, log: Callable[[str], None] = print, **place: str | float) -> Split:
    """Opens the MindRecord files of split "train" or "val", converted before when they are not usable.

    classes: names or [] = those of the annotations; place: as of formats.split_files(). Raises SplitMissing, DataError
    for data that cannot be used (with strict: for any finding), OptionError for a misspelt class, EnvironmentFault when
    nothing can be written.
    """
    classes, mindrecord_dir = checked_classes(classes), os.path.abspath(mindrecord_dir)
    files = split_files(split, dataset, **place)
    try:
        os.makedirs(mindrecord_dir, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"--mindrecord_dir '{mindrecord_dir}' cannot be made: {error.strerror}") from error
    digest = fingerprint(files.files)
    origin = [os.path.abspath(files.files[0]), os.path.abspath(files.image_dir), *([files.part] if files.part else [])]
    paths = [conversion_path(mindrecord_dir, f"{dataset}_{files.name}", origin=[*origin, *names], fingerprint=digest)
             for names in (classes, [])]
    wanted, converted = Wanted(paths, digest, classes, files.image_dir), False
    if rank:
        lock = wait_for_rank_0(wanted, log)
    else:
        with conversion_lock(mindrecord_dir):
            lock, reason = find_conversion(wanted)
            converted = lock is None
            if converted:
                lock = convert_split(files, wanted, training=split == "train", reason=reason, log=log)
    return open_split(files, lock, converted=converted, strict=strict, log=log)


def find_conversion(wanted: Wanted, *, compare_times: bool = True) -> tuple[ReadLock | None, str]:
    """A usable conversion, or None and why there is none. compare_times: as of why_stale()."""
    first_reason = ""
    for path in wanted.paths:
        for folder in reversed(list_conversions(path)):
            with contextlib.suppress(OSError):
                lock = ReadLock(folder)
                reason = why_stale(folder, wanted, compare_times=compare_times)
                if not reason and lock.is_in_place():
                    return lock, ""
                first_reason = first_reason or reason
    if not first_reason and any(list_conversions(path, any_annotations=True) for path in wanted.paths):
        return None, "the annotations have changed"
    return None, first_reason or "it is not there yet"


def wait_for_rank_0(wanted: Wanted, log: Callable[[str], None]) -> ReadLock:
    """The conversion of rank 0 once it is there; raises RankFault when nothing is written for a long time.

    Images of other times but the same sizes are accepted once rank 0 had its chance: this host may have copies of them.
    When rank 0 fails, mpirun and msrun end the processes that wait.
    """
    path = wanted.paths[0]
    start = heard = time.monotonic()  # of the last sign of life
    told, newest = False, 0.0
    while True:
        rank_0_had_its_chance = time.monotonic() - start > GRACE_SECONDS and not is_converting(os.path.dirname(path))
        lock, _ = find_conversion(wanted)
        if not lock and rank_0_had_its_chance:
            lock, _ = find_conversion(wanted, compare_times=False)
        if lock:
            return lock
        if not told:
            log(f"waiting for rank 0 to convert {path}")
        told = True
        before, newest = newest, newest_write(path)
        if newest != before:  # whichever clock these times are of
            heard = time.monotonic()
        if time.monotonic() - heard > SILENCE_SECONDS:
            raise RankFault(f"rank 0 has written nothing towards {path} for {SILENCE_SECONDS} seconds; all machines "
                            "must share --mindrecord_dir, or run prepare_data.py on each of them first")
        time.sleep(POLL_SECONDS)


def newest_write(path: str) -> float:
    """The time of the last change in the conversions of a conversion_path(), 0 without one."""
    times = [0.0]
    for folder in list_conversions(path, temporary=True):
        with contextlib.suppress(OSError):
            times += [entry.stat().st_mtime for entry in os.scandir(folder)]
    return max(times)


def open_split(files: SplitFiles, lock: ReadLock, *, converted: bool, strict: bool,
               log: Callable[[str], None]) -> Split:
    """The Split of a conversion. Raises DataError when its data has findings and strict is set."""
    folder = lock.folder
    manifest, report = read_manifest(folder), os.path.join(folder, "report.csv")
    if strict and manifest.faults:
        if not converted:  # else the summary has just been shown
            log(manifest.summary)
        raise DataError(f"--strict=True and the data has {manifest.faults} finding(s), listed in {report}")
    mindrecords = [os.path.join(folder, name) for name in sorted(manifest.files) if f"{name}.db" in manifest.files]
    return Split(
        name=files.name, folder=folder, image_dir=files.image_dir, files=mindrecords,
        root=os.path.commonpath([os.path.abspath(path) for path in (files.files[0], files.image_dir)]),
        ground_truth=os.path.join(folder, "ground_truth.json"), report=report, converted=converted,
        classes=manifest.classes, category_ids=manifest.category_ids, count=manifest.count,
        boxes_per_class=manifest.boxes_per_class, summary=manifest.summary, finding_count=manifest.faults,
        fingerprint=manifest.fingerprint, content=manifest.content, lock=lock)


def data_name(roots: Sequence[str]) -> str:
    """What a data set is called whose splits have these roots: the folder that holds all of them."""
    return os.path.basename(os.path.commonpath(roots)) or "data"


def describe_split(split: Split) -> str:
    """What two conversions of the same data have in common, as a short text."""
    return (f"{split.count} images, {len(split.classes)} classes, fingerprint {split.fingerprint[:12]}, "
            f"images {split.content}")
