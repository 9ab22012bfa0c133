"""COCO and VOC detection metrics from plain lists: the ground truth as a COCO dict, detections as COCO result dicts.

Boxes are x, y, w, h in pixels here. Every image of the ground truth counts, with detections or without.
"""
from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from src.errors import DataError, EnvironmentFault
from src.files import write_atomic
from src.text import one_line

COCO_MEANINGS = {
    "AP": "IoU .50:.95", "AP50": "IoU .50", "AP75": "IoU .75", "APs": "small, area below 32x32",
    "APm": "medium, 32x32 to 96x96", "APl": "large, above 96x96", "AR1": "1 detection an image",
    "AR10": "10 detections an image", "AR100": "100 detections an image", "ARs": "small, area below 32x32",
    "ARm": "medium, 32x32 to 96x96", "ARl": "large, above 96x96"}
COCO_NAMES = tuple(COCO_MEANINGS)
VOC_MEANINGS = {"mAP_11point": "mean over classes, 11-point rule of VOC 2007",
                "mAP_area": "mean over classes, area under the curve (VOC 2010 and later)"}
MAX_DETECTIONS = 100  # of a class in an image that the COCO protocol counts (maxDets)
ENGINES = {"hotcoco": ("hotcoco", "hotcoco"), "pycocotools": ("pycocotools.coco", "pycocotools.cocoeval")}


class Evaluated(NamedTuple):
    """What the COCO box protocol measured on a split; classes in the order of the data."""
    classes: list[str]
    boxes: list[int]         # [C] true ones that count
    stats: list[float]       # as COCO_NAMES
    precision: np.ndarray    # [10, 101, C, 4] IoU .50, .55, .. .95; recall 0, .01, .. 1; any size, s, m, l; -1: none
    engine: str              # a key of ENGINES
    run: Any                 # its COCOeval

    def curves(self) -> dict[str, np.ndarray]:
        """Precision at IoU .50 over recall, {class: [101]} for the classes with a box, the best class first."""
        curves = zip(self.classes, self.precision[0, :, :, 0].T)
        return dict(sorted((item for item in curves if item[1].max() > -1), key=lambda item: -item[1].mean()))

    def metrics(self) -> dict:
        """{name: value for COCO_NAMES} 0..1, -1 where no ground truth is of that size (as pycocotools), and
        per_class: {class: {"AP", "AP50", "boxes"}}, AP None for a class without ground truth."""
        per_class = {}
        for name, boxes, means in zip(self.classes, self.boxes, self.precision[..., 0].mean(axis=1).T.tolist()):
            exists = means[0] >= 0  # else all of the means [10] by IoU are -1
            per_class[name] = {"AP": float(np.mean(means)) if exists else None, "AP50": means[0] if exists else None,
                               "boxes": boxes}
        return {**dict(zip(COCO_NAMES, self.stats)), "per_class": per_class}


def evaluate_boxes(ground_truth: dict, detections: list[dict], engine: str = "hotcoco") -> Evaluated:
    """Runs the official COCO box protocol.

    ground_truth: COCO dict; a crowd or difficult box need not be found and does not count. detections: list of
    {image_id, category_id, bbox [x, y, w, h] in pixels, score}. engine: hotcoco, or pycocotools (slower, the same
    numbers). Raises DataError for a detection in an unknown image, EnvironmentFault when the engine cannot be used.
    """
    with garbage_collector_off():
        truth, detections = clean(ground_truth, detections)
        run = run_engine(truth, detections, engine)
    names = [category["name"] for category in truth["categories"]]  # as the engine has them
    classes = [category["name"] for category in ground_truth["categories"]]
    order = [names.index(name) for name in classes]
    counts = Counter(item["category_id"] for item in truth["annotations"] if not item["iscrowd"])
    boxes = [counts[truth["categories"][index]["id"]] for index in order]
    return Evaluated(classes, boxes, list(map(float, run.stats)), run.eval["precision"][..., 2][:, :, order], engine,
                     run)


