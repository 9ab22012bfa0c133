"""report.html of an evaluation: tables, charts, and the worst and the best images beside their truth."""
from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from src.boxes import iou
from src.data.images import read_image
from src.drawing import draw_boxes, encode_jpeg, fit_into, label_text
from src.errors import DataError
from src.evaluation import charts
from src.evaluation.diagnosis import Diagnosis, class_precision, confused_pairs
from src.evaluation.mistakes import Judged, Mistakes, describe_mistakes
from src.evaluation.summary import summarize
from src.evaluation.thresholds import scores_by_class
from src.page import data_uri, write_page
from src.text import one_line

NUM_WORST, NUM_BEST = 8, 4           # images that are shown
SIDE, MAX_BYTES = 560, 90_000        # pixels and bytes of a picture: 24 of them stay below 3 MB as base64
MAX_NAMED = 12                       # in an image with more boxes, those that are right have no name
SURE = 0.8                           # score of a false alarm that may be an object without a label
APART = 0.1                          # IoU with all true boxes: less is nowhere near an object
MAX_MATRIX = 12                      # classes of the confusion matrix; of more, those that are confused most
MAX_PAIRS = 15                       # of classes that are confused, listed
RIGHT, WRONG, MISSED, FALSE = (30, 138, 68), (230, 126, 0), (47, 86, 198), (207, 27, 60)  # as in page.css
SIZES = ("all sizes", "small", "medium", "large")


def write_eval_page(path: str, diagnosis: Diagnosis, *, metrics: dict, about: dict, image_dir: str,
                    notes: Sequence[str] = ()) -> None:
    """Writes the report of an evaluation.

    metrics: of the split; about: of describe_evaluation, with "file" and "data", which are names; notes: what a reader
    of the numbers should know.
    """
    ranked = sorted(diagnosis.images, key=lambda judged: (-judged.mistakes.count, -len(judged.mistakes.right)))
    worst = [judged for judged in ranked[:NUM_WORST] if judged.mistakes.count]
    best = [judged for judged in sorted(ranked, key=lambda judged: (judged.mistakes.count,
                                                                    -len(judged.mistakes.right)))
            if judged.mistakes.right and judged not in worst][:NUM_BEST]
    write_page(path, "eval.html", title=f"{about['model']} on {about['data']}, {about['split']}",
               subtitle=f"{about['images']} images, {diagnosis.boxes} objects; {about['file']}",
               facts=headline(diagnosis, metrics), summary=summarize(diagnosis), notes=list(notes),
               precision=precision_table(diagnosis, metrics), scores=score_table(diagnosis),
               charts=build_charts(diagnosis), matrix=matrix_table(diagnosis),
               pairs=confused_pairs(diagnosis)[:MAX_PAIRS],
               worst=show(worst, image_dir, classes=diagnosis.classes),
               best=show(best, image_dir, classes=diagnosis.classes), about=about, limits=score_words(diagnosis))


def headline(diagnosis: Diagnosis, metrics: dict) -> list[tuple[str, str]]:
    """The few numbers in large type."""
    names = {"mAP_area": "mAP_area, VOC's rule", "AP": "AP, IoU .50 to .95", "AP50": "AP50"}
    pairs = [(f"{metrics[name]:.3f}", text) for name, text in names.items() if metrics.get(name, -1) >= 0]
    if diagnosis.boxes:
        pairs.append((f"{diagnosis.right / diagnosis.boxes:.0%}", "of the objects are found"))
    if diagnosis.found:
        pairs.append((f"{diagnosis.right / diagnosis.found:.0%}", "of the boxes are right"))
    if diagnosis.chosen:
        pairs.append((f"{diagnosis.chosen['draw_score']:g}", "score to use"))
    return pairs


