"""Finds objects in pictures, videos, a stream or a camera: drawings and JSON files, a window, or a web page.

    python predict.py --checkpoint_file_path=ssd.mindir --source=pictures/ --output_path=found
    python predict.py --checkpoint_file_path=ssd.mindir --source=0 --view=True
    python predict.py --checkpoint_file_path=ssd.mindir --serve=8000
"""
from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from src.errors import DataError, Interrupted, OptionError, run_main, smaller_batch
from src.machine import process
from src.machine.stop_signals import leaving_at_once

if TYPE_CHECKING:
    import numpy as np
    from easydict import EasyDict

    from src.inference.found import Detections
    from src.inference.outputs import Outputs
    from src.inference.predictor import Predictor
    from src.inference.sources import Picture, Source

THRESHOLDS = ("draw_score", "class_scores", "min_score", "nms_threshold", "max_boxes")  # in each row, unless empty


def main() -> None:
    """Reads the options, loads the model, predicts on the source."""
    from src.config import model_options, read_options, unused_note

    options = read_options(sys.argv[1:], "predict.py", doc=__doc__)
    is_live = check_live(options)
    source = None if options.serve and not options.source else find_source(options.source, options.output_path)
    from src.inference.tiles import batch_size, read_tiles

    windows = read_tiles(options.tiles)
    note = unused_note(options, "predict.py")
    if note:
        print(note, flush=True)
    process.prepare(options.device_target)
    from src.inference.found import read_scores, shown_scores
    from src.inference.predictor import load_predictor
    from src.machine import distributed

    pictures = 1 if is_live or source.live else source.total
    with leaving_at_once():
        distributed.start(options.device_target, options.device_id)
        predict = load_predictor(options.checkpoint_file_path, compile_cache=options.compile_cache,
                                 batch_size=batch_size(options.eval_batch_size, len(windows), pictures),
                                 **model_options(options), say=partial(print, flush=True))
    predict.meta.update(read_scores(options.score_threshold, predict.classes, predict.meta))
    scores = shown_scores(predict.classes, options.only_classes, predict.meta)
    if is_live:
        show_live(predict, source, options, windows=windows, scores=scores)
    else:
        write_files(predict, source, options, windows=windows, scores=scores)


def check_live(options: EasyDict) -> bool:
    """Whether to show instead of writing files. Raises OptionError or EnvironmentFault where that cannot be."""
    if options.view and options.serve:
        raise OptionError("--view=True shows a window, --serve a web page; choose one of them")
    if options.serve and not options.host:
        raise OptionError("--host is empty; 127.0.0.1 serves this machine only, 0.0.0.0 others too")
    if options.view:
        from src.live.screen import check_screen
        check_screen()
    if options.serve:
        import src.live.server  # noqa: F401, its package may be missing
    return options.view or options.serve > 0


def find_source(text: str, output_path: str) -> Source:
    """The source that was typed. Raises OptionError or DataError where there is none, or drawings could replace it."""
    if not text:
        raise OptionError("--source is empty; give an image, a folder, a video, a camera number or an address")
    from src.inference.sources import open_source

    source = open_source(text, skip=output_path)
    if source.root and os.path.isdir(output_path) and os.path.samefile(source.root, output_path):
        raise OptionError(f"--output_path '{output_path}' is the folder of the source, whose files the drawings could "
                          "replace; choose another one")
    return source


# --- a window or a web page

def show_live(predict: Predictor, source: Source | None, options: EasyDict, *, windows: np.ndarray,
              scores: np.ndarray) -> None:
    """Shows what is found in a window or for browsers, until its end. windows, scores: as of write_files()."""
    import numpy as np

    from src.live.stream import Stream

    is_live = source is not None and source.live
    wanted = np.where(np.isfinite(scores), 0, np.inf)  # their least score is chosen there

    def detect(pixels: np.ndarray) -> Detections:
        return predict.detect(pixels, windows).from_scores(wanted)
    name, model = source.name if source else "Pictures", os.path.basename(options.checkpoint_file_path)
    score = predict.meta["draw_score"]
    with leaving_at_once():
        detect(np.zeros((8, 8, 3), np.uint8))  # compiles the model before the first frame comes
    open_again = partial(next, open_repeatedly(source, options)) if source else None
    with Stream(detect, open_again, live=is_live, repeat=options.serve > 0) as stream:
        if options.view:
            from src.live.window import show_window
            show_window(stream, predict.classes, title=f"{name} - {model}", score=score, folder=options.output_path)
            return
        from src.live.server import App, serve
        about = f"{predict.meta['model']} of {model}, {predict.image_size} pixels, {len(predict.classes)} class(es)"
        app = App(stream, predict.classes, title=name, about=about, scores=scores, score=score, host=options.host)
        serve(app, host=options.host, port=options.serve)


