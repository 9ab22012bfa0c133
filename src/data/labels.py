"""Class names of annotations -> labels: the names found or asked for, and what to say where they do not fit."""
from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

from src.classes import checked_classes, nearest
from src.data.findings import Report
from src.data.records import Annotations, Record
from src.errors import DataError, OptionError
from src.text import listed

MAX_NUMBERED_CLASSES = 10000  # a larger class number is a misplaced coordinate


class OtherClasses(DataError):
    """A file has none of the classes of a list; facts: that in words, without what to do about it."""

    def __init__(self, facts: str):
        super().__init__(f"{facts}; correct --classes or leave it out")
        self.facts = facts


@contextlib.contextmanager
def classes_from(origin: str) -> Iterator[None]:
    """Says in an OtherClasses error where the list of classes comes from, and what to do."""
    try:
        yield
    except OtherClasses as error:
        raise DataError(f"{error.facts}; {origin}") from error


def label_records(records: Collection[Record], classes: list[str], *, file: str, report: Report,
                  numbered: bool = False) -> Annotations:
    """Gives the boxes of records their labels; a box of an unknown class becomes a finding.

    classes: names, or [] = those found; numbered: "2" is the second of them. Raises DataError when there are none,
    OtherClasses when no box is of one of them.
    """
    found = {box.name for record in records for box in record.boxes}
    report.class_names |= found
    if report.findings and not found and not classes:
        raise DataError(f"'{file}' has no usable box: {report.findings[0]}")
    names = list(classes) or derived_classes(sorted(found), file, numbered=numbered)
    labels = {name: label for label, name in enumerate(names, 1)}
    if numbered:  # a number is a place in the list, unless a class has that very name
        places = {name: int(name) for name in found if name.isdecimal() and 1 <= int(name) <= len(names)}
        labels = {**places, **labels}
    if found and found.isdisjoint(labels):
        raise OtherClasses(f"none of the classes [{listed(names)}] is in '{file}', which has "
                           f"[{listed(sorted(found))}]")
    reasons = {name: unknown_class(name, names) for name in found - set(labels)}
    for record in records:
        for box in record.boxes:
            if box.name in reasons:
                report.add("unknown class", record.source, reasons[box.name], box=f"#{box.number}")
        record.boxes = [box._replace(label=labels[box.name]) for box in record.boxes if box.name in labels]
    return Annotations(list(records), names, list(range(1, len(names) + 1)))


def derived_classes(found: list[str], file: str, *, numbered: bool = False) -> list[str]:
    """The classes where no list is given: the names found, or with `numbered` "1".."largest" where all are numbers."""
    try:
        if not found:
            raise OptionError("no class is in it")
        if numbered and all(name.isdecimal() for name in found):
            largest = max(map(int, found))
            if not 1 <= largest <= MAX_NUMBERED_CLASSES:
                raise OptionError(f"the largest class number is {largest}; they count from 1")
            return [str(number) for number in range(1, largest + 1)]
        return checked_classes(found)
    except OptionError as error:
        raise DataError(f"{file}: {error}; name the classes with --classes=[a,b]") from error


def unknown_class(name: str, names: list[str]) -> str:
    """Why a class name is unknown, in words."""
    if name == "0":
        return "class 0 was background in the model zoo; here numbers start at 1"
    near = nearest(name, names)
    hint = f"; did you mean '{near}'?" if near else ""
    return f"'{name}' is not in the list of classes{hint}"


def refuse_misspelt(classes: list[str], found: set[str]) -> None:
    """Raises OptionError for a class that no annotation has while one of a similar name is left; found: names there."""
    left = sorted(found - set(classes))
    for name in classes:
        near = None if name in found else nearest(name, left)
        if near:
            raise OptionError(f"classes: no training annotation is of class '{name}', but there is '{near}'; correct "
                              f"'{name}', or take it out of the list")