def voc_metrics(ground_truth: dict, detections: list[dict], iou: float = 0.5) -> dict:
    """Average precision of the PASCAL VOC devkit (VOCevaldet.m), by both of its rules.

    ground_truth, detections: as for evaluate_boxes; an annotation may carry difficult: 1. iou: a detection matches from
    this overlap on. The devkit's corners name the first and the last pixel, so a side counts one pixel more than
    w = xmax - xmin; rafaelpadilla/review_object_detection_metrics computes the same.
    Returns mAP_11point, mAP_area (means over the classes with a box that is not difficult, -1 without any) and
    per_class: {class: {"AP_11point", "AP_area", "boxes"}}, AP None for a class without such a box.
    """
    ground_truth, detections = clean(ground_truth, detections)
    truth, found = group_by("category_id", ground_truth["annotations"]), group_by("category_id", detections)
    per_class = {}
    for category in ground_truth["categories"]:
        boxes = sum(not item["difficult"] for item in truth[category["id"]])
        hits = match_class(truth[category["id"]], found[category["id"]], iou)       # [D]
        right = np.cumsum(hits)
        precision, recall = right / np.arange(1, len(hits) + 1), right / max(boxes, 1)
        per_class[category["name"]] = {"AP_11point": eleven_point_ap(precision, recall) if boxes else None,
                                       "AP_area": area_ap(precision, recall) if boxes else None, "boxes": boxes}
    present = [entry for entry in per_class.values() if entry["boxes"]]
    means = {f"m{name}": float(np.mean([entry[name] for entry in present])) if present else -1.0
             for name in ("AP_11point", "AP_area")}
    return {**means, "per_class": per_class}


def format_metrics(metrics: dict) -> str:
    """A table for the terminal: the overall numbers, then the classes, best first."""
    meanings, columns = COCO_MEANINGS, ("AP", "AP50")
    if "AR100" not in metrics:
        meanings, columns = {**VOC_MEANINGS, **COCO_MEANINGS}, ("AP_11point", "AP_area")
    lines = [f"{name:<11} {format_number(metrics[name])}   {meaning}" for name, meaning in meanings.items()
             if name in metrics]
    classes = [(one_line(name), *(entry[column] for column in columns), entry["boxes"])
               for name, entry in metrics["per_class"].items()]
    classes.sort(key=lambda row: (row[1] is None, -(row[1] or 0)))  # those without ground truth come last
    width = min(max(len(name) for name in ("class", *(row[0] for row in classes))), 40)
    lines += ["", f"{'class':<{width}} {'boxes':>7} {columns[0]:>10} {columns[1]:>10}"]
    lines += [f"{name[:width]:<{width}} {boxes:>7} {format_number(first):>10} {format_number(second):>10}"
              for name, first, second, boxes in classes]
    return "\n".join(lines)


def format_number(value: float | None) -> str:
    """A metric with four digits; '-' for one that does not exist (None, or -1 by COCO's convention)."""
    return "     -" if value is None or value < 0 else f"{value:6.4f}"


def describe_evaluation(dataset: str, *, split_name: str, images: int, meta: dict) -> dict:
    """What the numbers of metrics.json were measured with, JSON-able. meta: what the model says of itself."""
    protocol = {"protocol": "VOC"} if dataset == "voc" else {"protocol": "COCO", "max_detections": MAX_DETECTIONS}
    names = ("model", "min_score", "nms_threshold", "nms_candidates", "max_boxes", "resize")
    return {**protocol, "split": split_name, "images": images, **{name: meta[name] for name in names if name in meta}}


