"""What is wrong with a data set: each finding is counted by its kind and named with its file, box and reason."""
from __future__ import annotations

import contextlib
import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from src.errors import SSDError
from src.text import one_line

NOTES = ("class without boxes", "category left out")  # kinds that are told but do not count, not even for --strict=True
KEPT_FINDINGS = 10000  # of a kind; further ones are only counted, so that memory stays flat
MAX_REASON = 500       # letters
NOT_UTF8 = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # halves of letters; the others stand for bytes of a file name


@dataclass
class BoxForms:
    """Counts what the four numbers of boxes could be, to notice files that write them in another form than is read."""
    corners: bool = False  # x1, y1, x2, y2 is read, not x, y, w, h; readers set it
    boxes: int = 0         # counted so far; of these
    fractions: int = 0     # all four numbers lie in 0..1
    other: int = 0         # inside the image when read in the other form
    only_other: int = 0    # inside the image in no other way

    def count(self, pixels: tuple[float, ...], size: tuple[int, int]) -> None:
        """Counts one box. pixels: x, y, w, h as read; size: height, width of its image."""
        def fits(right: float, bottom: float) -> bool:
            return min(x, y) >= 0 and x < right <= size[1] + 1 and y < bottom <= size[0] + 1

        x, y, w, h = pixels
        written = (x, y, x + w, y + h) if self.corners else pixels
        self.boxes += 1
        self.fractions += all(0 <= value <= 1 for value in written) and max(written) > 0
        if fits(x + written[2], y + written[3]) if self.corners else fits(w, h):
            self.other += 1
            self.only_other += not fits(x + w, y + h)

    def other_form(self) -> str:
        """In which other form most boxes seem to be written, in words; "" for none."""
        read, other = "x, y, w, h", "x1, y1, x2, y2"
        usual = self.only_other >= self.boxes / 2
        if self.corners:
            read, other = other, read
            usual = self.only_other > self.boxes / 2  # a few boxes with swapped corners do not make another form
        if 2 * self.fractions > self.boxes:
            found = f"fractions of the image (or YOLO's centre, width and height); write pixels as {read}"
        elif self.boxes and usual and self.other >= 0.9 * self.boxes:
            found = f"{other}; write them as {read}"
        else:
            return ""
        return f"boxes are read as {read} in pixels, but most look like {found}"


class Unusable(ValueError):
    """Why a part of a data file cannot be used; Report.catching() makes a finding of it as it stands."""


class Finding(NamedTuple):
    """One line of report.csv."""
    kind: str        # such as "box dropped"
    file: str        # the image or the annotation file, with the place in the file where there is one
    box: str | None  # "#3", or None where it is not about one box
    reason: str

    def __str__(self) -> str:
        place = f"{self.file} {self.box}" if self.box else self.file
        return one_line(f"{place}: {self.reason}")


class Report:
    """Collects the findings of one split."""

    def __init__(self):
        self.counts = Counter()               # findings by kind
        self.findings: list[Finding] = []     # those that are kept, in order
        self.class_names: set[str] = set()    # all that the annotations hold, known or not
        self.changed_names: set[str] = set()  # those that are not read as written
        self.forms = BoxForms()               # what the numbers of the boxes look like

    def add(self, kind: str, file: str, reason: str, *, box: str | None = None) -> None:
        """Counts a finding and keeps it, unless there are very many of its kind."""
        self.counts[kind] += 1
        if self.counts[kind] <= KEPT_FINDINGS:
            reason = reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]} .."
            self.findings.append(Finding(kind, file, box=box, reason=reason))

    def adopt(self, other: Report, *, without: set[str]) -> None:
        """Takes over what another report holds, but for findings in the files of `without`."""
        for finding in other.findings:
            if finding.file not in without:
                self.add(finding.kind, finding.file, finding.reason, box=finding.box)
        self.class_names |= other.class_names
        self.changed_names |= other.changed_names
        self.forms.corners = other.forms.corners

    @contextlib.contextmanager
    def catching(self, kind: str, file: str, *, box: str | None = None) -> Iterator[None]:
        """Makes a finding of any exception but those that speak to the user: data files may hold anything."""
        try:
            yield
        except (SSDError, MemoryError):
            raise
        except Unusable as error:
            self.add(kind, file, str(error), box=box)
        except Exception as error:
            text = " ".join(str(error).split())[:150]
            self.add(kind, file, f"cannot be read ({type(error).__name__}: {text})", box=box)

    def class_name(self, name: str, file: str) -> str:
        """The name of a class on one line, so that tables and pictures stay in shape; a changed one is told once."""
        line = one_line(name)
        if line != name and name not in self.changed_names:
            self.changed_names.add(name)
            self.add("class name changed", file, f"{name!r} is read as '{line}'")
        return line

    @property
    def finding_count(self) -> int:
        """How many findings there are, without mere notes."""
        return sum(count for kind, count in self.counts.items() if kind not in NOTES)

    def summary(self, examples: int = 3) -> str:
        """A table as text: the count of each kind with its first few findings."""
        lines = []
        for kind, count in self.counts.items():
            note = " (a note)" if kind in NOTES else ""
            lines.append(f"{count:>7}  {kind}{note}")
            for finding in [finding for finding in self.findings if finding.kind == kind][:examples]:
                lines.append(f"{'':9}{finding}")
        return "\n".join(lines) or "no findings"

    def write_csv(self, path: str) -> None:
        """Writes kind, file, box, reason of every kept finding."""
        with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(Finding._fields)
            writer.writerows([NOT_UTF8.sub("?", field or "") for field in finding] for finding in self.findings)
            for kind, count in self.counts.items():
                if count > KEPT_FINDINGS:
                    writer.writerow((kind, "", "", f"and {count - KEPT_FINDINGS} more"))