def precision_table(diagnosis: Diagnosis, metrics: dict) -> dict:
    """Average precision by class and size, the mean first: head and rows."""
    columns = {"AP": class_precision(diagnosis), "AP50": diagnosis.precision[0, :, :, 0].mean(axis=0),
               "AP75": diagnosis.precision[5, :, :, 0].mean(axis=0)}
    columns |= {f"AP {name}": class_precision(diagnosis, size) for size, name in enumerate(SIZES) if size}
    columns = {name: np.where(values < 0, np.nan, values) for name, values in columns.items()}
    if "mAP_area" in metrics:
        own = [metrics["per_class"][name]["AP_area"] for name in diagnosis.classes]
        columns = {"AP_area": np.array([np.nan if value is None else value for value in own]), **columns}
    rows = [["all", int(diagnosis.curves.boxes[-1]), *map(mean_text, columns.values())]]
    order = np.argsort(-np.nan_to_num(columns["AP"], nan=-1), kind="stable")
    rows += [[one_line(diagnosis.classes[index]), int(diagnosis.curves.boxes[index]),
              *(number(values[index]) for values in columns.values())] for index in order]
    return {"head": ["class", "objects", *columns], "rows": rows}


def score_table(diagnosis: Diagnosis) -> dict:
    """The score to use and what it gives, class by class: head and rows."""
    matrix, rows = diagnosis.matrix, []
    own = diagnosis.chosen.get("class_scores", {})
    for label, name in [(slice(1, None), "all"), *enumerate(diagnosis.classes, 1)]:
        inner = matrix[label, label]
        right = int(np.trace(inner) if name == "all" and inner.ndim == 2 else inner)
        there, found = int(matrix[label].sum()), int(matrix[:, label].sum())
        score = own.get(name, diagnosis.chosen.get("draw_score"))
        rows.append([one_line(name), "-" if score is None else f"{score:g}", there, right, there - right, found - right,
                     percent(right, there), percent(right, found), number(2 * right / max(there + found, 1))])
    return {"head": ["class", "score to use", "objects", "found", "missed", "wrong boxes", "recall", "precision", "F1"],
            "rows": rows}


def matrix_table(diagnosis: Diagnosis) -> dict:
    """The confusion matrix: names, and rows of (name, cells of (count, share of the row)); 0 is for nothing."""
    matrix = diagnosis.matrix
    labels = [label for label in range(1, len(matrix)) if matrix[label].any() or matrix[:, label].any()]
    if len(labels) > MAX_MATRIX:
        inner = matrix[1:, 1:] * (1 - np.eye(len(matrix) - 1, dtype=int))
        often = inner.sum(axis=0) + inner.sum(axis=1)
        labels = sorted(sorted(labels, key=lambda label: -often[label - 1])[:MAX_MATRIX])
    rows = []
    for row in [*labels, 0]:
        total = max(matrix[row].sum(), 1)
        cells = [(int(matrix[row, column]), matrix[row, column] / total, row == column) for column in [*labels, 0]]
        cells[-1] = ("", 0, False) if row == 0 else cells[-1]
        rows.append((label_text(row, diagnosis.classes) if row else "nothing", cells))
    return {"names": [*(label_text(label, diagnosis.classes) for label in labels), "nothing"], "rows": rows,
            "left_out": len(diagnosis.classes) - len(labels)}


