"""The data formats that --dataset names. A new one is a file like txt.py and an entry in DATA_FORMATS."""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from src.data.annotations import Place, SplitFiles, SplitMissing, require_folder
from src.data.coco import coco_split
from src.data.txt import txt_split
from src.data.voc import voc_split
from src.errors import DataError


class DataFormat(NamedTuple):
    """How the splits of a format are found; the SplitFiles say how they are read."""
    split: Callable[[str, Place], SplitFiles]  # where "train" or "val" lies
    options: tuple[str, ...]                   # that say where the data set lies, its folder first
    content: str                               # what is in that folder, in words


DATA_FORMATS = {
    "coco": DataFormat(coco_split, ("coco_root",),
                       "annotations/ and the image folders, or name a file and a folder by --anno_path and "
                       "--image_dir, for validation by --val_anno_path and --val_image_dir"),
    "voc": DataFormat(voc_split, ("voc_root",), "Annotations/, JPEGImages/ and ImageSets/Main/"),
    "other": DataFormat(txt_split, ("image_dir", "anno_path"), "the images that the TXT names"),
}


def find_split(split: str, dataset: str, place: Place) -> SplitFiles:
    """Where the split "train" or "val" of a data set lies. Raises DataError, SplitMissing for one that is not there."""
    data_format = DATA_FORMATS[dataset]
    folder = data_format.options[0]
    if getattr(place, folder):
        require_folder(getattr(place, folder), folder)
    elif not (dataset == "coco" and place.anno_path and place.image_dir):  # COCO's may both be named instead
        # of COCO the places of the training split alone may be named
        error = SplitMissing if (dataset, split) == ("coco", "val") else DataError
        raise error(f"--{folder} is empty; give the folder with {data_format.content}{guess_format(dataset, place)}")
    return data_format.split(split, place)


def guess_format(dataset: str, place: Place) -> str:
    """The end of an error message: the format whose option is given instead, "" for none."""
    for name, data_format in DATA_FORMATS.items():
        for option in data_format.options:
            if name != dataset and getattr(place, option):
                return f"; {option} is given, is it --dataset={name}?"
    return ""
