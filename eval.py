"""Measures a .ckpt, .mindir or .onnx on a validation split: official COCO protocol, or VOC's for --dataset=voc.

    python eval.py --dataset=coco --coco_root=DATA --checkpoint_file_path=runs/first/ckpt/best.ckpt
"""
from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from src.errors import OptionError, SSDError, run_main, smaller_batch
from src.machine import process
from src.machine.stop_signals import leaving_at_once

if TYPE_CHECKING:
    from easydict import EasyDict

    from src.data.prepare import Split
    from src.evaluation.diagnosis import Diagnosis
    from src.inference.predictor import Predictor


def main() -> None:
    """Reads the options and evaluates."""
    from src.config import read_options, take_data, take_run_data, unused_note
    from src.data.formats import identify

    options, data_note = take_data(read_options(sys.argv[1:], "eval.py", doc=__doc__), identify)
    options, note = take_run_data(options)
    if options.store_score and not options.report:
        raise OptionError("--store_score=True needs --report=True, which finds the score that it stores")
    process.prepare(options.device_target, options.run_distribute, options.device_num)
    with leaving_at_once(), smaller_batch("eval_batch_size", options.eval_batch_size):
        run(options, notes=[unused_note(options, "eval.py"), data_note, note])


def run(options: EasyDict, *, notes: list[str]) -> None:
    """Starts the devices, loads the model, evaluates it."""
    from src.config import model_options, run_of
    from src.files import output_folder
    from src.inference.predictor import load_predictor
    from src.machine import distributed
    from src.metrics import import_engine

    import_engine(options.metric_engine)  # before the work whose result it counts
    rank, world = distributed.start(options.device_target, options.device_id, options.run_distribute)
    say = partial(print, flush=True) if rank == 0 else (lambda text: None)
    for note in filter(None, notes):
        say(note)
    path = options.checkpoint_file_path
    predict = load_predictor(path, batch_size=options.eval_batch_size, compile_cache=options.compile_cache,
                             **model_options(options), say=say)
    run_folder = run_of(path) or os.path.dirname(os.path.abspath(path))
    folder = os.path.join(options.output_path if "output_path" in options.typed else run_folder, "eval")
    with output_folder(folder) if rank == 0 else contextlib.nullcontext():
        evaluate(options, predict, folder, rank=rank, world=world, say=say)


def evaluate(options: EasyDict, predict: Predictor, folder: str, *, rank: int, world: int,
             say: Callable[[str], None]) -> None:
    """Runs the model over the split, writes metrics, detections and pictures into folder."""
    from src.data.loader import EvalLoader
    from src.evaluation import plots, report
    from src.evaluation.diagnosis import diagnose
    from src.evaluation.evaluate import collect_detections, compute_metrics, first_images, to_coco
    from src.files import read_json
    from src.metrics import describe_evaluation, format_metrics, split_notes, write_metrics

    split, meta = model_split(options, predict, rank=rank, say=say), predict.meta
    truth = first_images(read_json(split.ground_truth), options.eval_images)
    count = len(truth["images"])
    loader = EvalLoader(split.files, rows=count, image_size=predict.image_size, batch_size=predict.batch_size,
                        rank=rank, world=world, workers=options.num_workers or process.loader_threads(),
                        resize=predict.resize)
    say(f"{meta['model']} on {count} images of {split.name}, --min_score={meta['min_score']}, --nms_threshold="
        f"{meta['nms_threshold']}, at most {meta['max_boxes']} boxes an image")
    start = time.monotonic()
    table = collect_detections(predict, loader, rank=rank, world=world)
    if rank:
        return
    seconds = time.monotonic() - start
    detections = to_coco(table, truth)
    metrics, evaluated = compute_metrics(truth, detections, dataset=options.dataset, engine=options.metric_engine)
    about = describe_evaluation(options.dataset, split_name=split.name, images=count, meta=meta)
    write_metrics(folder, {**metrics, "evaluation": about}, detections)
    where = f"the {count} images of --eval_images" if options.eval_images else "the validation split"
    notes = split_notes(truth, options.dataset, max_boxes=meta["max_boxes"], where=where)
    say("\n".join([format_metrics(metrics), *notes]))
    if not detections:
        say(f"nothing was detected: no score exceeds --min_score={meta['min_score']} (after few steps of training "
            "scores are low; try --min_score=0.01)")
    plots.plot_pr_curves(evaluated, path=os.path.join(folder, "pr_curves.png"))
    plots.plot_per_class(metrics, path=os.path.join(folder, "per_class.png"))
    report.draw_predictions(os.path.join(folder, "predictions.png"), truth=truth, table=table,
                            image_dir=split.image_dir, draw_score=meta["draw_score"])
    if options.report:
        diagnosis = diagnose(truth, detections, evaluated, draw_score=options.draw_score,
                             typed="draw_score" in options.typed)
        write_report(options, folder, diagnosis, metrics=metrics, about=about, notes=notes, split=split, say=say)
    say(f"{count} images in {seconds:.1f} s ({count / seconds:.1f} images/s with compiling); metrics.json, "
        f"detections.json and pictures are in {folder}")