def split_notes(ground_truth: dict, dataset: str, *, max_boxes: int, where: str = "the validation split") -> list[str]:
    """What a reader of the numbers of a split should know, one text a line: no boxes at all, classes without any,
    images with more boxes than are found or counted. max_boxes: detections per image. where: what the split is."""
    counted = [item for item in ground_truth["annotations"] if not item.get("iscrowd") and not item.get("difficult")]
    if not counted:
        return [f"{where} has no box that counts: nothing can be measured, every average is -1 or '-'"]
    notes = []
    present = {item["category_id"] for item in counted}
    absent = [one_line(category["name"]) for category in ground_truth["categories"] if category["id"] not in present]
    if absent:
        names = ", ".join(absent[:10] + ([".."] if len(absent) > 10 else []))
        notes.append(f"{len(absent)} of {len(absent) + len(present)} classes have no box in {where} and are left out "
                     f"of all averages: {names}")
    images = Counter(item["image_id"] for item in counted)
    crowded = {image for image, count in images.items() if count > max_boxes}
    rule = ""
    if dataset != "voc":
        pairs = Counter((item["image_id"], item["category_id"]) for item in counted)
        crowded |= {image for (image, _), count in pairs.items() if count > MAX_DETECTIONS}
        rule = f", and COCO's protocol counts {MAX_DETECTIONS} of a class in an image (maxDets)"
    if crowded:
        notes.append(f"{len(crowded)} image(s) have up to {max(images[image] for image in crowded)} boxes: at most "
                     f"{max_boxes} an image are found (--max_boxes){rule}; the others count as missed")
    return notes


def write_metrics(folder: str, metrics: dict, detections: list[dict]) -> None:
    """Writes metrics.json and detections.json (COCO result format) into folder, which is made if need be."""
    # what may not fit on the disk first, so that no metrics lie there without their detections
    for name, content in (("detections.json", json.dumps(detections)), ("metrics.json", json.dumps(metrics, indent=1))):
        write_atomic(os.path.join(folder, name), f"{content}\n".encode())


def clean(ground_truth: dict, detections: list[dict]) -> tuple[dict, list[dict]]:
    """A new COCO dict with only what box evaluation reads, categories by id, and the detections; ids as number_ids.

    Annotations get new ids from 1 (pycocotools takes id 0 for 'not matched') and, where absent, iscrowd and difficult 0
    and area w * h; a difficult box is a crowd too, which need not be found. Those in images that are not listed are
    left out. Raises DataError for such a detection.
    """
    image_ids, category_ids = number_ids(ground_truth["images"]), number_ids(ground_truth["categories"])
    unknown = sorted({item["image_id"] for item in detections} - image_ids.keys(), key=id_order)
    if unknown:
        raise DataError(f"detections of image id {unknown[0]} ({len(unknown)} such ids), unknown to the annotations")
    images = [{"id": image_ids[image["id"]], "width": image.get("width", 0), "height": image.get("height", 0)}
              for image in ground_truth["images"]]
    annotations = [{"id": index, "image_id": image_ids[item["image_id"]],
                    "category_id": category_ids[item["category_id"]],
                    "bbox": [float(side) for side in item["bbox"]], "difficult": int(item.get("difficult", 0)),
                    "iscrowd": int(bool(item.get("iscrowd") or item.get("difficult"))),
                    "area": float(item.get("area", item["bbox"][2] * item["bbox"][3]))}
                   for index, item in enumerate(ground_truth["annotations"], 1)
                   if item["image_id"] in image_ids and item["category_id"] in category_ids]
    categories = [{**category, "id": category_ids[category["id"]]} for category in ground_truth["categories"]]
    same = all(new is old for ids in (image_ids, category_ids) for old, new in ids.items())
    if not same:  # else the rule: half a million detections need no copies
        detections = [{**item, "image_id": image_ids[item["image_id"]],
                       "category_id": category_ids[item["category_id"]]}
                      for item in detections if item["category_id"] in category_ids]
    return {"info": {}, "images": images, "annotations": annotations,
            "categories": sorted(categories, key=lambda category: category["id"])}, detections


def number_ids(items: list[dict]) -> dict:
    """{id of an image or category: one that every engine takes}, the same or, where one is refused, all from 1 on.

    hotcoco refuses negative numbers, texts and floats; pycocotools texts. The order stays: equal scores count in it.
    """
    ids = sorted({item["id"] for item in items}, key=id_order)
    fitting = all(type(number) is int and 0 <= number < 2 ** 63 for number in ids)
    return dict(zip(ids, ids if fitting else range(1, len(ids) + 1)))


