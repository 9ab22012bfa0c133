"""Opens the MindRecord files of a split, converting when they are missing or stale.

A conversion is a folder (its name: conversions.py) with data.mindrecord* (and .db), ground_truth.json, report.csv and
manifest.json, what it was made of.
"""
import contextlib
import hashlib
import json
import os
import shutil
import time
from collections import namedtuple

from src.classes import checked_classes
from src.data.annotations import Place
from src.data.conversions import (
    TEMPORARY,
    base_path,
    conversions,
    find_conversion,
    free_folder,
    image_facts,
    is_locked,
    locked,
    put_in_place,
    read_manifest,
)
from src.data.convert import write_images
from src.data.findings import Report
from src.data.formats import find_split
from src.data.labels import refuse_misspelt
from src.errors import DataError, EnvironmentFault, RankFault

SCHEMA_VERSION = 2
POLL_SECONDS = 0.5
GRACE_SECONDS = 5      # in which rank 0 begins to convert images that have other times
SILENCE_SECONDS = 900  # a conversion that writes nothing for so long is taken for dead

# An opened conversion. image_dir: what file names are relative to; files: of MindRecord; report: path of report.csv,
# summary: its short form; converted: by this call, not by an earlier one; category_ids[label - 1]: id of the class in
# ground_truth; count: images; boxes_per_class: in class order; faults: findings that are no notes
# content: checksum of its images; reader: keeps the folder from being removed
FACTS = "classes category_ids count boxes_per_class summary faults fingerprint content"
Split = namedtuple("Split", f"name target image_dir files ground_truth report converted {FACTS} reader")


def prepare_split(split, dataset, *, mindrecord_dir, classes, strict=False, rank=0, log=print, **place):
    """Opens the MindRecord files of split "train" or "val" -> Split; rank 0 converts first when they are not usable.

    classes: names or [] = those of the annotations. place: fields of Place. Raises SplitMissing,
    DataError for data that cannot be used (with strict: for any finding), OptionError for a misspelt class,
    EnvironmentFault when nothing can be written.
    """
    classes, place, mindrecord_dir = checked_classes(classes), Place(**place), os.path.abspath(mindrecord_dir)
    source = find_split(split, dataset, place)
    try:
        os.makedirs(mindrecord_dir, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"mindrecord_dir '{mindrecord_dir}' cannot be made: {error.strerror}") from error
    wanted = {"schema": SCHEMA_VERSION, "fingerprint": fingerprint(source.files), "asked_classes": classes}
    # one made without a list of classes will do when it found the very classes that are asked for
    origin = [os.path.abspath(path) for path in (source.files[0], source.image_dir)]
    bases = [base_path(mindrecord_dir, f"{dataset}_{source.name}", [*origin, *names], wanted["fingerprint"])
             for names in (classes, [])]
    if rank:
        reader, converted = wait_for(bases, wanted, source.image_dir, log), False
    else:
        with locked(mindrecord_dir):
            reader, reason = find_conversion(bases, wanted, source.image_dir)
            converted = reader is None
            if converted:
                reader = convert(source, bases[0], wanted, split == "train", reason, log)
    return open_split(source, reader, strict, converted, log)


def fingerprint(files):
    """SHA-256 over names and bytes; a missing file or a folder counts by its name."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(os.fsencode(os.path.basename(path)) + b"\0")
        if os.path.isfile(path):
            with open(path, "rb") as file:
                digest.update(file.read())
    return digest.hexdigest()


def convert(source, base, wanted, training, reason, log):
    """Converts SplitFiles -> Reader of the new folder; after an error nothing is left. reason: for the log."""
    folder = free_folder(base)
    log(f"converting {source.name} into {folder}: {reason}")
    report, temporary = Report(), folder + TEMPORARY
    records, classes, category_ids = source.read(classes=wanted["asked_classes"], report=report)
    if training:
        refuse_misspelt(classes, report.class_names)
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a conversion that was killed
        os.makedirs(temporary)
        seen = image_facts([record.path for record in records], source.image_dir)
        facts = write_images(records, temporary, source.image_dir, classes, category_ids, source.as_annotated, report)
        for name, count in zip(classes, facts["boxes_per_class"]):
            if training and count == 0:
                report.add("class without boxes", source.files[0], f"no training box is of class '{name}'")
        report.judge_boxes(source.files[0])
        boxes = sum(facts["boxes_per_class"])
        log(f"{source.name}: {facts['count']} images, {boxes} boxes, {report.finding_count} finding(s)")
        if report.counts:
            log(report.summary())
        report.write_csv(os.path.join(temporary, "report.csv"))
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(temporary)}
        manifest = {**wanted, **facts, "classes": classes, "category_ids": category_ids, "faults": report.finding_count,
                    "summary": report.summary(), "files": sizes, "images": seen}
        with open(os.path.join(temporary, "manifest.json"), "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
        return put_in_place(temporary, folder, base, log)
    except OSError as error:
        raise EnvironmentFault(f"'{temporary}' cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def open_split(source, reader, strict, converted, log):
    """The Split of a Reader. Raises DataError when its data has findings and strict is set."""
    folder = reader.folder
    manifest, report = read_manifest(folder), os.path.join(folder, "report.csv")
    if strict and manifest["faults"]:
        if not converted:  # else the summary has just been shown
            log(manifest["summary"])
        raise DataError(f"--strict=True and the data has {manifest['faults']} finding(s), listed in {report}")
    files = [os.path.join(folder, file) for file in sorted(manifest["files"]) if file + ".db" in manifest["files"]]
    return Split(source.name, folder, source.image_dir, files, os.path.join(folder, "ground_truth.json"), report,
                 converted, *(manifest[key] for key in FACTS.split()), reader)


def wait_for(bases, wanted, image_dir, log):
    """A Reader when rank 0 has converted; raises RankFault when it has written nothing for a long time.

    Images of other times but the same sizes will do once rank 0 had its chance: this host may have copies of them. When
    rank 0 fails, mpirun and msrun end the processes that wait.
    """
    alive = start = time.time()
    told = False
    while True:
        late = time.time() - start > GRACE_SECONDS and not is_locked(os.path.dirname(bases[0]))
        reader = find_conversion(bases, wanted, image_dir)[0]
        reader = reader or late and find_conversion(bases, wanted, image_dir, times=False)[0]
        if reader:
            return reader
        if not told:
            log(f"waiting for rank 0 to convert {bases[0]}")
        told = True
        for folder in conversions(bases[0], temporary=True):
            with contextlib.suppress(OSError):
                alive = max([alive, *(entry.stat().st_mtime for entry in os.scandir(folder))])
        if time.time() - alive > SILENCE_SECONDS:
            raise RankFault(f"rank 0 has written nothing towards {bases[0]} for {SILENCE_SECONDS} seconds; all "
                            "machines must share mindrecord_dir, or run prepare_data.py on each of them first")
        time.sleep(POLL_SECONDS)


def describe_split(split):
    """What two conversions of the same data have in common, as a short text."""
    return (f"{split.count} images, {len(split.classes)} classes, fingerprint {split.fingerprint[:12]}, "
            f"images {split.content}")
