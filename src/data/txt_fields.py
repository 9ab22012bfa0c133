"""The parts of a TXT line `path x1,y1,x2,y2,class ...`, and what a line in another form looks like."""
from __future__ import annotations

import re

from src.data.images import IMAGE_ENDINGS

WHOLE_NUMBER = re.compile(r"\+?(\d{1,19})(\.0*)?")  # of digits of any script
NUMERIC = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


def is_number(text: str) -> bool:
    """True for what Python reads as a number, without its 1_000."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def is_box(field: str) -> bool:
    """True for four numbers and a class, joined by commas."""
    parts = [part.strip() for part in field.split(",")]
    return len(parts) == 5 and all(parts) and all(map(is_number, parts[:4]))


def is_image(field: str) -> bool:
    """True for a name with the ending of an image."""
    return field.lower().endswith(IMAGE_ENDINGS)


def split_line(line: str) -> tuple[list[str], list[str]]:
    """A line -> the parts of its path with the spaces behind them, one part between tabs, and the fields behind it."""
    line = line.strip("\r\n ").lstrip()
    path, *fields = (field.strip() for field in line.split("\t"))
    if "\t" in line and not any(map(is_box, path.split())):
        return [path], [part for field in fields if field for part in split_field(field)]
    fields = join_chains(line.split())
    start = next((index for index, field in enumerate(fields) if is_box(field)), len(fields))
    return re.findall(r"\S+\s*", line)[:start], fields[start:]


def split_field(field: str) -> list[str]:
    """What stands between two tabs: one field, unless it is several boxes with spaces between them."""
    parts = join_chains(field.split())
    return parts if not is_box(field) and all(map(is_box, parts)) else [field]


def join_chains(parts: list[str]) -> list[str]:
    """Parts without spaces -> fields. `10, 20, 30, 40, cat` is one: parts that commas chain, where they make a box."""
    chains = []
    for part in parts:
        chained = chains and (chains[-1][-1].endswith(",") or part.startswith(","))
        if chained and not is_box(part) and not is_box(chains[-1][-1]):
            chains[-1].append(part)
        else:
            chains.append([part])
    fields = []
    for chain in chains:
        field = "".join(chain)
        fields += [field] if is_box(field) else chain
    return fields


def class_of(name: str, classes: list[str]) -> str | None:
    """A class as it is looked up: 01 and 1.0 are 1, a name in classes stays; None for a number that cannot be one."""
    if name in classes:
        return name
    if match := WHOLE_NUMBER.fullmatch(name):
        return str(int(match[1]))
    return None if NUMERIC.fullmatch(name) or (name.isdigit() and not name.isalpha()) else name


def looks_like(line: str) -> str:
    """The form of a line that is not as it should be, "" where it is not a known one."""
    line = line.strip()
    parts = line.split()
    behind_path = parts if is_number(parts[0]) else parts[1:]
    numbers = [float(part) for part in behind_path if is_number(part)]
    count = len(numbers)
    yolo = count > 0 and count % 5 == 0 and all(0 <= value <= 1 for index, value in enumerate(numbers) if index % 5)
    opencv = count > 1 and count == 1 + 4 * numbers[0]
    forms = {
        "JSON; COCO's is read by --dataset=coco": line[0] in "{[",
        "XML; VOC's is read by --dataset=voc": line[0] == "<",
        "fields with semicolons between them": ";" in line,
        "a table with commas alone; a space belongs between path and boxes": "," in parts[0] and line.count(",") > 3,
        "YOLO's class, centre, width and height in fractions of the image": yolo,
        "OpenCV's number of boxes, then x, y, width and height": opencv,
        "numbers with spaces between them; commas join the five parts of a box": count > 3,
        "a header": len(parts) > 1 and not any(map(str.isdigit, line)) and not any(map(is_image, parts))}
    return next((form for form, fits in forms.items() if fits), "")
