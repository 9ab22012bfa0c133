"""TXT annotations of the data set `other` -> records."""
import os

from src.data.annotations import add_box, add_record, check_folder, label_records, read_text
from src.data.records import Record
from src.errors import DataError


def read_txt(file, image_dir, classes, report):
    """`path x1,y1,x2,y2,class ...`, one image a line -> (records, class names, ids 1..C-1).

    Pixels, x first. Tabs separate the fields of a line that has one, spaces otherwise. classes [] = the names found,
    sorted, or "1".."largest" when all are numbers. Number i means the i-th class: 0, background in the model zoo, is an
    unknown class. Image ids are 1, 2, .. in the order of the lines. Raises DataError when nothing can be used.
    """
    check_folder(image_dir, "image_dir")
    records = {}
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        fields = [field.strip() for field in (line.strip(" ").split("\t") if "\t" in line else line.split())]
        record = Record(len(records) + 1, os.path.abspath(os.path.join(image_dir, fields[0])), 0, 0, f"{file}:{number}",
                        [])
        for index, field in enumerate(fields[1:], 1):
            *corners, name = (part.strip() for part in field.split(","))
            hint = "" if "," in field else "; a path with spaces needs tabs between the fields"
            if field:
                add_box(record, index, name, corners if name else (), report, "bad line",
                        f"'{field}' is not x1,y1,x2,y2,class{hint}")
        add_record(records, record.path, record, report)
    if not records:
        raise DataError(f"annotation file '{file}' is empty; each line is 'image.jpg x1,y1,x2,y2,class ...'")
    return label_records(records.values(), classes, file, report, numbered=True)