def open_repeatedly(source: Source, options: EasyDict) -> Iterator[Iterable[Picture]]:
    """The source each time that it is asked for, from its beginning; nothing while a stream of --serve is gone."""
    from src.inference.sources import open_source

    said, waits = "", source.live and options.serve > 0
    if source.live:  # while the network was compiled frames have become old, and the server may have given up
        source.video.close()
    else:
        yield source
    while True:
        try:
            source, said = open_source(options.source, skip=options.output_path), ""
        except DataError as error:
            if not waits:
                raise
            if str(error) != said:
                print(f"{error}; trying again", flush=True)
            source, said = (), str(error)
        yield source


# --- files

def write_files(predict: Predictor, source: Source, options: EasyDict, *, windows: np.ndarray,
                scores: np.ndarray) -> None:
    """Writes what is found in a source, and says it.

    windows [n, 4]: the parts of a picture that the network sees, as of tiles.py; scores [C]: the least of each class.
    """
    from src.files import output_folder
    from src.inference.outputs import Outputs

    thresholds = {name: predict.meta[name] for name in THRESHOLDS if predict.meta[name] != {}}
    with output_folder(options.output_path):
        save = [*options.save, "tensorboard"] if options.tensorboard else options.save
        outputs = Outputs(source, options.output_path, save=save, classes=predict.classes, thresholds=thresholds)
        with smaller_batch("eval_batch_size", predict.batch_size):
            interrupted = write_all(find_objects(predict, source, windows=windows, scores=scores), source, outputs)
        finish(source, outputs, scores, folder=options.output_path, interrupted=interrupted)


def find_objects(predict: Predictor, source: Source, *, windows: np.ndarray,
                 scores: np.ndarray) -> Iterator[tuple[Picture, Detections]]:
    """The pictures of a source with what is found in them. windows, scores: as of write_files()."""
    from src.inference.pipeline import detect_pictures

    with contextlib.closing(detect_pictures(predict, source, latest=source.live, windows=windows)) as results:
        with leaving_at_once():  # the first one compiles the model
            first = list(itertools.islice(results, 1))
        for picture, found in itertools.chain(first, results):
            yield picture, found.from_scores(scores)


def write_all(results: Iterator[tuple[Picture, Detections]], source: Source, outputs: Outputs) -> bool:
    """Writes what is found in all pictures; returns whether Ctrl-C or SIGTERM came before the end.

    The files are complete up to where this ends, however it ends.
    """
    from src.files import cleaned
    from src.inference.pipeline import write_behind
    from src.progress import track

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if source.live:
        print(f"reading {source.name}; Ctrl-C ends it", flush=True)
    try:
        with cleaned(outputs.close), write_behind(outputs.write) as write, contextlib.closing(results):
            for picture, found in track(results, source.total, "predicting"):
                write(picture, found)
    except KeyboardInterrupt:
        return True
    return False


def finish(source: Source, outputs: Outputs, scores: np.ndarray, *, folder: str, interrupted: bool) -> None:
    """Prints a summary. Raises Interrupted for a file that was not read to its end, DataError for what is broken.

    scores: the least of each class, [C].
    """
    from src.inference.found import score_words

    if interrupted and not outputs.rows and not source.live:
        raise KeyboardInterrupt  # as anywhere else where there is nothing to save
    if not outputs.rows and not interrupted:
        raise DataError(f"--source '{source.name}' gives no picture that can be read")
    min_score = outputs.thresholds["min_score"]
    hint = "" if outputs.objects and scores.min() >= min_score else f"; the model gives scores from {min_score} on"
    summary = (f"{outputs.objects} object(s) {score_words(scores)} in {outputs.rows} {source.unit}(s){hint}; "
               f"{outputs.names} in {folder}")
    if interrupted and not source.live:  # Ctrl-C is how a camera ends
        raise Interrupted(f"interrupted before the end of '{source.name}': {summary}")
    print("\n".join([*outputs.notes, summary]), flush=True)
    if source.broken:
        raise DataError(f"{len(source.broken)} of {len(source.paths)} file(s) cannot be read or are damaged, see 'left "
                        "out' and 'damaged' above; the rest is done")


if __name__ == "__main__":
    run_main(main)
