"""predict.py on a video against the network alone.

    python bench/video.py --checkpoint_file_path=X.ckpt --source=VIDEO [--eval_batch_size=8] [--device_target=CPU]
        [--repeats=3] [--json=FILE]

Ours: frames a second of what predict.py does: decoding, resizing, network, drawing, an .mp4 and both JSON files. The
limit it is compared with: the network alone on the same frames, resized before. Both in one process and in turn, the
graph compiled before; medians. On a CPU reading and writing take their time from the network's own cores.
"""
import contextlib
import io
import os
import tempfile

from common import arguments, median_seconds, report, row


def main():
    """Measures the network, then the whole program."""
    parser = arguments(__doc__)
    parser.add_argument("--checkpoint_file_path", type=os.path.expanduser, required=True)
    parser.add_argument("--source", type=os.path.expanduser, required=True)
    parser.add_argument("--eval_batch_size", type=int, default=8)
    parser.add_argument("--device_target", default="CPU")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    from src.config import model_options, read_options
    from src.machine import process
    process.prepare(options.device_target)
    import numpy as np

    from src.data.transforms import resize
    from src.inference.predictor import load_predictor
    from src.inference.sources import open_source
    from src.machine import distributed
    distributed.start(options.device_target)
    settings = read_options([f"--device_target={options.device_target}"], "predict.py")
    predict = load_predictor(options.checkpoint_file_path, batch_size=options.eval_batch_size,
                             compile_cache=settings.compile_cache, **model_options(settings))
    squares = [resize(picture.pixels, predict.image_size, predict.resize) for picture in open_source(options.source)]
    batches = [np.stack(squares[start:start + predict.batch_size])
               for start in range(0, len(squares), predict.batch_size)]
    alone = median_seconds(lambda: [predict(images) for images in batches], options.repeats)
    whole = median_seconds(lambda: run(predict, options.source), options.repeats)
    name = f"predict.py on {len(squares)} frames, {predict.meta['model']}, batch {predict.batch_size}"
    report([row(f"{name}, {options.device_target}", ours=len(squares) / whole, peer=len(squares) / alone,
                unit="frames/s", compared_with="the network alone", better="higher")], options.json)


def run(predict, path):
    """What predict.py does with a video when the model is loaded."""
    from predict import find_objects, write_all
    from src.inference.found import shown_scores
    from src.inference.outputs import Outputs
    from src.inference.sources import open_source
    from src.inference.tiles import WHOLE
    scores = shown_scores(predict.classes, [], predict.meta)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        source = open_source(path)
        outputs = Outputs(source, folder, save=["drawings", "coco"], classes=predict.classes, thresholds={})
        write_all(find_objects(predict, source, windows=WHOLE, scores=scores), source, outputs)


if __name__ == "__main__":
    main()
