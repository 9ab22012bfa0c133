"""Finds objects in an image, a folder, a video or a camera: drawings and a JSON file.

    python predict.py --checkpoint_file_path=ssd.mindir --source=pictures/ --output_path=found
"""
from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from src.errors import DataError, Interrupted, OptionError, run_main
from src.machine import process

if TYPE_CHECKING:
    import numpy as np

    from src.inference.drawings import ImageWriter, VideoWriter
    from src.inference.predictor import Predictor
    from src.inference.sources import ImageFiles, VideoReader


def main() -> None:
    """Reads the options, loads the model, predicts on the source."""
    from src.config import model_options, read_options, unused_note

    options = read_options(sys.argv[1:], "predict.py", doc=__doc__)
    check_source(options.source, options.output_path)
    note = unused_note(options, "predict.py")
    if note:
        print(note, flush=True)
    process.prepare(options.device_target)
    from src.files import output_folder
    from src.inference.predictor import load_predictor
    from src.machine import distributed

    distributed.start(options.device_target, options.device_id)
    predict = load_predictor(options.checkpoint_file_path, batch_size=1, compile_cache=options.compile_cache,
                             **model_options(options))
    with output_folder(options.output_path):
        write_predictions(predict, options.source, options.output_path)


def check_source(source: str, output_path: str) -> None:
    """Raises OptionError or DataError for a source that is not there, or whose files the drawings could replace."""
    if not source:
        raise OptionError("--source is empty; give an image, a folder, a video or a camera number")
    if not os.path.exists(source):
        if source.isdigit():
            return
        raise DataError(f"source '{source}' does not exist")
    folder = source if os.path.isdir(source) else os.path.dirname(os.path.abspath(source))
    if os.path.isdir(output_path) and os.path.samefile(folder, output_path):
        raise OptionError(f"output_path '{output_path}' is the folder of the source, whose files the drawings could "
                          "replace; choose another one")


def write_predictions(predict: Predictor, source: str, folder: str) -> None:
    """Writes drawings and predictions.json into folder, and says what was found."""
    from src.evaluation.thresholds import scores_by_class
    from src.files import write_atomic
    from src.inference.drawings import open_drawings
    from src.inference.sources import open_source

    pictures = open_source(source)
    drawings = open_drawings(pictures, folder)
    draw_score, class_scores = predict.meta["draw_score"], predict.meta["class_scores"]
    rows, interrupted = predict_pictures(predict, pictures, drawings,
                                         draw_score=scores_by_class(predict.classes, draw_score, class_scores))
    if not rows and not interrupted:
        raise DataError(f"source '{source}' gives no picture that can be read")
    names = ("min_score", "nms_threshold", "max_boxes")
    thresholds = {"draw_score": draw_score, **({"class_scores": class_scores} if class_scores else {}),
                  **{name: predict.meta[name] for name in names}}
    rows = [{**row, "thresholds": thresholds} for row in rows]
    write_atomic(os.path.join(folder, "predictions.json"), json.dumps(rows, indent=1).encode())
    count = sum(len(row["objects"]) for row in rows)
    hint = "" if count else f"; the model gives scores from {predict.meta['min_score']} on"
    score = f"{draw_score} (--draw_score)"
    if class_scores:
        score = f"{min(class_scores.values())} to {max(class_scores.values())} (of its class, as measured)"
    text = (f"{count} object(s) with a score of at least {score} in {len(rows)} {pictures.unit}(s)"
            f"{hint}; drawings and predictions.json are in {folder}")
    if interrupted and not source.isdigit():  # Ctrl-C is how a camera ends
        raise Interrupted(f"interrupted before the end of '{source}': {text}")
    print("\n".join([*drawings.notes, text]))


def predict_pictures(predict: Predictor, pictures: ImageFiles | VideoReader, drawings: ImageWriter | VideoWriter, *,
                     draw_score: float | np.ndarray) -> tuple[list[dict], bool]:
    """The rows of predictions.json, and whether Ctrl-C came before the last; a drawn video is complete up to there."""
    from src.inference.drawings import draw_objects

    rows = []
    try:
        for pixels, row in pictures:
            drawing, objects = draw_objects(pixels, predict.detect(pixels), classes=predict.classes,
                                            draw_score=draw_score)
            rows.append({**drawings.write(drawing, row), "objects": objects})
    except KeyboardInterrupt:
        return rows, True
    finally:
        drawings.close()
    return rows, False


if __name__ == "__main__":
    run_main(main)
