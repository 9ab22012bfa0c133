"""From a run of train.py and eval.py to a section of docs/results.md, with its pictures.

    python scripts/results_page.py RUN --output=FOLDER [--worst=6] [--machine="2 cores of an AMD EPYC"]

RUN is the folder of a run with eval/ in it; FOLDER gets section.md and its pictures: the curves of loss and AP over
minutes, precision and recall, and the worst images, with what is there on the left and what was found on the right, as
JPEG under 150 kB. A box counts as found from draw_score on, at an IoU of 0.5. The data of the run must still be there.
Look whether the licence of the data allows you to publish its images.
"""
from __future__ import annotations

import os
import shutil
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.arguments import ArgumentParser
from src.config import read_options, split_options
from src.drawing import draw_boxes, encode_jpeg, fit_into
from src.errors import DataError, run_main
from src.evaluation.mistakes import SMALL_SIDE, Judged, confusion, describe_mistakes, judge
from src.files import expand_home, output_folder, read_json, write_atomic
from src.option_rules import rule_of
from src.recipes import read_yaml
from src.text import wrap
from src.training.history import SCORES, read_run
from src.training.log import read_log

if TYPE_CHECKING:
    from easydict import EasyDict

MAX_BYTES = 150_000                 # of a picture
SHOWN_HEIGHT, SHOWN_WIDTH = 480, 700  # pixels of each half of a picture, at most
FORM = ("AP", "AP50"), ("AP_area", "AP_11point")  # by class, of COCO and of VOC
WORST = ("The images with the most mistakes at that score: on the left what is there, on the right what was found. An "
         f"object is small if its area is below that of a square of {SMALL_SIDE:.0%} of the image's sides.")
LEFT_OUT = ("config_path", "output_path", "mindrecord_dir", "compile_cache", "resume")  # of the command
ROOTS = ("coco_root", "voc_root", "image_dir", "val_image_dir")


def main() -> None:
    """Reads the run, writes the section and its pictures."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("run", type=expand_home, metavar="RUN", help="folder of the run")
    parser.add_argument("--output", type=expand_home, required=True, help="folder for the section and its pictures")
    parser.add_argument("--worst", type=int, default=6, help="how many of the worst images")
    parser.add_argument("--draw_score", type=float, help="least score of a box that counts; without it the run's")
    parser.add_argument("--machine", default="not named", help="what the run ran on, in words")
    arguments = parser.parse_args()
    with output_folder(arguments.output):
        lines = write_section(arguments)
    write_atomic(os.path.join(arguments.output, "section.md"), ("\n".join(lines) + "\n").encode())
    print(f"wrote {os.path.join(arguments.output, 'section.md')}")


def write_section(arguments: Namespace) -> list[str]:
    """The lines of the section; writes its pictures. Raises DataError where the run has no evaluation."""
    run, folder = arguments.run, arguments.output
    path = os.path.join(run, "config.yaml")
    options = read_options([f"--config_path={path}"])
    draw_score = options.draw_score if arguments.draw_score is None else arguments.draw_score
    try:
        metrics, detections = (read_json(os.path.join(run, "eval", name)) for name in
                               ("metrics.json", "detections.json"))
        shutil.copyfile(os.path.join(run, "eval", "pr_curves.png"), os.path.join(folder, "pr_curves.png"))
        rows = read_log(os.path.join(run, "log.jsonl"))
    except OSError as error:
        raise DataError(f"'{run}' is not a run with an evaluation: {error}; run eval.py first") from error
    truth, image_dir = read_truth(options, metrics)
    classes = [category["name"] for category in truth["categories"]]
    images = judge(truth, detections, min_scores=draw_score)
    history = read_run(run, "run")
    curves = {name: points for name in ("loss", *SCORES) if (points := history.series(name, "minutes"))}
    draw_curves(curves, os.path.join(folder, "curves.png"))
    worst = sorted(images, key=lambda judged: -judged.mistakes.count)[:arguments.worst]
    return [*heading(read_yaml(path), rows, metrics, curves=curves, machine=arguments.machine), "",
            *class_table(metrics, images, classes), "",
            "![loss and average precision over minutes](curves.png)", "",
            "![precision and recall at IoU .50](pr_curves.png)", "",
            f"Confusion at scores from {draw_score:g} on and IoU .50, rows what is there, columns what was found:", "",
            *confusion_table(images, classes), "", *draw_worst(worst, folder, image_dir=image_dir, classes=classes)]


def read_truth(options: EasyDict, metrics: dict) -> tuple[dict, str]:
    """The images of the validation split that were evaluated as a COCO dict, and the folder of its images."""
    from src.data.prepare import prepare_split
    from src.evaluation.evaluate import first_images
    # the classes are those of the model, by which a training converts the split
    split = prepare_split(**split_options(options, "val"), classes=list(metrics["per_class"]))
    return first_images(read_json(split.ground_truth), metrics["evaluation"]["images"]), split.image_dir


def heading(stored: dict, rows: list[dict], metrics: dict, *, curves: dict, machine: str) -> list[str]:
    """Title, machine, command, minutes and the numbers of the whole split. stored: the options of the run."""
    facts, about = rows[0], metrics["evaluation"]
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()
                        if isinstance(value, float) and value >= 0)  # -1: no box of that size
    minutes = max((points[-1][0] for points in curves.values()), default=0)
    last = max(row.get("step", 0) for row in rows)
    return [f"## {about['model']} on {about['split']}, {facts['device']} ({facts['time'][:10]}, commit "
            f"{facts['commit']})", "",
            f"Machine: {machine}. {facts['train_images']} images to train on, {about['images']} to evaluate, "
            f"{facts['image_size']} pixels.", "",
            "```", *command(stored), "```", "",
            wrap(f"{last} steps of {facts['batch']} images, {minutes:.1f} minutes with evaluations. {numbers}.")]


def command(stored: dict) -> list[str]:
    """The command that trains with the options of a run's config.yaml, in lines of at most 120 columns."""
    recipe, typed = stored.get("config_path", ""), []
    if os.path.isfile(recipe) and os.path.basename(recipe) != "config.yaml":  # that of a resumed run is its own
        typed = [f"--config_path=config/{os.path.basename(recipe)}"]
    base = read_options([f"--config_path={recipe}"] if typed else [])
    for name, value in stored.items():
        if name in LEFT_OUT or value == base.get(name):
            continue
        if name in ROOTS:
            value = "DATA"
        elif rule_of(name).is_path:
            value = os.path.basename(value)
        typed.append(f"--{name}=" + (",".join(value) if isinstance(value, list) else str(value)))
    lines = ["python train.py"]
    for word in [*typed, "--output_path=RUN"]:
        if len(lines[-1]) + len(word) > 116:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {word}"
    return lines


