"""Converts a split: annotations and image files -> MindRecord files and a COCO ground truth file.

A conversion holds data.mindrecord* (and .db), ground_truth.json, report.csv and manifest.json, and for a part of
images that came without a split images.txt, their names. Every image is decoded once, as a check.
"""
from __future__ import annotations

import json
import math
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable
from functools import partial

from src.data.annotations import SplitFiles
from src.data.conversions import ReadLock, free_folder, put_in_place, temporary_folder
from src.data.findings import Report
from src.data.image_bytes import BadImage, file_size
from src.data.images import CheckedImage, bad_image_message, check_image, load_in_threads
from src.data.labels import refuse_misspelt
from src.data.manifest import SCHEMA_VERSION, Manifest, Wanted, file_state, write_manifest
from src.data.mindrecord import mindrecord_row, mindrecord_writer
from src.data.records import Annotations, Record, finish_record
from src.errors import DataError, EnvironmentFault
from src.progress import track
from src.text import one_line

IMAGES_AT_ONCE = 32  # in memory
SMALL_PAGE, LARGE_PAGE = 1 << 25, 1 << 28  # bytes: MindRecord's usual page, which a row must fit into, and its largest
IMAGE_SHARE = 3 / 4  # of a page; the rest is for the boxes
PLAIN_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")  # of images that are stored as they are
PNG_GROWTH = 30      # how many times its size another image may have as a PNG


