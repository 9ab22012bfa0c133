"""What the readers of annotations share: the record of an image, the report of findings, clipping and normalising."""
import csv
import math
from collections import Counter, namedtuple
from dataclasses import dataclass, replace

import numpy as np

from src.text import one_line

NOTES = ("class without boxes", "category left out")  # kinds of findings that are no fault
KEPT_FINDINGS = 10000             # of a kind; further ones are only counted, so that memory stays flat
CLIP_TOLERANCE = 0.05             # pixels; COCO's two decimals alone put a box up to 0.01 outside
SMALLEST_SIDE = 1 - 1e-6          # pixels; the difference of two floats may miss 1 by a rounding error
LONGEST_REASON = 500              # letters
FORMS = ("x, y, w, h", "x1, y1, x2, y2")
Finding = namedtuple("Finding", "kind file box reason")  # one fault or note; box may be None


# One box: its number in the file and the class name there, x, y, w, h in pixels, the area (COCO's own, which its size
# ranges use; None means w * h), flags, and the label 1..C-1. As annotated from a reader, clipped after finish_record.
Box = namedtuple("Box", "number name pixels area crowd difficult label", defaults=(None, False, False, 0))


@dataclass
class Record:
    """One image with its boxes; height, width: pixels of the frame they live in, 0 where the annotation does not say;
    source: the image or its annotation in findings; written_id: its id in the annotation file where that is no whole
    number of 64 bits, which image_id is."""
    image_id: int
    path: str
    height: int
    width: int
    source: str
    boxes: list
    written_id: object = None

    @property
    def truth_id(self):
        """The id that the image has in its annotation file, for results that are compared with that file."""
        return self.image_id if self.written_id is None else self.written_id


class Report:
    """Collects findings and counts them by kind. class_names: all that the annotations hold, known or not.

    corners: whether boxes were written as x1, y1, x2, y2; box_forms: what finish_record saw of that.
    """

    def __init__(self):
        self.counts, self.findings, self.class_names = Counter(), [], set()
        self.corners, self.box_forms, self.changed_names = False, Counter(), {}

    def add(self, kind, file, box, reason):
        """Counts a finding and keeps it, unless there are very many of its kind."""
        self.counts[kind] += 1
        if self.counts[kind] <= KEPT_FINDINGS:
            reason = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]} .."
            self.findings.append(Finding(kind, file, box, reason))

    def class_name(self, name, file):
        """The name of a class on one line, so that tables and pictures stay in shape; a changed one is said once."""
        if name.isprintable():
            return name
        if name not in self.changed_names:
            self.changed_names[name] = one_line(name)
            if one_line(name) != name:
                self.add("class name changed", file, None, f"{name!r} is read as '{one_line(name)}'")
        return self.changed_names[name]

    def judge_boxes(self, file):
        """Adds one finding where most boxes look as if they were written in another form than they are read in."""
        forms, (read, other) = self.box_forms, FORMS[::-1] if self.corners else FORMS
        # a few boxes with swapped corners are no other form
        most = forms["all"] < 2 * forms["wrong"] + (not self.corners) and forms["other"] >= 0.9 * forms["all"]
        looks = (f"fractions of the image (or, as YOLO writes them, centre, width and height); write pixels as {read}"
                 if 2 * forms["fractions"] > forms["all"] else f"{other}; write them as {read}" if most else "")
        if looks and forms["all"]:
            self.add("box format", file, None, f"boxes are read as {read} in pixels, but most look like {looks}")

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
                lines.append(visible(f"{'':9}{item.file}{' ' + item.box if item.box else ''}: {item.reason}"))
        return "\n".join(lines) or "no findings"

    def write_csv(self, path):
        """Writes kind, file, box, reason of every kept finding."""
        with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerows([Finding._fields, *(map(encodable, item) for item in self.findings)])
            writer.writerows((kind, "", "", f"and {count - KEPT_FINDINGS} more")
                             for kind, count in self.counts.items() if count > KEPT_FINDINGS)


def visible(text):
    """A text with what cannot be shown on one line, such as a line break or half a letter, as an escape."""
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def encodable(text):
    """A text, or None, as a file can hold it: half a letter becomes an escape, a byte of a file name stays."""
    try:
        (text or "").encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def finish_record(record, height, width, report):
    """The record with boxes clipped to the height x width pixels the image has, unusable ones dropped, `boxes` set."""
    if record.height and record.width and (height, width) != (record.height, record.width):
        report.add("image size wrong", record.source, None,
                   f"{record.width} x {record.height} is written, the image has {width} x {height} pixels")
    finished = []
    for box in record.boxes:
        report.box_forms.update(box_forms(box.pixels, width, height, corners=report.corners))
        x, y, w, h = box.pixels
        corners = (x, y, x + w, y + h)
        inside = [min(max(value, 0), most) for value, most in zip(corners, (width, height) * 2)]
        moved = any(abs(value - clipped) > CLIP_TOLERANCE for value, clipped in zip(corners, inside))
        inside = (*inside[:2], inside[2] - inside[0], inside[3] - inside[1])
        reason = why_dropped(box.pixels, inside)
        if reason or moved:
            named = f"#{box.number} [{', '.join(f'{value:g}' for value in corners)}]"
            report.add("box dropped" if reason else "box clipped", record.source, named,
                       reason or f"it leaves the image of {width} x {height} pixels")
        if not reason:
            finished.append(box._replace(pixels=inside))
    return replace(record, height=height, width=width, boxes=finished)


def box_forms(pixels, width, height, *, corners):
    """What the four numbers of a box x, y, w, h could be: names that Report.judge_boxes counts.

    corners: they were written as x1, y1, x2, y2.
    """
    x, y, w, h = pixels

    def fits(right, bottom):
        return min(x, y) >= 0 and x < right <= width + 1 and y < bottom <= height + 1

    written = (x, y, x + w, y + h) if corners else pixels
    other = fits(x + written[2], y + written[3]) if corners else fits(w, h)
    small = all(0 <= value <= 1 for value in written) and max(written) > 0
    return ["all", *["fractions"] * small, *["wrong"] * (other and not fits(x + w, y + h)), *["other"] * other]


def why_dropped(annotated, inside):
    """Why a box is dropped, "" if it is not; both x, y, w, h in pixels, as annotated and clipped."""
    if not all(map(math.isfinite, annotated)):
        return "a coordinate is not finite"
    if min(annotated[2:]) < 0:
        return "reversed: x2 < x1 or y2 < y1"
    if min(inside[2:]) >= SMALLEST_SIDE:
        return ""
    outside = min(annotated[2:]) >= SMALLEST_SIDE and min(inside[2:]) <= 0
    return "outside the image" if outside else "under 1 pixel"


def fractions(record):
    """The boxes of a Record as x1, y1, x2, y2 in 0..1, [N, 4] float32."""
    x, y, w, h = np.array([box.pixels for box in record.boxes], np.float64).reshape(-1, 4).T
    return np.float32(np.stack([x, y, x + w, y + h], axis=1) / ((record.width, record.height) * 2))
