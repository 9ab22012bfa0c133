"""Opens the MindRecord files of a split, converting when they are missing or stale.

A conversion is a folder <dataset>_<split>_<hash of source paths and classes> with data.mindrecord* (and .db),
ground_truth.json, report.csv and manifest.json, what it was made of. It is made aside and renamed: there whole or not.
"""
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections import namedtuple
from functools import partial

from src.data.annotations import check_folder, refuse_misspelt
from src.data.classes import checked_classes
from src.data.coco import read_coco
from src.data.convert import file_size, write_images
from src.data.records import Report
from src.data.txt import read_txt
from src.data.voc import read_voc, voc_files
from src.errors import DataError, EnvironmentFault, RankFault

SCHEMA_VERSION = 2
POLL_SECONDS = 0.5
SILENCE_SECONDS = 900  # a conversion that writes nothing for so long is taken for dead
# the options of a data set that say where it lies, its folder first, and what is in that folder
ROOTS = {"coco": (("coco_root",), "annotations/ and the image folders, or name a file and a folder by --anno_path and "
                                  "--image_dir, for validation by --val_anno_path and --val_image_dir"),
         "voc": (("voc_root",), "Annotations/, JPEGImages/ and ImageSets/Main/"),
         "other": (("image_dir", "anno_path"), "the images that the TXT names")}
# the options of one split; split_name: image folder of COCO, list of VOC, "" = the usual one; anno_path: its TXT
Place = namedtuple("Place", "coco_root instances_set voc_root image_dir anno_path split_name", defaults=[""] * 6)
# Where a split comes from. files: annotation files, the first names the split; as_annotated: COCO's protocol evaluates
# against unclipped boxes; read(classes, report) -> (records, class names, category ids)
Source = namedtuple("Source", "name files image_dir read as_annotated", defaults=(False,))


class SplitMissing(DataError):
    """The data set has no such split, and none was asked for by name."""


# An opened conversion. image_dir: what file names are relative to; files: of MindRecord; report: path of report.csv,
# summary: its short form; converted: by this call, not by an earlier one; category_ids[label - 1]: id of the class in
# ground_truth; count: images; boxes_per_class: in class order; faults: findings that are no notes
FACTS = "classes category_ids count boxes_per_class summary faults fingerprint"
Split = namedtuple("Split", f"name target image_dir files ground_truth report converted {FACTS}")


def prepare_split(split, dataset, mindrecord_dir, classes, *, strict=False, rank=0, log=print, **place):
    """Opens the MindRecord files of split "train" or "val" -> Split; rank 0 converts first when they are not usable.

    classes: names or [] = those of the annotations. place: fields of Place. Raises SplitMissing,
    DataError for data that cannot be used (with strict: for any fault), OptionError for a misspelt class,
    EnvironmentFault when nothing can be written.
    """
    classes, place, mindrecord_dir = checked_classes(classes), Place(**place), os.path.abspath(mindrecord_dir)
    check_root(dataset, place, split)
    source = SOURCES[dataset](split, place)
    try:
        os.makedirs(mindrecord_dir, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"mindrecord_dir '{mindrecord_dir}' cannot be made: {error.strerror}") from error
    wanted = {"schema": SCHEMA_VERSION, "fingerprint": fingerprint(source.files), "asked_classes": classes}
    # one made without a list of classes will do when it found the very classes that are asked for
    folders = [target_folder(source, dataset, mindrecord_dir, names) for names in (classes, [])]
    folder = next((one for one in folders if not stale(one, wanted)), folders[0])
    converted = False
    if rank:
        wait_for(folder, wanted, log)
    else:
        with locked(mindrecord_dir):
            if reason := stale(folder, wanted):
                log(f"converting {source.name} into {folder}: {reason}")
                convert(source, folder, wanted, split == "train", log)
                converted = True
    return open_split(source, folder, strict, converted, log)