def convert_split(files: SplitFiles, wanted: Wanted, *, training: bool, reason: str,
                  log: Callable[[str], None]) -> ReadLock:
    """Converts a split; after an error nothing is left. reason: why it is converted, for the log."""
    folder, report = free_folder(wanted.paths[0]), Report()
    log(f"converting {files.name} into {folder}: {reason}")
    annotations = files.read(classes=wanted.classes, report=report)
    if training:
        refuse_misspelt(annotations.classes, report.class_names)
    with temporary_folder(folder) as temporary:
        images = {os.path.relpath(record.path, files.image_dir): file_state(record.path)
                  for record in annotations.records}
        written = write_images(annotations, files, temporary, report=report)
        for name, count in zip(annotations.classes, written["boxes_per_class"]):
            if training and count == 0:
                report.add("class without boxes", files.files[0], f"no training box is of class '{name}'")
        if reason := report.forms.other_form():
            report.add("box format", files.files[0], reason)
        log(f"{files.name}: {written['count']} images, {sum(written['boxes_per_class'])} boxes, "
            f"{report.finding_count} finding(s)")
        if outside := [name for name in images if name.startswith(os.pardir + os.sep)]:
            log(f"{len(outside)} of {len(images)} images lie outside of '{files.image_dir}', where their names lead "
                f"(first: {one_line(outside[0])})")
        if report.counts:
            log(report.summary())
        report.write_csv(os.path.join(temporary, "report.csv"))
        if files.part:
            with open(os.path.join(temporary, "images.txt"), "w", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(f"{name}\n" for name in images)
            log(f"{files.part}; those of {files.name} are listed in {os.path.join(folder, 'images.txt')}")
        write_manifest(temporary, Manifest(
            schema=SCHEMA_VERSION, fingerprint=wanted.fingerprint, asked_classes=wanted.classes,
            classes=annotations.classes, category_ids=annotations.category_ids, faults=report.finding_count,
            summary=report.summary(), images=images, **written,
            files={entry.name: entry.stat().st_size for entry in os.scandir(temporary)}))
        return put_in_place(temporary, wanted.paths[0], log)


def write_images(annotations: Annotations, files: SplitFiles, folder: str, *, report: Report) -> dict:
    """Writes data.mindrecord* and ground_truth.json into folder -> the fields of a Manifest that tell of them.

    Raises DataError when no image can be used.
    """
    records, classes, category_ids = annotations
    categories = [{"id": number, "name": name} for number, name in zip(category_ids, classes)]
    box_counts, left_out, content = Counter(), {}, 0
    page_size, truth_path = choose_page_size(records, folder), os.path.join(folder, "ground_truth.json")
    with TruthFile(truth_path, categories) as truth, mindrecord_writer(folder, page_size) as write_row:
        load = partial(load_image, max_bytes=int(page_size * IMAGE_SHARE))
        images = load_in_threads(load, records, IMAGES_AT_ONCE)
        for image, record in zip(track(images, len(records), "checking images"), records):
            if isinstance(image, BadImage):
                report.add(f"image {image.kind}", record.source, bad_image_message(record.path, image))
                left_out[record.path] = file_size(record.path)
                continue
            if image.note:
                report.add("image damaged", record.source, f"'{record.path}' is {image.note}")
            finished = finish_record(record, image.size, report)
            write_row(mindrecord_row(len(truth.images), finished, image.data))
            name = os.path.relpath(record.path, files.image_dir)
            truth.add({"id": record.truth_id, "file_name": name, "height": finished.height, "width": finished.width},
                      coco_annotations(record if files.as_annotated else finished, category_ids, truth.boxes + 1))
            box_counts.update(box.label for box in finished.boxes)
            content = zlib.crc32(image.data, content)
        if not truth.images:
            reason = report.findings[-1].reason if report.findings else "the annotations name none"
            raise DataError(f"no usable image in '{files.image_dir}': {reason}")
    for entry in os.scandir(folder):  # MindRecord lets only the owner read; others may share the folder
        shutil.copymode(truth_path, entry.path)
    boxes_per_class = [box_counts[label] for label in range(1, len(classes) + 1)]
    return {"count": len(truth.images), "boxes_per_class": boxes_per_class, "left_out": left_out,
            "content": f"{content:08x}"}


class TruthFile:
    """A ground_truth.json that is written as its images come: the boxes of a large data set would fill the memory."""

    def __init__(self, path: str, categories: list[dict]):
        self.images, self.boxes, self.file = [], 0, open(path, "w", encoding="utf-8")
        self.file.write(f'{{"categories": {json.dumps(categories)}, "annotations": [')

    def add(self, image: dict, annotations: list[dict]) -> None:
        """Adds an image and its boxes."""
        self.images.append(json.dumps(image))
        for annotation in annotations:
            self.file.write(f"{', ' if self.boxes else ''}{json.dumps(annotation)}")
            self.boxes += 1

    def __enter__(self) -> TruthFile:
        return self

    def __exit__(self, *error: object) -> None:
        with self.file:
            self.file.write(f'], "images": [{", ".join(self.images)}]}}')


def choose_page_size(records: list[Record], folder: str) -> int:
    """The page of MindRecord that the largest image fits into. Raises EnvironmentFault when the disk is too small."""
    sizes = {record.path: max(file_size(record.path), 0) for record in records}
    needed, free = sum(sizes.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise EnvironmentFault(f"the images take {needed >> 20} MiB, '{folder}' has only {free >> 20} MiB left")
    for path, size in sizes.items():
        growth = 1 if path.lower().endswith(PLAIN_ENDINGS) else PNG_GROWTH
        if size * growth > SMALL_PAGE * IMAGE_SHARE:
            return LARGE_PAGE
    return SMALL_PAGE


def load_image(record: Record, *, max_bytes: int, capture: bool) -> CheckedImage | BadImage:
    """Reads and checks the image of a record. max_bytes: that it may take, encoded. capture: as of check_image()."""
    try:
        image = check_image(record.path, record.height, record.width, capture=capture)
    except BadImage as error:
        return error
    if len(image.data) > max_bytes:
        return BadImage(f"it takes {len(image.data) >> 20} MiB, at most {max_bytes >> 20} fit into a row; save it "
                        "smaller, as JPEG", "too large")
    return image._replace(pixels=None)  # IMAGES_AT_ONCE of them could fill the memory


def coco_annotations(record: Record, category_ids: list, first_id: int) -> list[dict]:
    """COCO annotations of a record with ids from first_id on; boxes without a finite area above 0 are left out."""
    usable = [box for box in record.boxes if all(map(math.isfinite, box.pixels)) and min(box.pixels[2:]) > 0]
    return [{"id": number, "image_id": record.truth_id, "category_id": category_ids[box.label - 1],
             "bbox": box.pixels, "area": box.pixels[2] * box.pixels[3] if box.area is None else box.area,
             "iscrowd": int(box.crowd), "ignore": int(box.difficult), "difficult": int(box.difficult)}
            for number, box in enumerate(usable, first_id)]
