"""eval.py's way over a validation split against the sum of its parts: decoding alone, the detector alone.

    python bench/evaluation.py --coco_root=COCO --checkpoint_file_path=X.ckpt [--json=FILE]

Decoding: every image decoded and resized in as many threads as the machine has cores. Detector: the same batches out
of memory. Ours: loader, detector, boxes to COCO results, the twelve numbers. All in one process, the graph compiled
before; medians of three. On a CPU all of them use the same cores, so 1 is the best ratio to be had.
"""
import os

from common import arguments, median_seconds, report, row


def main():
    """Measures the parts and the whole."""
    parser = arguments(__doc__)
    parser.add_argument("--coco_root", type=os.path.expanduser, required=True)
    parser.add_argument("--checkpoint_file_path", type=os.path.expanduser, required=True)
    options = parser.parse_args()
    from src.config import model_options, read_options, split_options
    from src.machine import process
    process.prepare("CPU")
    from src.data.loader import EvalLoader
    from src.data.prepare import prepare_split
    from src.evaluation.evaluate import collect_detections, compute_metrics, to_coco
    from src.files import read_json
    from src.inference.predictor import load_predictor
    from src.machine.distributed import start
    typed = [f"--coco_root={options.coco_root}", f"--checkpoint_file_path={options.checkpoint_file_path}"]
    settings = read_options(typed)
    start()
    predict = load_predictor(options.checkpoint_file_path, batch_size=settings.eval_batch_size,
                             compile_cache=settings.compile_cache, **model_options(settings))
    split = prepare_split(**split_options(settings, "val"), classes=predict.classes, log=lambda text: None)
    truth = read_json(split.ground_truth)
    loader = EvalLoader(split.files, rows=split.count, image_size=predict.image_size, batch_size=predict.batch_size,
                        workers=os.cpu_count(), resize=predict.resize)
    batches = [images for images, _ in loader]
    predict(batches[0])
    decoding = median_seconds(lambda: list(loader), 3)
    detecting = median_seconds(lambda: [predict(images) for images in batches], 3)

    def evaluate():
        return compute_metrics(truth, to_coco(collect_detections(predict, loader), truth), dataset="coco")
    total = median_seconds(evaluate, 3)
    name = f"evaluation of {split.count} images, {predict.meta['model']}"
    print(f"decoding {decoding:.2f} s, detector {detecting:.2f} s")
    report([row(name, ours=total, peer=decoding + detecting, unit="s", compared_with="decoding + detector")],
           options.json)


if __name__ == "__main__":
    main()
