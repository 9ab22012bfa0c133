"""MindRecord files: one row per image, written and read in order.

MindSpore is imported where it is used: processes that only wait, and tests of everything else, need not load it.
"""
from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from src.data.records import Box, Record, fractions
from src.errors import DataError, EnvironmentFault, out_of_memory

SCHEMA = {
    "index": {"type": "int64"},  # from 0: the place of the image in ground_truth.json
    "image_id": {"type": "int64"},
    "image": {"type": "bytes"},  # the file as it was, or where OpenCV cannot read that silently, a PNG of its pixels
    "height": {"type": "int32"},
    "width": {"type": "int32"},
    "boxes": {"type": "float32", "shape": [-1, 4]},  # x1, y1, x2, y2 in 0..1
    "labels": {"type": "int32", "shape": [-1]},  # 1..C-1, or a single -1 where the image has no box
    "crowd": {"type": "int32", "shape": [-1]},
    "difficult": {"type": "int32", "shape": [-1]},
}
FILE_BYTES = 4 << 30   # of images in one MindRecord file
ROWS_AT_ONCE = 32      # handed to MindSpore together: with a call for each row writing takes twice as long


def mindrecord_row(index: int, record: Record, data: bytes) -> dict:
    """One row of SCHEMA: a finished Record and the encoded bytes of its image.

    MindDataset gives no boxes the shape (): an image without any gets a zero box with label -1.
    """
    boxes = record.boxes or [Box(0, "", (0, 0, 0, 0), label=-1)]
    columns = {name: np.array([getattr(box, name) for box in boxes], np.int32)  # [N]
               for name in ("label", "crowd", "difficult")}
    return {"index": index, "image_id": record.image_id, "image": data, "height": record.height, "width": record.width,
            "boxes": fractions(replace(record, boxes=boxes)), "labels": columns["label"], "crowd": columns["crowd"],
            "difficult": columns["difficult"]}


@contextlib.contextmanager
def mindrecord_writer(folder: str, page_size: int) -> Iterator[Callable[[dict], None]]:
    """Gives write(row), which fills data.mindrecord000, 001, .. one after another. Raises EnvironmentFault.

    page_size: bytes that a row must fit into. FileWriter's own shards are filled at random: a row could not be found by
    its number.
    """
    from mindspore.mindrecord import FileWriter
    writers, rows, filled = [], [], FILE_BYTES

    def flush() -> None:
        if rows:
            writers[-1].write_raw_data(rows)
            rows.clear()

    def write(row: dict) -> None:
        nonlocal filled
        if filled >= FILE_BYTES:
            flush()
            writers.append(FileWriter(os.path.join(folder, f"data.mindrecord{len(writers):03}")))
            writers[-1].set_page_size(page_size)
            writers[-1].add_schema(SCHEMA, "images with boxes")
            filled = 0
        rows.append(row)
        filled += len(row["image"])
        if len(rows) >= ROWS_AT_ONCE:
            flush()

    try:
        yield write
        flush()
        for writer in writers:
            writer.commit()
    except RuntimeError as error:
        reason = next((line for line in str(error).splitlines() if line.startswith("[ERROR]")), str(error))
        raise EnvironmentFault(f"MindRecord cannot write to '{folder}': {reason}") from error


def read_rows(files: list[str], rows: np.ndarray, columns: list[str]) -> Iterator[dict[str, np.ndarray]]:
    """Columns of the given rows [n] in order, a row as often as it is named."""
    import mindspore.dataset as ds
    length = rows.max() + 1  # MindSpore takes no longer list of rows than a file has; this many it has at least
    for piece in np.split(rows, range(length, len(rows), length)):
        data = ds.MindDataset(files, columns, 1, sampler=ds.SubsetSampler(piece.tolist()))
        yield from data.create_dict_iterator(num_epochs=1, output_numpy=True)


def read_error(error: Exception, file: str) -> Exception:
    """What to raise for an error of MindSpore's reader: the files are damaged, unless memory ran out."""
    if out_of_memory(error):
        return MemoryError(str(error))
    reason = " ".join(str(error).split())[:200]
    return DataError(f"the MindRecord files cannot be read: {reason}; remove the folder of '{file}', and the next run "
                     "converts the data again")