def target_folder(source, dataset, mindrecord_dir, classes):
    """Where the conversion of a Source with these classes lies."""
    origin = [*(os.path.abspath(path) for path in (source.files[0], source.image_dir)), *classes]
    digest = hashlib.sha256(os.fsencode("\n".join(origin))).hexdigest()[:8]
    return os.path.join(mindrecord_dir, f"{dataset}_{source.name.replace(os.sep, '_')}_{digest}")


def check_root(dataset, place, split="train"):
    """Raises DataError unless the folder of the data set is given and there, or the places of this split are."""
    (option, *_), content = ROOTS[dataset]
    if dataset == "coco" and place.anno_path and place.image_dir and not place.coco_root:
        return  # both are named, and coco_source checks them
    if not getattr(place, option):
        hints = [f"; {one} is given, is it --dataset={name}?" for name, (options, _) in ROOTS.items() if name != dataset
                 for one in options if getattr(place, one)]
        # of COCO the places of the training split alone may be named
        error = SplitMissing if (dataset, split) == ("coco", "val") else DataError
        raise error(f"--{option} is empty; give the folder with {content}{''.join(hints[:1])}")
    check_folder(getattr(place, option), option)


def coco_source(split, place):
    """Source in a COCO tree: an annotation file and an image folder a split, each where it is named or else usual."""
    usual, prefix = place.split_name or f"{split}2017", "" if split == "train" else "val_"
    path = place.anno_path
    if not path:
        file = place.instances_set or "annotations/instances_{}.json"
        path = os.path.join(place.coco_root, file.replace("{}", usual))
    if not os.path.isfile(path):
        error = DataError if place.split_name or place.anno_path else SplitMissing
        options = "" if place.anno_path else f"--coco_root, --instances_set and --{split}_data_type, or name it by "
        raise error(f"annotation file '{path}' is missing; check {options}--{prefix}anno_path")
    image_dir = place.image_dir or os.path.join(place.coco_root, usual)
    if not os.path.isdir(image_dir):
        options = "" if place.image_dir else f"--coco_root and --{split}_data_type, or name it by "
        raise DataError(f"image folder '{image_dir}' is not a folder; check {options}--{prefix}image_dir")
    name = split if place.anno_path and not place.split_name else usual
    return Source(name, [path], image_dir, partial(read_coco, path, image_dir), as_annotated=True)


def voc_source(split, place):
    """Source in a VOC tree: a list or a folder of XML files a split; test stands in for a val that is not there."""
    usual = {"train": ["train"], "val": ["val", "test"]}[split]
    try:
        name, origin, files, image_dir = voc_files(place.voc_root, *([place.split_name] if place.split_name else usual))
    except DataError as error:
        raise error if place.split_name else SplitMissing(str(error)) from error
    return Source(name, [origin, *files], image_dir, partial(read_voc, place.voc_root, name))


def txt_source(split, place):
    """Source in TXT form: a file a split, one image folder."""
    option = {"train": "anno_path", "val": "val_anno_path"}[split]
    if not place.anno_path:
        raise SplitMissing(f"--{option} is empty; give the TXT file with the boxes of the {split} images"
                           f"{'' if split == 'train' else ' (train.py does without by --run_eval=False)'}")
    if not os.path.isfile(place.anno_path):
        raise DataError(f"{option} '{place.anno_path}' is missing")
    return Source(split, [place.anno_path], place.image_dir, partial(read_txt, place.anno_path, place.image_dir))


SOURCES = {"coco": coco_source, "voc": voc_source, "other": txt_source}


