"""COCO and VOC detection metrics from plain lists: the ground truth as a COCO dict, detections as COCO result dicts.

Boxes are x, y, w, h in pixels here, the format of COCO's files. Every image of the ground truth counts, with detections
or without.
"""
import contextlib
import gc
import importlib
import io
import json
import os
from collections import Counter, defaultdict

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
MAX_DETECTIONS = 100  # detections of a class in an image that the COCO protocol counts (maxDets)
ENGINES = {"hotcoco": {"COCO": "hotcoco", "COCOeval": "hotcoco"},
           "pycocotools": {"COCO": "pycocotools.coco", "COCOeval": "pycocotools.cocoeval"}}
VOC_MEANINGS = {"mAP_11point": "mean over classes, 11-point rule of VOC 2007",
                "mAP_area": "mean over classes, area under the curve (VOC 2010 and later)"}


def coco_metrics(ground_truth, detections, engine="hotcoco"):
    """The twelve numbers of the official COCO box protocol, and AP by class.

    ground_truth: COCO dict. detections: list of {image_id, category_id, bbox [x, y, w, h] in pixels, score}.
    engine: hotcoco, or pycocotools (slower, the same numbers).
    Returns {name: value for COCO_NAMES} 0..1, -1 where no ground truth is of that size (as pycocotools), and
    per_class: {class: {"AP", "AP50", "boxes"}}, AP None for a class without ground truth; crowd boxes are not counted.
    Raises DataError for a detection in an unknown image, EnvironmentFault when the engine cannot be used.
    """
    with uncollected():
        ground_truth, detections = number_ids(clean_ground_truth(ground_truth, detections), detections)
        stats, precision = evaluate_boxes(ground_truth, detections, engine)
    metrics = dict(zip(COCO_NAMES, map(float, stats)))
    counts = Counter(item["category_id"] for item in ground_truth["annotations"] if not item["iscrowd"])
    metrics["per_class"] = {}
    for index, category in enumerate(ground_truth["categories"]):
        means = precision[:, :, index].mean(axis=1).tolist()  # by IoU; all are -1 without ground truth
        names = {"AP": float(np.mean(means)), "AP50": means[0]} if means[0] >= 0 else {"AP": None, "AP50": None}
        metrics["per_class"][category["name"]] = {**names, "boxes": counts[category["id"]]}
    return metrics


def precision_curves(ground_truth, detections, engine="hotcoco"):
    """Precision at IoU 0.5 and recall 0, 0.01, .. 1 by the COCO protocol, for the classes with ground truth.

    Arguments as of coco_metrics. Returns {class: [101]}, best class first.
    """
    ground_truth, detections = number_ids(clean_ground_truth(ground_truth, detections), detections)
    _, precision = evaluate_boxes(ground_truth, detections, engine)
    curves = {category["name"]: precision[0, :, index] for index, category in enumerate(ground_truth["categories"])}
    present = {name: curve for name, curve in curves.items() if curve.max() > -1}
    return dict(sorted(present.items(), key=lambda item: -item[1].mean()))


def voc_metrics(ground_truth, detections, iou=0.5):
    """Average precision of the PASCAL VOC devkit (VOCevaldet.m), by both of its rules.

    ground_truth, detections: as for coco_metrics; an annotation may carry difficult: 1. iou: a detection matches from
    this overlap on. The devkit's corners name the first and the last pixel, so a side counts one pixel more than
    w = xmax - xmin; rafaelpadilla/review_object_detection_metrics computes the same.
    Returns mAP_11point, mAP_area (means over the classes with a box that is not difficult, -1 without any) and
    per_class: {class: {"AP_11point", "AP_area", "boxes"}}, AP None for a class without such a box.
    """
    ground_truth = clean_ground_truth(ground_truth, detections)
    truth, found = group(ground_truth["annotations"], "category_id"), group(detections, "category_id")
    per_class = {}
    for category in ground_truth["categories"]:
        boxes = sum(not item["difficult"] for item in truth[category["id"]])
        hits = match_class(truth[category["id"]], found[category["id"]], iou)
        right = np.cumsum(hits)
        precision, recall = right / np.arange(1, len(hits) + 1), right / max(boxes, 1)
        per_class[category["name"]] = {"AP_11point": eleven_point_ap(precision, recall) if boxes else None,
                                       "AP_area": area_ap(precision, recall) if boxes else None, "boxes": boxes}
    present = [entry for entry in per_class.values() if entry["boxes"]]
    means = {f"m{name}": float(np.mean([entry[name] for entry in present])) if present else -1.0
             for name in ("AP_11point", "AP_area")}
    return {**means, "per_class": per_class}


