"""A training step with its batch out of the loader against the same step on one batch again and again.

    python bench/end_to_end.py --coco_root=COCO [--model=ssd300_resnet50] [--batch_size=4] [--steps=8]
                               [--worker_kind=processes] [--json=FILE]

Ours: seconds between two steps of the loop of train.py, waiting for data included. The limit it is compared with: the
step alone. Both in one process, after the first step; medians. On a CPU the loader's workers take their time from the
step's own cores; on a GPU they have cores of their own.
"""
import itertools
import os
import statistics
import tempfile
import time

import numpy as np
from common import arguments, median_seconds, report, row


def main():
    """Measures the step alone, then with the loader."""
    parser = arguments(__doc__)
    parser.add_argument("--coco_root", type=os.path.expanduser, required=True)
    parser.add_argument("--train_data_type", default="train2017")
    parser.add_argument("--model", default="ssd300_resnet50")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--worker_kind", default="auto", choices=("auto", "threads", "processes"))
    options = parser.parse_args()
    from src.machine import process
    process.prepare("CPU")
    import mindspore as ms

    from src.data.loader import TrainLoader
    from src.data.prepare import prepare_split
    from src.data.workers import use_processes
    from src.matching import Matcher
    from src.models.ssd import build_model
    ms.set_context(mode=ms.GRAPH_MODE)
    folder = os.path.join(tempfile.gettempdir(), "bench_mindrecord")
    split = prepare_split("train", "coco", mindrecord_dir=folder, classes=[], log=lambda text: None,
                          coco_root=options.coco_root, split_name=options.train_data_type)
    model = build_model(options.model, len(split.classes) + 1)
    workers = process.loader_threads()
    loader = TrainLoader(split.files, Matcher(model.anchors), rows=split.count, policy="zoo",
                         image_size=model.image_size, batch_size=options.batch_size, workers=workers,
                         processes=use_processes(options.worker_kind, workers))
    step, flag = build_step(model), ms.Tensor(np.float32(0))

    def run(batch):
        return step(*map(ms.Tensor, batch), flag).asnumpy()

    batches = itertools.chain.from_iterable(loader.epoch(number) for number in itertools.count())
    first = next(batches)[:3]
    alone = median_seconds(lambda: run(first), options.steps)
    times, begun = [], time.perf_counter()
    for *batch, _ in itertools.islice(batches, options.steps):
        run(batch)
        times.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    report([row(f"step with loader, {options.model}, batch {options.batch_size}, CPU", ours=statistics.median(times),
                peer=alone, unit="s", compared_with="the step alone")], options.json)


def build_step(model):
    """The TrainStep of train.py for a model, with its own loss."""
    from src.losses import DetectionLoss, FocalLoss, MultiBoxLoss
    from src.optim import build_optimizer
    from src.training.step import TrainStep
    optimizer = build_optimizer(model.network.trainable_params(), np.full(99, 1e-4, np.float32))
    loss = FocalLoss() if model.score == "sigmoid" else MultiBoxLoss()
    step = TrainStep(model, DetectionLoss(loss), optimizer)
    step.set_train()
    return step


if __name__ == "__main__":
    main()