def write_report(options: EasyDict, folder: str, diagnosis: Diagnosis, *, metrics: dict, about: dict, notes: list[str],
                 split: Split, say: Callable[[str], None]) -> None:
    """Writes report.html, and says from which score on boxes are worth showing; stores it where this data tells."""
    from src.config import on_run_data
    from src.data.prepare import data_name
    from src.evaluation.eval_page import write_eval_page
    from src.evaluation.thresholds import MIN_F1

    path = options.checkpoint_file_path
    write_eval_page(os.path.join(folder, "report.html"), diagnosis, metrics=metrics,
                    about={"file": os.path.basename(path), "data": data_name([split.root]), **about},
                    image_dir=split.image_dir, notes=notes)
    say(f"{os.path.join(folder, 'report.html')} shows what is right and wrong")
    if not diagnosis.chosen:
        say(f"score to use: none yet, as F1 stays below {MIN_F1:g}")
    elif options.store_score or on_run_data(options) and not options.eval_images:  # some of the images do not tell
        keep_scores(path, diagnosis.chosen, say)
    else:
        why = "these are a part of the images" if options.eval_images else (
            "this is not the validation data of the run that it lies in")
        say(f"score to use here: {diagnosis.chosen['draw_score']:g}, not stored in '{path}': {why} (--store_score=True "
            "stores it)")


def keep_scores(path: str, scores: dict, say: Callable[[str], None]) -> None:
    """Stores the scores of choose_scores in the evaluated file or its .json, for predict.py, or says why it cannot."""
    from src.config import run_of
    from src.inference.description import remember
    from src.training.run_folder import hold_run_folder

    text, run = f"score to use: {scores['draw_score']:g}", run_of(path)
    try:
        with hold_run_folder(run, resume=True) if run else contextlib.nullcontext():  # a living run may write it
            remember(path, scores)
        say(f"{text}; '{path}' now holds it, and predict.py draws from it on")
    except SSDError as error:
        say(f"{text}; give predict.py --draw_score={scores['draw_score']:g} ({error})")


def model_split(options: EasyDict, predict: Predictor, *, rank: int, say: Callable[[str], None]) -> Split:
    """The validation split with the classes of the model, converted when needed. Raises OptionError, DataError."""
    from src.config import split_options
    from src.data.labels import classes_from
    from src.data.prepare import prepare_split

    with classes_from(f"the list is that of '{options.checkpoint_file_path}': give data of its classes, or another "
                      "--checkpoint_file_path"):
        split = prepare_split(**split_options(options, "val"), classes=predict.classes, rank=rank, log=say)
    if list(split.classes) != list(predict.classes):
        raise OptionError(f"the model knows {', '.join(predict.classes)}; the data has {', '.join(split.classes)}")
    return split


if __name__ == "__main__":
    run_main(main)