def format_metrics(metrics):
    """A table for the terminal: the overall numbers, then the classes, best first."""
    meanings, columns = ((COCO_MEANINGS, ("AP", "AP50")) if "AR100" in metrics else
                         (VOC_MEANINGS, ("AP_11point", "AP_area")))
    lines = [f"{name:<11} {number(metrics[name])}   {meaning}" for name, meaning in meanings.items()]
    width = min(max(len(one_line(name)) for name in (*metrics["per_class"], "class")), 40)
    lines += ["", f"{'class':<{width}} {'boxes':>7} {columns[0]:>10} {columns[1]:>10}"]
    scores = {name: entry[columns[0]] for name, entry in metrics["per_class"].items()}
    # classes without ground truth (None) come last
    for name in sorted(scores, key=lambda name: 1 if scores[name] is None else -scores[name]):
        entry = metrics["per_class"][name]
        numbers = " ".join(f"{number(entry[column]):>10}" for column in columns)
        lines.append(f"{one_line(name)[:width]:<{width}} {entry['boxes']:>7} {numbers}")
    return "\n".join(lines)


def describe_evaluation(dataset: str, *, split_name: str, images: int, meta: dict) -> dict:
    """What the numbers of metrics.json were measured with, JSON-able. meta: what the model says of itself."""
    protocol = {"protocol": "VOC"} if dataset == "voc" else {"protocol": "COCO", "max_detections": MAX_DETECTIONS}
    names = ("model", "min_score", "nms_threshold", "nms_candidates", "max_boxes", "resize")
    return {**protocol, "split": split_name, "images": images, **{name: meta[name] for name in names if name in meta}}


def split_notes(ground_truth: dict, dataset: str, *, max_boxes: int) -> list:
    """What whoever reads the numbers of a split should know before, one text a line: no boxes at all, classes without
    any, images with more boxes than are found or counted. max_boxes: detections an image."""
    voc = dataset == "voc"
    counted = [item for item in ground_truth["annotations"] if not item.get("difficult" if voc else "iscrowd")]
    if not counted:
        return ["the validation split has no box that counts: nothing can be measured, every average is -1 or '-'"]
    present = {item["category_id"] for item in counted}
    absent = [one_line(one["name"]) for one in ground_truth["categories"] if one["id"] not in present]
    notes = [f"{len(absent)} of {len(absent) + len(present)} classes have no box in the validation split and are left "
             f"out of all averages: {', '.join(absent[:10])}{', ..' if len(absent) > 10 else ''}"] if absent else []
    images = Counter(item["image_id"] for item in counted)
    pairs = Counter((item["image_id"], item["category_id"]) for item in counted)
    crowded = {image for image, count in images.items() if count > max_boxes}
    crowded |= set() if voc else {image for (image, _), count in pairs.items() if count > MAX_DETECTIONS}
    if crowded:
        rule = "" if voc else f", and COCO's protocol counts {MAX_DETECTIONS} of a class in an image (maxDets)"
        notes.append(f"{len(crowded)} image(s) have up to {max(images[image] for image in crowded)} boxes: at most "
                     f"{max_boxes} an image are found (--max_boxes){rule}; the others count as missed")
    return notes


def write_metrics(folder, metrics, detections):
    """Writes metrics.json and detections.json (COCO result format) whole into folder, which is made if need be."""
    for name, content in (("metrics.json", json.dumps(metrics, indent=1)), ("detections.json", json.dumps(detections))):
        write_atomic(os.path.join(folder, name), f"{content}\n".encode())


def number(value):
    """A metric with four digits; '-' for one that does not exist (None, or -1 by COCO's convention)."""
    return f"{'-':>6}" if value is None or value < 0 else f"{value:6.4f}"


def clean_ground_truth(ground_truth, detections):
    """A COCO dict -> a new one with only what box evaluation reads, of the images it lists, categories by id.

    Annotations get new ids from 1 (pycocotools takes id 0 for 'not matched') and, where absent, iscrowd and difficult 0
    and area w * h. Raises DataError for a detection in an image that is not listed.
    """
    images = [{"id": image["id"], "width": image.get("width", 0), "height": image.get("height", 0)}
              for image in ground_truth["images"]]
    known = {image["id"] for image in images}
    strange = sorted({item["image_id"] for item in detections} - known, key=id_order)
    if strange:
        raise DataError(f"detections of image id {strange[0]} ({len(strange)} such ids), unknown to the annotations")
    annotations = [{"id": index, "image_id": item["image_id"], "category_id": item["category_id"],
                    "bbox": [float(side) for side in item["bbox"]], "iscrowd": int(item.get("iscrowd", 0)),
                    "difficult": int(item.get("difficult", 0)),
                    "area": float(item.get("area", item["bbox"][2] * item["bbox"][3]))}
                   for index, item in enumerate(ground_truth["annotations"], 1) if item["image_id"] in known]
    return {"info": {}, "images": images, "annotations": annotations,
            "categories": sorted(ground_truth["categories"], key=lambda category: id_order(category["id"]))}


