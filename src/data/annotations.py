"""What the readers of COCO, VOC and TXT annotations share. Every fault is named. No image is decoded here:
records.finish_record() clips and normalises the boxes once the size of the decoded image is known."""
import contextlib
import math
import os
from collections.abc import Iterator

from src.classes import checked_classes, nearest
from src.data.records import Box, Report
from src.errors import DataError, OptionError, SSDError

MOST_NUMBERED_CLASSES = 10000  # a larger TXT class number is a misplaced coordinate
MOST_PIXELS = 1e9              # no image is so wide; areas and sums of larger coordinates leave the range of floats


class UnusableRecord(ValueError):
    """What faults_as_findings reports as it stands: why one record of a data file cannot be used."""


@contextlib.contextmanager
def faults_as_findings(report: Report, kind: str, source: str) -> Iterator[None]:
    """Whatever breaks the reader of one record becomes a finding of a kind; source: its file and place in the file.

    The one net under all readers: what a data file may hold has no end. Errors that already speak to the user pass.
    """
    try:
        yield
    except (SSDError, MemoryError):
        raise
    except UnusableRecord as error:
        report.add(kind, source, None, str(error))
    except Exception as error:
        report.add(kind, source, None, f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:150]})")


class OtherClasses(DataError):
    """A file has none of the classes of a list; facts: that in words, without what to do about it."""

    def __init__(self, facts):
        super().__init__(f"{facts}; correct --classes or leave it out")
        self.facts = facts


@contextlib.contextmanager
def classes_from(origin: str) -> Iterator[None]:
    """Says where the list of classes comes from, and what to do, in the error that a file has none of them."""
    try:
        yield
    except OtherClasses as error:
        raise DataError(f"{error.facts}; {origin}") from error


def add_box(record, number, name, numbers, report, kind, reason, corners=True, *more):
    """Appends a Box to a Record, or adds a finding of a kind and reason where `numbers` are not four numbers.

    numbers: x1, y1, x2, y2, without corners x, y, w, h; more: the last fields of Box.
    """
    report.corners = corners
    try:
        x, y, width, height = map(to_number, numbers if isinstance(numbers, (list, tuple)) else ())
    except (TypeError, ValueError, OverflowError):
        report.add(kind, record.source, f"#{number}", reason)
        return
    size = (width - x, height - y) if corners else (width, height)
    if any(MOST_PIXELS < abs(value) < math.inf for value in (x, y, *size)):
        report.add(kind, record.source, f"#{number}", f"{shown(numbers)} lies beyond any image")
        return
    record.boxes.append(Box(number, report.class_name(name, record.source), (x, y, *size), *more))


def to_number(value):
    """A float from a number or its text; True is none. Raises TypeError, ValueError, OverflowError."""
    if isinstance(value, bool) or isinstance(value, str) and "_" in value:  # which Python reads as 1, and 1_0 as 10
        raise ValueError(value)
    return float(value)


def to_flag(value):
    """Whether a flag is set: of True, 1, "1", "1.0", "true" and their opposites. Raises TypeError, ValueError."""
    words = {"true": True, "yes": True, "false": False, "no": False, "": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    return value if isinstance(value, bool) else to_number(value) != 0


def shown(value, most=80):
    """A value of a data file as a message shows it: not longer than it helps."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]} .."


def image_path(image_dir, name):
    """Where an image of a name in an annotation lies; sub\\a.jpg, as Windows writes it, is looked for as sub/a.jpg too.

    Raises UnusableRecord for a name that no file can have.
    """
    if not isinstance(name, str) or not name.strip():
        raise UnusableRecord(f"its file name {shown(name)} is not text" if name or name == 0 else "it has no file name")
    try:
        bad = "\0" in name or not os.fsencode(name)
    except UnicodeEncodeError:
        bad = True
    if bad:
        raise UnusableRecord(f"no file can have the name {ascii(name)[:80]}")
    path = os.path.abspath(os.path.join(image_dir, name))
    if "\\" in name and not os.path.exists(path):
        turned = os.path.abspath(os.path.join(image_dir, name.replace("\\", "/")))
        return turned if os.path.exists(turned) else path
    return path


def add_record(records, key, record, report):
    """Adds an image under its id or path; a second one of the same key becomes a finding."""
    if key in records:
        report.add("duplicated id", record.source, None, f"image {key} belongs to {records[key].source} already")
    else:
        records[key] = record


def read_text(path):
    """The content of a text file. Raises DataError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"annotation file '{path}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"annotation file '{path}' is not text in UTF-8; save it as UTF-8") from error


def to_size(value):
    """Pixels from what an annotation says, 0 (ask the image) from anything that is no number."""
    try:
        return max(int(float(value)), 0)
    except (TypeError, ValueError, OverflowError):
        return 0


def check_folder(path, name):
    """Raises DataError unless path is a folder."""
    if not os.path.isdir(path):
        raise DataError(f"{name} '{path}' is not a folder")


def derived_classes(names, file, numbered=False):
    """The class names found in a file, or with numbered and nothing but numbers "1".."largest". Raises DataError."""
    try:
        if not names:
            raise OptionError("no class is in it")
        if numbered and all(name.isdecimal() for name in names):
            largest = max(map(int, names))
            if not 1 <= largest <= MOST_NUMBERED_CLASSES:
                raise OptionError(f"the largest class number is {largest}; they count from 1")
            return [str(number) for number in range(1, largest + 1)]
        return checked_classes(names)
    except OptionError as error:
        raise DataError(f"{file}: {error}; name the classes with --classes=[a,b]") from error


def label_records(records, classes, file, report, numbered=False):
    """Gives the boxes of records their labels -> (records, class names, their ids 1..C-1).

    classes [] = the names found; numbered: "2" is the second. A box of an unknown class becomes a finding. Raises
    DataError when all boxes are such.
    """
    found = {box.name for record in records for box in record.boxes}
    report.class_names |= found
    names = list(classes) or derived_classes(sorted(found), file, numbered)
    labels = {name: label for label, name in enumerate(names, 1)}
    if numbered:  # a number is a place in the list, unless a class has that very name
        places = {name: int(name) for name in found if name.isdecimal() and 1 <= int(name) <= len(names)}
        labels = {**places, **labels}
    if found and not found & set(labels):
        raise OtherClasses(f"none of the classes [{', '.join(names)}] is in '{file}', which has "
                           f"[{', '.join(sorted(found))}]")
    reasons = {name: unknown_class(name, names) for name in found - set(labels)}
    for record in records:
        for box in record.boxes:
            if box.name in reasons:
                report.add("unknown class", record.source, f"#{box.number}", reasons[box.name])
        record.boxes = [box._replace(label=labels[box.name]) for box in record.boxes if box.name in labels]
    return list(records), names, list(range(1, len(names) + 1))


def refuse_misspelt(classes, found):
    """Raises OptionError for a class that no annotation has while one of a similar name is left; found: names there."""
    left = sorted(found - set(classes))
    for name in classes:
        near = None if name in found else nearest(name, left)
        if near:
            raise OptionError(f"classes: no training annotation is of class '{name}', but there is '{near}'; correct "
                              f"'{name}', or take it out of the list")


def unknown_class(name, names):
    """Why a class name is unknown, in words."""
    if name == "0":
        return "class 0 was background in the model zoo; here numbers start at 1"
    near = nearest(name, names)
    return f"'{name}' is not in the list of classes" + (f"; did you mean '{near}'?" if near else "")
