"""Records and image files -> MindRecord rows and a COCO ground truth file; every image is decoded once, as a check."""
import contextlib
import json
import math
import os
import shutil
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from src.data.image_bytes import BadImage, file_size
from src.data.images import bad_image_message, captured_stderr, check_image
from src.data.records import Box, finish_record, fractions
from src.errors import DataError, EnvironmentFault
from src.progress import track

SCHEMA = {
    "index": {"type": "int64"},  # from 0: the place of the image in ground_truth.json
    "image_id": {"type": "int64"},
    "image": {"type": "bytes"},  # the file as it was, or where OpenCV cannot read that silently, a PNG of its pixels
    "height": {"type": "int32"},
    "width": {"type": "int32"},
    "boxes": {"type": "float32", "shape": [-1, 4]},  # x1, y1, x2, y2 in 0..1
    "labels": {"type": "int32", "shape": [-1]},  # 1..C-1, or one -1 where the image has no box
    "crowd": {"type": "int32", "shape": [-1]},
    "difficult": {"type": "int32", "shape": [-1]},
}
CHUNK = 32             # images in memory at a time
FILE_BYTES = 4 << 30   # of images in one MindRecord file
SMALL_PAGE, LARGE_PAGE = 1 << 25, 1 << 28  # MindRecord's usual page, which a row must fit into, and its largest
SHARE = 3 / 4          # of a page for the image, the rest is for its boxes
PLAIN = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")  # what others become grows, up to so many times
GROWTH = 30


def write_images(records, target, image_dir, classes, category_ids, as_annotated, report):
    """Writes data.prepare* and ground_truth.json into target -> {count, boxes_per_class, left_out (path: size),
    content (checksum of all image bytes)}.

    as_annotated: the ground truth holds the boxes unclipped. Raises DataError when no image can be used.
    """
    sizes = {record.path: max(file_size(record.path), 0) for record in records}
    needed, free = sum(sizes.values()), shutil.disk_usage(target).free
    if needed > free:
        raise EnvironmentFault(f"the images take {needed >> 20} MiB, '{target}' has only {free >> 20} MiB left")
    images, annotations, boxes, left_out, content = [], [], Counter(), {}, 0
    largest = max((size * (1 if path.lower().endswith(PLAIN) else GROWTH) for path, size in sizes.items()), default=0)
    page = LARGE_PAGE if largest > SMALL_PAGE * SHARE else SMALL_PAGE
    with mindrecord_writer(target, page) as write:
        for record, data, found, note in track(loaded(records, page), len(records), "checking images"):
            if data is None:
                report.add(found, record.source, note)
                left_out[record.path] = file_size(record.path)
                continue
            if note:
                report.add("image damaged", record.source, f"'{record.path}' is {note}")
            content = zlib.crc32(data, content)
            finished = finish_record(record, found, report)
            write(mindrecord_row(len(images), finished, data))
            images.append({"id": record.truth_id, "file_name": os.path.relpath(record.path, image_dir),
                           "height": finished.height, "width": finished.width})
            annotations += coco_annotations(record if as_annotated else finished, category_ids, len(annotations) + 1)
            boxes.update(box.label for box in finished.boxes)
        if not images:
            reason = report.findings[-1].reason if report.findings else "the annotations name none"
            raise DataError(f"no usable image in '{image_dir}': {reason}")
    categories = [{"id": number, "name": name} for number, name in zip(category_ids, classes)]
    with open(os.path.join(target, "ground_truth.json"), "w", encoding="utf-8") as file:
        file.write(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    for entry in os.scandir(target):  # MindRecord lets only the owner read; others may share the folder
        shutil.copymode(file.name, entry.path)
    per_class = [boxes[label] for label in range(1, len(classes) + 1)]
    return {"count": len(images), "boxes_per_class": per_class, "left_out": left_out, "content": f"{content:08x}"}


def loaded(records, page):
    """Yields (record, encoded bytes, (height, width), note on damage) in order; of an image that gives no picture None,
    the kind of finding and the reason instead of the last three."""
    with ThreadPoolExecutor(min(4, os.cpu_count())) as pool:
        for start in range(0, len(records), CHUNK):
            chunk = records[start:start + CHUNK]
            with captured_stderr() as lines:  # libraries seldom write a line: listen to all images at once
                found = list(pool.map(partial(load, page, listen=False), chunk))
            yield from map(partial(load, page), chunk) if lines else found


def load(page, record, listen=True):
    """The image of a record as loaded() yields it; listen: as of check_image(); page: of MindRecord, in bytes."""
    try:
        image = check_image(record.path, record.height, record.width, capture=listen)
    except BadImage as error:
        kind = "image missing" if error.missing else "image unreadable"
        return record, None, kind, bad_image_message(record.path, error)
    if len(image.data) > page * SHARE:
        return record, None, "image too large", (f"'{record.path}' takes {len(image.data) >> 20} MiB, at most "
                                                 f"{int(page * SHARE) >> 20} fit into a row; save it smaller, as JPEG")
    return record, image.data, image.pixels.shape[:2], image.note


def mindrecord_row(index, record, data):
    """One row of SCHEMA. MindDataset gives zero boxes the shape (): an image without any gets a zero box, label -1."""
    shown = record if record.boxes else replace(record, boxes=[Box(0, "", (0, 0, 0, 0), label=-1)])
    labels, crowd, difficult = (np.array([getattr(box, name) for box in shown.boxes], np.int32)
                                for name in ("label", "crowd", "difficult"))
    return {"index": index, "image_id": record.image_id, "image": data, "height": record.height, "width": record.width,
            "boxes": fractions(shown), "labels": labels, "crowd": crowd, "difficult": difficult}


def coco_annotations(record, category_ids, first_id):
    """COCO annotations of a record with ids from first_id on; boxes without a finite area above 0 are left out."""
    usable = [box for box in record.boxes if all(map(math.isfinite, box.pixels)) and min(box.pixels[2:]) > 0]
    return [{"id": number, "image_id": record.truth_id, "category_id": category_ids[box.label - 1],
             "bbox": box.pixels, "area": box.pixels[2] * box.pixels[3] if box.area is None else box.area,
             "iscrowd": int(box.crowd), "ignore": int(box.difficult), "difficult": int(box.difficult)}
            for number, box in enumerate(usable, first_id)]


@contextlib.contextmanager
def mindrecord_writer(target, page):
    """Gives write(row), which fills data.prepare000, 001, .. one after another; page: bytes a row must fit into.

    FileWriter's own shards are filled at random, and a row would no longer be found by its number.
    """
    # not at the top: ranks that wait and tests of everything else need no MindSpore
    from mindspore.mindrecord import FileWriter
    writers, rows, filled = [], [], FILE_BYTES

    def flush():
        if rows:
            writers[-1].write_raw_data(rows)  # by the chunk: a call a row takes twice as long
            rows.clear()

    def write(row):
        nonlocal filled
        if filled >= FILE_BYTES:
            flush()
            writers.append(FileWriter(os.path.join(target, f"data.prepare{len(writers):03}")))
            writers[-1].set_page_size(page)
            writers[-1].add_schema(SCHEMA, "images with boxes")
            filled = 0
        rows.append(row)
        filled += len(row["image"])
        if len(rows) >= CHUNK:
            flush()

    try:
        yield write
        flush()
        for writer in writers:
            writer.commit()
    except RuntimeError as error:
        reason = next((line for line in str(error).splitlines() if line.startswith("[ERROR]")), str(error))
        raise EnvironmentFault(f"MindRecord cannot write to '{target}': {reason}") from error
