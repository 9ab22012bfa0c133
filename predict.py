"""Finds objects in pictures, videos, a stream or a camera: drawings and a JSON file.

    python predict.py --checkpoint_file_path=ssd.mindir --source=pictures/ --output_path=found
"""
from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

from src.errors import DataError, Interrupted, OptionError, run_main, smaller_batch
from src.machine import process

if TYPE_CHECKING:
    from src.inference.outputs import Outputs
    from src.inference.predictor import Predictor
    from src.inference.sources import Source


def main() -> None:
    """Reads the options, loads the model, predicts on the source."""
    from src.config import model_options, read_options, unused_note

    options = read_options(sys.argv[1:], "predict.py", doc=__doc__)
    source = find_source(options.source, options.output_path)
    note = unused_note(options, "predict.py")
    if note:
        print(note, flush=True)
    process.prepare(options.device_target)
    from src.files import output_folder
    from src.inference.outputs import Outputs
    from src.inference.predictor import load_predictor
    from src.machine import distributed

    distributed.start(options.device_target, options.device_id)
    # one picture at a time of a camera, and no more than there are
    batch_size = 1 if source.live else min(options.eval_batch_size, source.total or options.eval_batch_size)
    predict = load_predictor(options.checkpoint_file_path, batch_size=batch_size, compile_cache=options.compile_cache,
                             **model_options(options))
    names = ("draw_score", "class_scores", "min_score", "nms_threshold", "max_boxes")
    thresholds = {name: predict.meta[name] for name in names if name != "class_scores" or predict.meta[name]}
    with output_folder(options.output_path):
        outputs = Outputs(source, options.output_path, classes=predict.classes, thresholds=thresholds)
        interrupted = write_predictions(predict, source, outputs)
        summarize(source, outputs, options.output_path, interrupted=interrupted)


def find_source(text: str, output_path: str) -> Source:
    """The source that was typed. Raises OptionError or DataError where there is none, or drawings could replace it."""
    if not text:
        raise OptionError("--source is empty; give an image, a folder, a video, a camera number or an address")
    from src.inference.sources import open_source

    source = open_source(text, skip=output_path)
    if source.root and os.path.isdir(output_path) and os.path.samefile(source.root, output_path):
        raise OptionError(f"output_path '{output_path}' is the folder of the source, whose files the drawings could "
                          "replace; choose another one")
    return source


def write_predictions(predict: Predictor, source: Source, outputs: Outputs) -> bool:
    """Writes what is found in all pictures; returns whether Ctrl-C or SIGTERM came before the end.

    The files are complete up to where this ends, however it ends.
    """
    from src.evaluation.thresholds import scores_by_class
    from src.inference.pipeline import detect_pictures, write_behind
    from src.progress import track

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results = detect_pictures(predict, source, latest=source.live)
    draw_scores = scores_by_class(predict.classes, predict.meta["draw_score"], predict.meta["class_scores"])
    try:
        with contextlib.closing(outputs), write_behind(outputs.write) as write, contextlib.closing(results), \
                smaller_batch("eval_batch_size", predict.batch_size):
            for picture, found in track(results, source.total, "predicting"):
                write(picture, found.from_scores(draw_scores))
    except KeyboardInterrupt:
        return True
    return False


def summarize(source: Source, outputs: Outputs, folder: str, *, interrupted: bool) -> None:
    """Prints a summary. Raises Interrupted for a file that was not read to its end, DataError for what is broken."""
    if not outputs.rows and not interrupted:
        raise DataError(f"source '{source.name}' gives no picture that can be read")
    class_scores = outputs.thresholds.get("class_scores", {}).values()
    score = f"{outputs.thresholds['draw_score']} (--draw_score)"
    if class_scores:
        score = f"{min(class_scores)} to {max(class_scores)} (of its class, as measured)"
    hint = "" if outputs.objects else f"; the model gives scores from {outputs.thresholds['min_score']} on"
    text = (f"{outputs.objects} object(s) with a score of at least {score} in {outputs.rows} {source.unit}(s){hint}; "
            f"drawings and predictions.json are in {folder}")
    if interrupted and not source.live:  # Ctrl-C is how a camera ends
        raise Interrupted(f"interrupted before the end of '{source.name}': {text}")
    print("\n".join([*outputs.notes, text]), flush=True)
    if source.broken:
        raise DataError(f"{len(source.broken)} of {len(source.paths)} file(s) cannot be read or are damaged; the first "
                        f"is {source.broken[0]}")


if __name__ == "__main__":
    run_main(main)