def fingerprint(files):
    """SHA-256 over names and bytes; a missing file or a folder counts by its name."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(os.fsencode(os.path.basename(path)) + b"\0")
        if os.path.isfile(path):
            with open(path, "rb") as file:
                digest.update(file.read())
    return digest.hexdigest()


def stale(folder, wanted):
    """Why the conversion in folder cannot be used, or "" when it can."""
    try:
        manifest = read_manifest(folder)
        if manifest["schema"] != wanted["schema"]:
            return "another version of this program wrote it"
    except (OSError, ValueError, TypeError, KeyError):
        return "its manifest is missing or broken" if os.path.isdir(folder) else "it is not there yet"
    if manifest["fingerprint"] != wanted["fingerprint"]:
        return "the annotations have changed"
    if wanted["asked_classes"] not in (manifest["asked_classes"], manifest["classes"]):
        return "it has other classes"
    for name, size in manifest["files"].items():
        if file_size(os.path.join(folder, name)) != size:
            return f"{name} is missing or has another size"
    for path, size in manifest["left_out"].items():
        if file_size(path) != size:
            return f"'{path}' could not be used and has changed since"
    return ""


def convert(source, folder, wanted, training, log):
    """Converts a Source into folder; after an error nothing is left."""
    report, temporary = Report(), folder + ".tmp"
    records, classes, category_ids = source.read(wanted["asked_classes"], report)
    if training:
        refuse_misspelt(classes, report.class_names)
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a conversion that was killed
        os.makedirs(temporary)
        facts = write_images(records, temporary, source.image_dir, classes, category_ids, source.as_annotated, report)
        for name, count in zip(classes, facts["boxes_per_class"]):
            if training and count == 0:
                report.add("class without boxes", source.files[0], None, f"no training box is of class '{name}'")
        report.judge_boxes(source.files[0])
        log(f"{source.name}: {facts['count']} images, {sum(facts['boxes_per_class'])} boxes, {report.faults} fault(s)")
        if report.counts:
            log(report.summary())
        report.write_csv(os.path.join(temporary, "report.csv"))
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(temporary)}
        manifest = {**wanted, **facts, "classes": classes, "category_ids": category_ids, "faults": report.faults,
                    "summary": report.summary(), "files": sizes}
        with open(os.path.join(temporary, "manifest.json"), "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(temporary, folder)
    except OSError as error:
        raise EnvironmentFault(f"'{temporary}' cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def open_split(source, folder, strict, converted, log):
    """The Split in a folder that is not stale. Raises DataError when its data has faults and strict is set."""
    manifest, report = read_manifest(folder), os.path.join(folder, "report.csv")
    if strict and manifest["faults"]:
        if not converted:  # else the summary has just been shown
            log(manifest["summary"])
        raise DataError(f"--strict=True and the data has {manifest['faults']} fault(s), listed in {report}")
    files = [os.path.join(folder, file) for file in sorted(manifest["files"]) if file + ".db" in manifest["files"]]
    return Split(source.name, folder, source.image_dir, files, os.path.join(folder, "ground_truth.json"), report,
                 converted, *(manifest[key] for key in FACTS.split()))


@contextlib.contextmanager
def locked(folder):
    """One process at a time converts into folder; a file system without locks lets all pass."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def wait_for(folder, wanted, log):
    """Returns when rank 0 has converted; raises RankFault when it has written nothing for a long time.

    When rank 0 fails, mpirun and msrun end the processes that wait.
    """
    alive = time.time()
    if stale(folder, wanted):
        log(f"waiting for rank 0 to convert {folder}")
    while stale(folder, wanted):
        with contextlib.suppress(OSError):
            alive = max([alive, *(entry.stat().st_mtime for entry in os.scandir(folder + ".tmp"))])
        if time.time() - alive > SILENCE_SECONDS:
            raise RankFault(f"rank 0 has written nothing towards {folder} for {SILENCE_SECONDS} seconds; all "
                            "machines must share mindrecord_dir, or run prepare_data.py on each of them first")
        time.sleep(POLL_SECONDS)


def describe_split(split):
    """What two conversions of the same data have in common, as a short text."""
    return f"{split.count} images, {len(split.classes)} classes, fingerprint {split.fingerprint[:12]}"


def read_manifest(folder):
    """What a conversion says about itself."""
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
        return json.load(file)
