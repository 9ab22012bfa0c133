"""What the readers of annotations share: the record of an image, the report of findings, clipping and normalising."""
import csv
from collections import Counter, namedtuple
from dataclasses import dataclass, replace

import numpy as np

NOTES = ("class without boxes",)  # kinds of findings that are no fault
KEPT_FINDINGS = 10000             # of a kind; further ones are only counted, so that memory stays flat
CLIP_TOLERANCE = 0.05             # pixels; COCO's two decimals alone put a box up to 0.01 outside
SMALLEST_SIDE = 1 - 1e-6          # pixels; the difference of two floats may miss 1 by a rounding error
PER_BOX = ("numbers", "pixels", "area", "labels", "crowd", "difficult", "boxes")
Finding = namedtuple("Finding", "kind file box reason")  # one fault or note; box may be None


@dataclass
class Record:
    """One image with its N boxes. Label 0 is background and never occurs.

    height, width: pixels of the frame the boxes live in, 0 where the annotation does not say. pixels [N, 4] float64:
    x, y, w, h in pixels; area [N] float64: COCO's own field (its size ranges use it), else w * h. Both are as annotated
    when they come from a reader, clipped after finish_record. boxes [N, 4] float32: x1, y1, x2, y2 in 0..1, None before
    finish_record. labels [N] int32 1..C-1; crowd, difficult [N] bool; numbers [N] name the boxes in findings.
    """
    image_id: int
    path: str
    height: int
    width: int
    source: str
    numbers: np.ndarray
    pixels: np.ndarray
    area: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    boxes: np.ndarray = None


class Report:
    """Collects findings and counts them by kind. class_names: all that the annotations hold, known or not."""

    def __init__(self):
        self.counts, self.findings, self.class_names = Counter(), [], set()

    def add(self, kind, file, box, reason):
        """Counts a finding and keeps it, unless there are very many of its kind."""
        self.counts[kind] += 1
        if self.counts[kind] <= KEPT_FINDINGS:
            self.findings.append(Finding(kind, file, box, reason))

    @property
    def faults(self):
        """How many findings are no mere notes."""
        return sum(count for kind, count in self.counts.items() if kind not in NOTES)

    def summary(self, examples=3):
        """A table as text: the count of each kind with its first few findings."""
        lines = []
        for kind, count in self.counts.items():
            lines.append(f"{count:>7}  {kind}{' (a note, no fault)' if kind in NOTES else ''}")
            for item in [item for item in self.findings if item.kind == kind][:examples]:
                lines.append(f"{'':9}{item.file}{' ' + item.box if item.box else ''}: {item.reason}")
        return "\n".join(lines) or "no findings"

    def write_csv(self, path):
        """Writes kind, file, box, reason of every kept finding."""
        with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerows([Finding._fields, *self.findings])
            writer.writerows((kind, "", "", f"and {count - KEPT_FINDINGS} more")
                             for kind, count in self.counts.items() if count > KEPT_FINDINGS)


def finish_record(record, height, width, report):
    """The record with boxes clipped to the height x width pixels the image has, unusable ones dropped, `boxes` set."""
    if record.height and record.width and (height, width) != (record.height, record.width):
        report.add("image size wrong", record.source, None,
                   f"{record.width} x {record.height} is written, the image has {width} x {height} pixels")
    frame = np.array([width, height, width, height], np.float64)
    with np.errstate(invalid="ignore"):
        corners = np.concatenate([record.pixels[:, :2], record.pixels[:, :2] + record.pixels[:, 2:]], axis=1)
        inside = np.clip(corners, 0, frame)
        sides = inside[:, 2:] - inside[:, :2]
        clipped = (np.abs(inside - corners) > CLIP_TOLERANCE).any(axis=1)
    keep = np.isfinite(record.pixels).all(axis=1) & (sides >= SMALLEST_SIDE).all(axis=1)
    for index in np.flatnonzero(clipped | ~keep):
        box = f"#{record.numbers[index]} [{', '.join(f'{value:g}' for value in corners[index])}]"
        reason = (f"it leaves the image of {width} x {height} pixels" if keep[index]
                  else dropped_reason(record.pixels[index], sides[index]))
        report.add("box clipped" if keep[index] else "box dropped", record.source, box, reason)
    by_size = record.area == record.pixels[:, 2] * record.pixels[:, 3]
    finished = replace(record, height=height, width=width, boxes=(inside / frame).astype(np.float32),
                       pixels=np.concatenate([inside[:, :2], sides], axis=1),
                       area=np.where(by_size, sides.prod(axis=1), record.area))
    return replace(finished, **{name: getattr(finished, name)[keep] for name in PER_BOX})


def dropped_reason(pixels, sides):
    """Why a box is dropped; pixels: x, y, w, h as annotated, sides: w, h after clipping."""
    if not np.isfinite(pixels).all():
        return "a coordinate is not finite"
    if (pixels[2:] < 0).any():
        return "reversed: x2 < x1 or y2 < y1"
    outside = (pixels[2:] >= SMALLEST_SIDE).all() and (sides <= 0).any()
    return "outside the image" if outside else "under 1 pixel"
