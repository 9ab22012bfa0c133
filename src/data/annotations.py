"""What the readers of COCO, VOC and TXT annotations share. Every fault is named. No image is decoded here:
records.finish_record() clips and normalises the boxes once the size of the decoded image is known."""
import contextlib
import os
from collections.abc import Iterator

from src.data.classes import named_classes, nearest
from src.data.records import Box, Report
from src.errors import DataError, OptionError, SSDError

MOST_NUMBERED_CLASSES = 10000  # a larger TXT class number is a misplaced coordinate


@contextlib.contextmanager
def faults_as_findings(report: Report, kind: str, source: str) -> Iterator[None]:
    """Whatever breaks the reader of one record becomes a finding of a kind; source: its file and place in the file.

    The one net under all readers: what a data file may hold has no end. Errors that already speak to the user pass.
    """
    try:
        yield
    except (SSDError, MemoryError):
        raise
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
    try:
        x, y, width, height = map(float, numbers)
    except (TypeError, ValueError):
        report.add(kind, record.source, f"#{number}", reason)
        return
    size = (width - x, height - y) if corners else (width, height)
    record.boxes.append(Box(number, name, (x, y, *size), *more))


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
        return named_classes(names) if len(names) > 1 else names
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