def draw_curves(curves: dict[str, list[tuple[float, float]]], path: str) -> None:
    """Loss on the left, average precision on the right, over minutes."""
    from src.evaluation.plots import ACCENTS, new_figure, save_figure
    figure, axes = new_figure(2, width=4.6, height=3.0)
    for axis, title, names in ((axes[0], "loss", ["loss"]),
                               (axes[1], "average precision", [name for name in curves if name != "loss"])):
        for name, color in zip(names, ACCENTS):
            minutes, values = np.array(curves.get(name, [])).reshape(-1, 2).T
            axis.plot(minutes, values, color=color, label=name, marker="o", markersize=2.5, linewidth=1)
        axis.set(title=title, xlabel="minutes, evaluations included", xlim=(0, None), ylim=(0, None))
        if len(names) > 1:
            axis.legend(frameon=False)
    save_figure(figure, path)


def class_table(metrics: dict, images: list[Judged], classes: list[str]) -> list[str]:
    """Metrics of each class, and how many of its boxes were found, missed and invented at draw_score."""
    names = FORM["AR100" not in metrics]
    lines = [f"| class | boxes | {' | '.join(names)} | found | missed or of another class | false alarms |",
             "|---|---|---|---|---|---|---|"]
    matrix = confusion(images, len(classes))
    for label, name in enumerate(classes, 1):
        entry = metrics["per_class"][name]
        values = ["-" if entry[key] is None else f"{entry[key]:.3f}" for key in names]
        right = matrix[label, label]
        lines.append(f"| {name} | {entry['boxes']} | {' | '.join(values)} | {right} | {matrix[label].sum() - right} | "
                     f"{matrix[:, label].sum() - right} |")
    return lines


def confusion_table(images: list[Judged], classes: list[str]) -> list[str]:
    """The confusion as Markdown, classes that never occur left out."""
    matrix = confusion(images, len(classes))
    kept = [label for label in range(1, len(classes) + 1) if matrix[label].any() or matrix[:, label].any()]
    lines = [f"| | {' | '.join(classes[label - 1] for label in kept)} | nothing |", "|---" * (len(kept) + 2) + "|"]
    for label in [*kept, 0]:
        cells = [str(matrix[label, column]) for column in [*kept, 0]]
        cells[-1] = "" if label == 0 else cells[-1]
        lines.append(f"| {classes[label - 1] if label else 'nothing'} | {' | '.join(cells)} |")
    return lines


def draw_worst(worst: list[Judged], folder: str, *, image_dir: str, classes: list[str]) -> list[str]:
    """Writes the pictures of the worst images; returns their lines."""
    from src.data.images import read_image
    lines = []
    for number, judged in enumerate((judged for judged in worst if judged.mistakes.count), 1):
        image = judged.image
        pixels = read_image(os.path.join(image_dir, image["file_name"]), image["height"], image["width"])
        pixels = fit_into(pixels, SHOWN_HEIGHT, SHOWN_WIDTH)
        gap = np.full((len(pixels), 8, 3), 255, np.uint8)
        true = draw_boxes(pixels, judged.true.boxes, judged.true.labels, classes=classes)
        found = draw_boxes(pixels, judged.found.boxes, judged.found.labels, scores=judged.found.weights,
                           classes=classes)
        data = encode_jpeg(np.hstack([true, gap, found]), MAX_BYTES)
        write_atomic(os.path.join(folder, f"worst_{number}.jpg"), data)
        reason = describe_mistakes(judged.true, judged.found, mistakes=judged.mistakes, classes=classes)
        lines += [f"![{reason}](worst_{number}.jpg)", "", wrap(f"*Image {image['id']}: {reason}.*"), ""]
    return [wrap(WORST), "", *lines[:-1]] if lines else ["No image has a mistake."]


if __name__ == "__main__":
    run_main(main)