def id_order(number: float | str) -> tuple:
    """A sort key for ids: numbers by value, then texts."""
    return isinstance(number, str), number


def run_engine(ground_truth: dict, detections: list[dict], engine: str) -> Any:
    """A COCOeval that has run on what clean() gives: stats [12] as COCO_NAMES, eval["precision"] [10, 101, K, 4, 3], as
    Evaluated has it, K categories by id, for at most 1, 10 and 100 detections."""
    coco, evaluator = import_engine(engine)
    with contextlib.redirect_stdout(io.StringIO()):  # both print a table, pycocotools its progress too
        truth = coco()
        truth.dataset = ground_truth
        truth.createIndex()
        # pycocotools' loadRes looks into the first result, and adds keys to all (copies of half a million take longer
        # than hotcoco does); without results an index without annotations stands for them
        results = [dict(item) for item in detections] if engine == "pycocotools" else detections
        found = truth.loadRes(results) if detections else coco()
        run = evaluator(truth, found, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


def import_engine(engine: str) -> tuple[type, type]:
    """The classes COCO and COCOeval of an engine. Raises EnvironmentFault where it is not installed."""
    try:
        coco, evaluator = map(importlib.import_module, ENGINES[engine])
    except ImportError as error:
        other = next(name for name in ENGINES if name != engine)
        raise EnvironmentFault(f"{engine} cannot be imported ({error}); use --metric_engine={other}") from error
    return coco.COCO, evaluator.COCOeval


@contextlib.contextmanager
def garbage_collector_off() -> Iterator[None]:
    """Saves a fifth of the time for half a million dicts, which the collector would search again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def group_by(key: str, items: list[dict]) -> dict[object, list[dict]]:
    """{value of key: the annotations or detections that have it, in their order}, [] for any other value."""
    groups = defaultdict(list)
    for item in items:
        groups[item[key]].append(item)
    return groups


def match_class(truth: list[dict], detections: list[dict], threshold: float) -> np.ndarray:
    """VOCevaldet.m for one class -> hits [D] bool by descending score; one that hits a difficult box is left out.

    Each detection looks only at the box of highest IoU in its image; the second to hit one box is a false positive.
    """
    by_image = group_by("image_id", truth)
    boxes = {image: np.array([item["bbox"] for item in items]) for image, items in by_image.items()}
    taken, hits = set(), []
    for item in sorted(detections, key=lambda item: -item["score"]):
        image = item["image_id"]
        overlap = voc_iou(item["bbox"], boxes[image]) if image in boxes else np.zeros(1)
        best = int(overlap.argmax())
        if overlap[best] < threshold:
            hits.append(False)
        elif not by_image[image][best]["difficult"]:
            hits.append((image, best) not in taken)
            taken.add((image, best))
    return np.array(hits, bool)


def voc_iou(box: list[float], boxes: np.ndarray) -> np.ndarray:
    """IoU [N] of box [4] with boxes [N, 4], all x, y, w, h in pixels; each side counts one pixel more."""
    box = np.asarray(box, float)
    ends = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])               # [N, 2]
    shared = np.maximum(ends - np.maximum(box[:2], boxes[:, :2]) + 1, 0).prod(axis=1)
    return shared / ((box[2:] + 1).prod() + (boxes[:, 2:] + 1).prod(axis=1) - shared)


def eleven_point_ap(precision: np.ndarray, recall: np.ndarray) -> float:
    """VOC 2007: mean of the best precision [D] at recall [D] >= 0, 0.1, .. 1.

    np.arange(0, 1.1, 0.1) holds 0.6000000000000001, which a recall of exactly 0.6 does not reach; the usual Python
    evaluators share that, so published numbers do too.
    """
    return float(np.mean([precision[recall >= level].max(initial=0) for level in np.arange(0, 1.1, 0.1)]))


def area_ap(precision: np.ndarray, recall: np.ndarray) -> float:
    """VOC 2010 and later: area under precision made falling (each value the best at that recall or above)."""
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * falling))
