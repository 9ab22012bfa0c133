"""TXT annotations of the data set `other` -> records."""
import itertools
import os

from src.data.annotations import add_box, check_folder, faults_as_findings, image_path, label_records, read_text
from src.data.records import Record, visible
from src.data.txt_fields import class_of, is_box, is_image, is_number, looks_like, split_line
from src.errors import DataError

BAD = "bad line"
FORM = "each line is 'image.jpg x1,y1,x2,y2,class ...' in pixels, as in 'a.jpg 10,20,110,220,cat 5,5,50,60,dog'"
TABS = "a path with spaces needs tabs between the fields"


def read_txt(file, image_dir, classes, report):
    """`path x1,y1,x2,y2,class ...`, one image a line -> (records, class names, ids 1..C-1).

    Pixels, x first. Tabs separate the fields of a line that has one, spaces otherwise. Several lines of one image count
    as one. classes [] = the names found, sorted, or "1".."largest" when all are numbers. Number i means the i-th class:
    0, background in the model zoo, is an unknown class. Image ids are 1, 2, .. in the order of the lines. Raises
    DataError when nothing can be used.
    """
    check_folder(image_dir, "image_dir")
    lines = {number: line for number, line in enumerate(read_text(file).split("\n"), 1) if line.strip()}
    if not lines:
        raise DataError(f"annotation file '{file}' is empty; {FORM}")
    records, before = {}, len(report.findings)
    for number, line in lines.items():
        with faults_as_findings(report, BAD, f"{file}:{number}"):
            for record in read_line(line, f"{file}:{number}", image_dir, classes=classes, report=report):
                merge(records, record, report)
    if not any(record.boxes for record in records.values()):
        check_without_boxes(file, lines, report.findings[before:before + 1], classes=classes)
    return label_records(records.values(), classes, file, report, numbered=True)


def check_without_boxes(file, lines, findings, *, classes):
    """Raises DataError for a file without a box, unless it has no faults and its classes are given; lines by number."""
    for finding in findings:
        number = int(finding.file.rpartition(":")[2])
        raise DataError(visible(f"annotation file '{file}' has no usable box; line {number}, '{short(lines[number])}': "
                                f"{finding.reason}; {FORM}"))
    if not classes:
        number, line = next(iter(lines.items()))
        raise DataError(f"{file}: no class is in it, as no line has a box; line {number} is '{short(line)}'; {FORM}; "
                        "where no image shall have a box, name the classes with --classes=[a,b]")


def short(line):
    """A line as a message shows it."""
    return visible(f"{line.strip()[:80]}{' ..' if len(line.strip()) > 80 else ''}")


def merge(records, record, report):
    """Adds a Record under its path, or its boxes to the one there is, numbered on; twins become findings."""
    first = records.setdefault(record.path, record)
    if first is record:
        record.image_id = len(records)
        return
    known = {(box.name, box.pixels) for box in first.boxes}
    last = max((box.number for box in first.boxes), default=0)
    for box in record.boxes:
        if (box.name, box.pixels) in known:
            report.add("duplicated box", record.source, f"#{box.number}", f"it is in {first.source} already")
        else:
            first.boxes.append(box._replace(number=last + box.number))


def read_line(line, source, image_dir, *, classes, report):
    """A line -> its Records, one as a rule, none with a finding where it cannot be used."""
    def exists(path):
        return os.path.exists(image_path(image_dir, path))

    images = split_images(*split_line(line), exists)
    if reason := why_unusable(line, images, exists):
        report.add(BAD, source, None, f"{reason}; line left out")
        return []
    if len(images) > 1:
        names = ", ".join(f"'{path}'" for path, _ in images)
        report.add(BAD, source, None, f"it holds the images {names}, of which each counts as a line of its own")
    for path, _ in images:
        if " " in path and "\t" not in line and not exists(path):
            report.add(BAD, source, None, f"there is no image '{path}'; {TABS}")
    records = [Record(0, image_path(image_dir, path), 0, 0, source, []) for path, _ in images]
    for record, (_, found) in zip(records, images):
        for index, field in enumerate(found, 1):
            add_field(record, index, field, classes=classes, report=report)
    return records


def split_images(head, fields, exists):
    """The parts of a path and the fields behind it -> [(path, fields)], several where lines have run together.

    exists: whether there is an image of a name, for paths with spaces.
    """
    images = [split_head(head, exists)]
    for boxes, run in itertools.groupby(fields, is_box):
        run = list(run)
        if not boxes and any(map(is_image, run)):
            images.append(split_head([f"{part} " for part in run], exists))
        else:
            images[-1][1].extend(run)
    return images


def split_head(head, exists):
    """The parts before the boxes, with their spaces -> (path, the parts that do not belong to it).

    The path ends with the first ending of an image, unless all of it is the name of a file.
    """
    whole = "".join(head).strip()
    if len(head) < 2 or exists(whole):
        return whole, []
    size = next((size for size, part in enumerate(head, 1) if is_image(part.strip())), 1)
    return "".join(head[:size]).strip(), [part.strip() for part in head[size:]]


def why_unusable(line, images, exists):
    """Why nothing of a line can be used, "" if something can."""
    fields = [field for _, found in images for field in found]
    for part in filter(is_image, [*fields, *(path for path, _ in images[1:] if is_number(path.split(",")[0]))]):
        return f"'{part}' ends like an image where a box should be, as if two lines had run together"
    if not images[0][0]:
        return "there is no image in front of the boxes"
    odd = [path for path, _ in images if not is_image(path) and not exists(path)]
    if (odd or fields and not any(map(is_box, fields))) and (form := looks_like(line)):
        return f"it looks like {form}"
    return f"'{odd[0]}' is neither a file nor has it the ending of an image; {TABS}" if odd else ""


def add_field(record, number, field, *, classes, report):
    """Adds the box of a field to a Record, or a finding."""
    *corners, name = (part.strip() for part in field.split(","))
    hint = "" if "," in field else f"; {TABS}"
    if len(corners) == 4 and all(map(is_number, [*corners[1:], name])) and not is_number(corners[0]):
        hint = "; the class comes last"
    elif len(corners) == 3 and all(map(is_number, [*corners, name])):
        hint = "; it has no class"
    label = class_of(name, classes)
    if is_box(field) and label is None:
        report.add("unknown class", record.source, f"#{number}", f"{name} is not a class; numbers count from 1")
    else:
        add_box(record, number, label, corners if name else (), report, BAD,
                f"'{field}' is not x1,y1,x2,y2,class{hint}")
