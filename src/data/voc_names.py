"""Which names belong together where each image has a file of annotations: a line of VOC's lists, a file, an image."""
from __future__ import annotations

import os

from src.data.images import IMAGE_ENDINGS
from src.files import names_in

LABELS = ("-1", "0", "1", "+1")  # the second column of VOC's lists of one class


def names_with(folder: str, ending: str | tuple[str, ...]) -> list[str]:
    """The names in a folder with an ending, or one of several, in any case, sorted; none where it is absent."""
    return [name for name in sorted(names_in(folder)) if name.lower().endswith(ending)]


def by_stem(names: list[str]) -> dict[str, str]:
    """Names of files by what stands before their ending."""
    return {os.path.splitext(name)[0]: name for name in names}


def without_ending(name: str) -> str:
    """A path with / instead of \\ and without the ending of an image or of an XML file."""
    name = name.replace("\\", "/")
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in (".xml", *IMAGE_ENDINGS) else name


def stem_of(name: str) -> str:
    """The last part of a path without such an ending."""
    return os.path.basename(without_ending(name))


def listed_file(line: str, folder: str, known: dict[str, str]) -> str:
    """The XML file that a line of a list means. known: the XML files in folder by their stems.

    A line is the name of an image: alone, before a label, or beside the name of its XML file. The name may have an
    ending. A path counts as it is where it leads to an XML file in folder, and by its stem otherwise.
    """
    names = [line]  # what the name of the image may be, the longest first
    if "\t" in line:
        names.append(line.split("\t")[0])
    while True:
        first, _, last = names[-1].rpartition(" ")
        if not first or (last not in LABELS and stem_of(last) != stem_of(first)):
            break
        names.append(first.rstrip())
    for written in names:
        for name in (written.replace("\\", "/"), without_ending(written)):
            path = os.path.join(folder, f"{name}.xml")
            if "/" in name and os.path.isfile(path):
                return path
            if os.path.basename(name) in known:
                return os.path.join(folder, known[os.path.basename(name)])
    return os.path.join(folder, f"{stem_of(names[-1])}.xml")


class ImageFolder:
    """The images of a folder, found by name for files of annotations: with any known ending in any case, or without.

    owners: the files of annotations by their stems; tag: where in such a file the name of its image is written.
    """

    def __init__(self, folder: str, owners: dict[str, str], tag: str):
        self.folder, self.owners, self.tag = folder, owners, tag
        self.names = set(os.listdir(folder))
        self.images: dict[str, list[str]] = {}  # names of images by stem
        for ending in (*IMAGE_ENDINGS, ""):  # of several images with one stem the usual ending comes first
            for name in sorted(self.names):
                if name.lower().endswith(ending):
                    self.images.setdefault(name[:len(name) - len(ending)], []).append(name)

    def find(self, stem: str, written: str) -> tuple[str | None, str]:
        """The image of annotation file `stem`, which says `written` -> (name, what is odd about it or "").

        The name of that file counts before what it says. Name None: what it says is the image of another such file.
        """
        own = self.images.get(stem, [])
        if written in own or (written in self.names and os.path.splitext(written)[0] == stem):
            return written, ""
        if not own:
            return self.find_other(stem, written)
        same = [name for name in own if name.lower() == written.lower()]
        name = (same or own)[0]
        differs = stem.lower() not in (written.lower(), stem_of(written).lower()) or written in self.names
        if written and differs:
            return name, f"{self.tag} says '{written}'; '{name}', named as the annotation file, is taken"
        if len(own) > 1 and not same:
            return name, f"it could be {' or '.join(own)}; '{name}' is taken"
        return name, ""

    def find_other(self, stem: str, written: str) -> tuple[str | None, str]:
        """find() where no image is named as that file: what it says counts, unless another such file is named so."""
        others = [written] if written in self.names else self.images.get(stem_of(written), [])
        if not others:
            return f"{stem}.jpg", ""
        image = others[0]
        owner = self.owners.get(image) or self.owners.get(os.path.splitext(image)[0])
        if owner:
            return None, f"{self.tag} says '{image}', which belongs to {owner}; image left out"
        return image, ""
