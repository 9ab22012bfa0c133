"""Measures a .ckpt, .mindir or .onnx on a validation split: official COCO protocol, or VOC's for --dataset=voc.

    python eval.py --dataset=coco --coco_root=DATA --checkpoint_file_path=runs/first/ckpt/best.ckpt
"""
import os
import sys
import time

from src import runtime
from src.errors import OptionError, run_main, smaller_batch


def main():
    """Reads the options and evaluates."""
    from src.config import read_options

    options = read_options(sys.argv[1:], "eval.py")
    with smaller_batch("eval_batch_size", options.eval_batch_size):
        evaluate(options)


def evaluate(options):
    """Runs the model over the split, writes metrics, detections and pictures."""
    from src.config import split_options

    runtime.prepare(options.device_target, options.run_distribute, options.device_num)
    from src import distributed
    from src.data.loader import EvalLoader
    from src.data.mindrecord import prepare_split
    from src.evaluate import collect, first_images, score
    from src.metrics import format_metrics, import_engine, write_metrics
    from src.predictor import load_predictor
    from src.report import draw_report
    from src.run_folder import make_folder, read_json

    import_engine(options.metric_engine)  # before the work whose result it counts
    rank, world = distributed.start(options.device_target, options.device_id, options.run_distribute)
    say = print if rank == 0 else (lambda text: None)
    predict = load_predictor(options.checkpoint_file_path, options)
    folder = result_folder(options)
    if rank == 0:
        make_folder(folder)  # before the work whose result it shall take
    split = prepare_split(**split_options(options, "val"), classes=predict.classes, rank=rank, log=say)
    if list(split.classes) != list(predict.classes):
        raise OptionError(f"the model knows {', '.join(predict.classes)}; the data has {', '.join(split.classes)}")
    truth = first_images(read_json(split.ground_truth), options.eval_images)
    loader = EvalLoader(split.files, len(truth["images"]), predict.image_size, predict.batch_size, rank, world,
                        options.num_workers or runtime.loader_threads(), predict.resize)
    say(f"{predict.meta['model']} on {len(truth['images'])} images of {split.name}, min_score "
        f"{predict.meta['min_score']}, nms_threshold {predict.meta['nms_threshold']}, at most "
        f"{predict.meta['max_boxes']} boxes an image")
    start = time.time()
    table = collect(predict, loader, rank, world)
    if rank == 0:
        seconds = time.time() - start
        metrics, detections = score(table, truth, options.dataset, options.metric_engine)
        write_metrics(folder, metrics, detections)
        draw_report(folder, metrics, detections, truth, table, split, predict.classes, options.draw_score,
                    options.metric_engine)
        say(format_metrics(metrics))
        if not detections:
            say(f"nothing was detected: no score exceeds min_score {predict.meta['min_score']} (after few steps of "
                f"training scores are low; try --min_score=0.01)")
        say(f"{len(truth['images'])} images in {seconds:.1f} s ({len(truth['images']) / seconds:.1f} images/s with "
            f"compiling); metrics.json, detections.json and pictures are in {folder}")


def result_folder(options):
    """eval/ in output_path when that was given, else in the run the checkpoint lies in."""
    if "output_path" in options.typed:
        return os.path.join(options.output_path, "eval")
    folder = os.path.dirname(os.path.abspath(options.checkpoint_file_path))
    run = os.path.dirname(folder)
    in_run = os.path.basename(folder) == "ckpt" and os.path.isfile(os.path.join(run, "config.yaml"))
    return os.path.join(run if in_run else folder, "eval")


if __name__ == "__main__":
    run_main(main)