def build_charts(diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    """(title, address, what it says) of each chart."""
    built = [("Precision and recall", charts.precision_recall(diagnosis),
              "How many of the boxes are right (up) when so many of the objects are found (right), IoU .50."),
             ("F1 over the score", charts.f1_over_score(diagnosis),
              "F1 is the mean of precision and recall. The dashed line is the score to use for all classes.")]
    if diagnosis.sizes:
        built.append(("Found by size", charts.found_by_size(diagnosis.sizes),
                      "The share of the objects of each size that is found; numbers: how many there are."))
    if diagnosis.errors:
        built.append(("What costs most", charts.lost_by_errors(diagnosis.errors),
                      "Kinds of errors as TIDE tells them apart, and the AP50 that would be gained without each. Here "
                      "all boxes count, those with low scores too."))
    if diagnosis.bins:
        built.append(("What a score is worth", charts.reliability(diagnosis.bins),
                      "The share of the boxes of each score that are right. On the dashed line a score is a "
                      "probability."))
    return built


def show(images: Sequence[Judged], image_dir: str, *, classes: Sequence[str]) -> list[dict]:
    """What the template needs of images: name, what is wrong, and the two pictures; none for those that are gone."""
    shown = []
    for judged in images:
        image = judged.image
        try:
            pixels = read_image(os.path.join(image_dir, image["file_name"]), image["height"], image["width"])
        except DataError:
            continue  # images may have gone since they were converted; the numbers do not need them
        pixels = fit_into(pixels, SIDE, SIDE)
        pictures = draw_truth(pixels, judged, classes), draw_found(pixels, judged, classes)
        shown.append({"name": one_line(image["file_name"]), "words": what_is_wrong(judged, classes),
                      "pictures": [data_uri(encode_jpeg(picture, MAX_BYTES), "jpeg") for picture in pictures]})
    return shown


def what_is_wrong(judged: Judged, classes: Sequence[str]) -> str:
    """describe_mistakes, and how many false alarms look like objects without a label."""
    words = describe_mistakes(judged.true, judged.found, mistakes=judged.mistakes, classes=classes)
    false = judged.mistakes.false
    apart = iou(judged.found.boxes[false], judged.true.boxes).max(axis=1, initial=0) < APART
    sure = np.count_nonzero(apart & (judged.found.weights[false] >= SURE))
    return f"{words}; is a label missing where the score is {SURE:g} or more ({sure})?" if sure else words


def draw_truth(pixels: np.ndarray, judged: Judged, classes: Sequence[str]) -> np.ndarray:
    """The true boxes, in the colours of what became of them; those that need not be found are grey."""
    mistakes, count = judged.mistakes, len(judged.true.labels)
    colors, texts = [(150, 150, 150)] * count, [""] * count
    for color, indices in ((RIGHT, [true for true, _ in mistakes.right]),
                           (WRONG, [true for true, _ in mistakes.confused]), (MISSED, mistakes.missed)):
        for index in indices:
            colors[index] = color
            texts[index] = label_text(judged.true.labels[index], classes) if needs_name(color, count) else ""
    return draw_on_top(pixels, judged.true.boxes, colors=colors, texts=texts)


def draw_found(pixels: np.ndarray, judged: Judged, classes: Sequence[str]) -> np.ndarray:
    """The found boxes, in the colours of what they are; one on a crowd is grey."""
    mistakes, count = judged.mistakes, len(judged.found.labels)
    colors, texts = [(150, 150, 150)] * count, [""] * count
    for color, indices in kinds_of_found(mistakes):
        for index in indices:
            colors[index] = color
            name = label_text(judged.found.labels[index], classes)
            texts[index] = f"{name} {judged.found.weights[index]:.2f}" if needs_name(color, count) else ""
    return draw_on_top(pixels, judged.found.boxes, colors=colors, texts=texts)


def kinds_of_found(mistakes: Mistakes) -> tuple:
    """(colour, indices of the found boxes of that kind)."""
    return ((RIGHT, [found for _, found in mistakes.right]), (WRONG, [found for _, found in mistakes.confused]),
            (FALSE, mistakes.false))


def needs_name(color: tuple, count: int) -> bool:
    """Whether a box of a colour has its name, in an image of so many boxes."""
    return color != RIGHT or count <= MAX_NAMED


def draw_on_top(pixels: np.ndarray, boxes: np.ndarray, *, colors: list[tuple], texts: list[str]) -> np.ndarray:
    """The boxes with their colours and texts, mistakes on top of what is right."""
    order = sorted(range(len(colors)), key=lambda index: colors[index] != RIGHT)
    return draw_boxes(pixels, boxes[order], [0] * len(order), colors=[colors[index] for index in order],
                      texts=[texts[index] for index in order] or [""])


def score_words(diagnosis: Diagnosis) -> str:
    """The scores from which on boxes count, in words."""
    chosen, limits = diagnosis.chosen, diagnosis.limits
    if chosen and np.array_equal(limits, scores_by_class(diagnosis.classes, **chosen)):
        return "with these scores"
    return f"from a score of {limits.min(initial=1):g} on"


def number(value: float) -> str:
    """Three digits, "-" for none."""
    return "-" if np.isnan(value) else f"{value:.3f}"


def mean_text(values: np.ndarray) -> str:
    """The mean of the numbers that exist."""
    return number(np.nanmean(values) if np.isfinite(values).any() else np.nan)


def percent(part: int, total: int) -> str:
    """part of total, "-" of nothing."""
    return f"{part / total:.0%}" if total else "-"
