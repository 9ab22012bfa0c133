"""The formats of annotations: how --dataset reads each, and how --data finds it."""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from src.data.annotations import Place, SplitFiles
from src.data.coco import coco_split
from src.data.finders import find_coco, find_labelme, find_txt, find_voc, find_yolo
from src.data.foreign import why_unknown
from src.data.found import Found
from src.data.images import IMAGE_ENDINGS
from src.data.labelme import labelme_split
from src.data.layouts import Tree, list_tree, what_is_there
from src.data.parts import take_part
from src.data.txt import txt_split
from src.data.voc import voc_split
from src.data.yolo import yolo_split
from src.errors import DataError, OptionError


class Format(NamedTuple):
    """A format of annotations."""
    split: Callable[[str, Place], SplitFiles]  # where a split lies
    find: Callable[[Tree], Found | None]       # what of it lies in a folder


# What --dataset may be. A new format is a file like txt.py, a function in finders.py and a line here.
DATA_FORMATS = {"coco": Format(coco_split, find_coco), "voc": Format(voc_split, find_voc),
                "other": Format(txt_split, find_txt), "yolo": Format(yolo_split, find_yolo),
                "labelme": Format(labelme_split, find_labelme)}


def split_files(split: str, dataset: str, *, val_share: float = 0.0, split_seed: int = 1, **place: str) -> SplitFiles:
    """Where split "train" or "val" lies. place: fields of Place.

    val_share: of the training images that are for validation; 0 = validation images have a place of their own.
    """
    read = DATA_FORMATS[dataset].split
    if not val_share:
        return read(split, Place(**place))
    return take_part(read("train", Place(**place)), split, share=val_share, seed=split_seed)


def identify(path: str, dataset: str = "") -> Found:
    """What lies in a folder or file. dataset: the format it must have, "" for any.

    Raises DataError where it is nothing known, or two formats at once, OptionError where it is not that format.
    """
    tree = list_tree(path)
    names = [dataset] if dataset else list(DATA_FORMATS)
    found = list(filter(None, (DATA_FORMATS[name].find(tree) for name in names)))
    if found and not tree.files(*IMAGE_ENDINGS):
        raise DataError(f"--data={path} holds {found[0].words}, but no image; give the folder that holds both")
    if len(found) == 1:
        return found[0]
    if dataset:
        other = identify(path)
        raise OptionError(f"--data={path} is {other.words}, that is --dataset={other.dataset}, but --dataset={dataset} "
                          "is given; leave it out")
    if found:
        kinds, ways = (join.join(texts) for join, texts in ((" and ", [data.words for data in found]),
                                                            (" or ", [data.typed() for data in found])))
        raise DataError(f"'{path}' holds {kinds}; say which of them: {ways}")
    reason = why_unknown(tree) or what_is_there(tree)
    raise DataError(f"--data={path} holds no annotations of a known form (docs/data.md says which are): {reason}")