def id_order(number):
    """A sort key for ids: numbers by value, then texts."""
    return isinstance(number, str), number


def number_ids(ground_truth, detections):
    """A clean ground truth and detections with ids that every engine takes: those that are none are numbered from 1 on.

    hotcoco refuses negative numbers, texts and floats; pycocotools texts. The order stays: equal scores count in it.
    """
    for kind, key in (("images", "image_id"), ("categories", "category_id")):
        ids = sorted({item["id"] for item in ground_truth[kind]}, key=id_order)
        if all(type(one) is int and 0 <= one < 2 ** 63 for one in ids):
            continue  # most files: half a million detections need no copies
        places = {one: place for place, one in enumerate(ids, 1)}
        listed = [{**item, "id": places[item["id"]]} for item in ground_truth[kind]]
        boxes = [{**item, key: places.get(item[key], 0)} for item in ground_truth["annotations"]]
        ground_truth = {**ground_truth, kind: listed, "annotations": boxes}
        detections = [{**item, key: places.get(item[key], 0)} for item in detections]
    return ground_truth, detections


def evaluate_boxes(ground_truth, detections, engine):
    """Runs a COCO engine -> stats [12] as COCO_NAMES, precision [10, 101, K]; -1 where there is no ground truth.

    The axes of precision: IoU .50, .55, .. .95; recall 0, .01, .. 1; categories by id. Up to 100 boxes of any size.
    """
    coco, evaluator = import_engine(engine)
    with contextlib.redirect_stdout(io.StringIO()):  # both print a table, pycocotools its progress too
        truth = coco()
        truth.dataset = ground_truth
        truth.createIndex()
        # pycocotools' loadRes looks into the first result, and adds keys to all (copies of half a million take longer
        # than hotcoco does); an index without annotations is what no results look like
        results = [dict(one) for one in detections] if engine == "pycocotools" else detections
        found = truth.loadRes(results) if detections else coco()
        run = evaluator(truth, found, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats, run.eval["precision"][..., 0, 2]


def import_engine(engine):
    """The classes COCO and COCOeval of an engine. Raises EnvironmentFault where it is not installed."""
    try:
        return [getattr(importlib.import_module(module), name) for name, module in ENGINES[engine].items()]
    except ImportError as error:
        other = next(name for name in ENGINES if name != engine)
        raise EnvironmentFault(f"{engine} cannot be imported ({error}); use --metric_engine={other}") from error


@contextlib.contextmanager
def uncollected():
    """Holds Python's garbage collector off: each new dict of an annotation counts towards a search through all dicts of
    detections, a fifth of the time for half a million, and nothing here is garbage."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def group(items, key):
    """{value of key: the annotations or detections that have it, in their order}, [] for any other value."""
    groups = defaultdict(list)
    for item in items:
        groups[item[key]].append(item)
    return groups


def match_class(truth, detections, threshold):
    """VOCevaldet.m for one class -> hits [D] bool by descending score; one that hits a difficult box is left out.

    Each detection looks only at the box of highest IoU in its image; the second to hit one box is a false positive.
    """
    by_image = group(truth, "image_id")
    boxes = {image: np.array([item["bbox"] for item in items]) for image, items in by_image.items()}
    taken, hits = set(), []
    for item in sorted(detections, key=lambda item: -item["score"]):
        image = item["image_id"]
        overlap = overlaps(item["bbox"], boxes[image]) if image in boxes else np.zeros(1)
        best = int(overlap.argmax())
        if overlap[best] < threshold:
            hits.append(False)
        elif not by_image[image][best]["difficult"]:
            hits.append((image, best) not in taken)
            taken.add((image, best))
    return np.array(hits, bool)


def overlaps(box, boxes):
    """IoU of box [4] with boxes [N, 4], all x, y, w, h in pixels -> [N]; each side counts one pixel more."""
    box = np.asarray(box, float)
    ends = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    shared = np.maximum(ends - np.maximum(box[:2], boxes[:, :2]) + 1, 0).prod(axis=1)
    return shared / ((box[2:] + 1).prod() + (boxes[:, 2:] + 1).prod(axis=1) - shared)


def eleven_point_ap(precision, recall):
    """VOC 2007: mean of the best precision at recall >= 0, 0.1, .. 1.

    np.arange(0, 1.1, 0.1) holds 0.6000000000000001, which a recall of exactly 0.6 does not reach; the usual Python
    evaluators share that, so published numbers do too.
    """
    return float(np.mean([precision[recall >= least].max(initial=0) for least in np.arange(0, 1.1, 0.1)]))


def area_ap(precision, recall):
    """VOC 2010 and later: area under precision made falling (each value the best at that recall or above)."""
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * falling))
