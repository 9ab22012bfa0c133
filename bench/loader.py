"""Training images a second from MindRecord to batches, against the structure of the published MindSpore pipeline.

    python bench/loader.py --coco_root=COCO [--train_data_type=train2017] [--workers=2] [--json=FILE]
    python bench/loader.py --coco_root=COCO --scaling [--workers=16] [--json=FILE]

The published structure (model zoo official/cv/SSD, src/dataset.py) built here at equal cost: Decode, a Python map with
the crop (one trial at a time), resize, flip and matching (one box at a time against all anchors, all targets blended by
a mask), then MindSpore's colour jitter, normalisation and HWC2CHW, in as many processes as ours has threads. Ours is
the loader of train.py. The limit is JPEG decoding alone in as many threads. Each side runs in a fresh process; images a
second over --seconds after a first batch. With --scaling ours is the loader's processes, the peer its threads, and the
limit what one worker gives, the better of the two kinds, times their number.
"""
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from common import arguments, in_fresh_process, report, row

CASES = {"FPN-640, policy zoo": ("ssd_resnet50_fpn", "zoo", 16),
         "SSD300, policy zoo": ("ssd300_mobilenet_v2", "zoo", 32),
         "SSD300, policy nvidia": ("ssd300_resnet50", "nvidia", 32), "SSD300, policy ssd": ("ssd300_vgg16", "ssd", 32)}


def main():
    """Runs every case in its own process, both sides in turn."""
    parser = arguments(__doc__)
    parser.add_argument("--coco_root", type=os.path.expanduser, required=True)
    parser.add_argument("--train_data_type", default="train2017")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--worker_kind", default="auto", choices=("auto", "threads", "processes"))
    parser.add_argument("--scaling", action="store_true", help="measure our loader with 1, 2, 4 .. workers")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--side", help="measure one side alone and print its number")
    parser.add_argument("--case", default="FPN-640, policy zoo", choices=CASES)
    options = parser.parse_args()
    if options.side:
        print(json.dumps({"ours": ours, "published": published, "decode": decode}[options.side](options)))
        return
    rows = []
    for case in CASES:
        if options.scaling:
            rows += scaling(case, options.workers)
            continue
        numbers = {side: measure(side, case) for side in ("published", "ours", "decode")}
        rows.append(row(f"training loader, {case}", ours=numbers["ours"], peer=numbers["published"], unit="images/s",
                        compared_with="the published structure", limit=numbers["decode"], better="higher"))
    report(rows, options.json)


def measure(side, case, *more):
    """Images a second of one side, in a process of its own."""
    return in_fresh_process(os.path.abspath(__file__), *sys.argv[1:], f"--side={side}", f"--case={case}", *more)


def scaling(case, most):
    """A row for each number of workers: 1, 2, 4 .. and the last."""
    rows, one = [], 0
    for count in sorted({min(2 ** power, most) for power in range(most.bit_length() + 1)}):
        numbers = {kind: measure("ours", case, f"--worker_kind={kind}", f"--workers={count}")
                   for kind in ("threads", "processes")}
        one = one or max(numbers.values())
        rows.append(row(f"training loader, {case}, {count} processes", ours=numbers["processes"], unit="images/s",
                        peer=numbers["threads"], compared_with="threads", limit=count * one, better="higher"))
    return rows


def split_of(options):
    """The converted training split."""
    from src.data.prepare import prepare_split
    folder = os.path.join(tempfile.gettempdir(), "bench_mindrecord")
    return prepare_split("train", "coco", mindrecord_dir=folder, classes=[], log=lambda text: None,
                         coco_root=options.coco_root, split_name=options.train_data_type)


def count_images(batches, options):
    """Images a second of an endless iterator of batch sizes."""
    next(batches)
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < options.seconds:
        images += next(batches)
    return images / (time.perf_counter() - start)


def ours(options):
    """The loader of train.py."""
    from src.machine import process
    process.prepare("CPU")
    from src.data.loader import TrainLoader
    from src.data.workers import use_processes
    from src.matching import Matcher
    from src.models.ssd import build_model
    name, policy, batch_size = CASES[options.case]
    split, model = split_of(options), build_model(name, 81)
    loader = TrainLoader(split.files, Matcher(model.anchors), rows=split.count, policy=policy,
                         image_size=model.image_size, batch_size=batch_size, workers=options.workers,
                         processes=use_processes(options.worker_kind, options.workers))
    return count_images((len(batch[0]) for epoch in range(10 ** 6) for batch in loader.epoch(epoch)), options)


def published(options):
    """The published structure, for any policy: its crop, resize, flip and colours are those of policy zoo."""
    import mindspore.dataset as ds
    import mindspore.dataset.vision as vision
    import numpy as np

    from src.models.ssd import build_model
    name, _, batch_size = CASES[options.case]
    split, model = split_of(options), build_model(name, 81)
    size, rng = model.image_size, np.random.default_rng(1)
    half = model.anchors[:, 2:] / 2
    corners = np.concatenate([model.anchors[:, :2] - half, model.anchors[:, :2] + half], axis=1)

    def prepare(image, boxes, labels):
        return published_sample(image, boxes, labels, size, corners, model.anchors, rng)

    data = ds.MindDataset(split.files, ["image", "boxes", "labels"], options.workers, shuffle=True)
    data = data.map(vision.Decode(), "image", num_parallel_workers=options.workers)
    data = data.map(prepare, ["image", "boxes", "labels"], ["image", "targets", "labels", "positives"],
                    num_parallel_workers=options.workers, python_multiprocessing=True)
    colours = [vision.RandomColorAdjust(0.4, 0.4, 0.4), vision.Normalize(list(model.mean), list(model.std)),
               vision.HWC2CHW()]
    data = data.map(colours, "image", num_parallel_workers=options.workers)
    data = data.project(["image", "targets", "labels", "positives"]).batch(batch_size, drop_remainder=True)
    return count_images(endless(data), options)


def endless(data):
    """Batch sizes of a dataset, epoch after epoch."""
    iterator = data.create_tuple_iterator(num_epochs=10 ** 4, output_numpy=True)
    while True:
        for batch in iterator:
            yield len(batch[0])


def published_sample(image, boxes, labels, size, corners, anchors, rng):
    """One sample in the published order and granularity."""
    import cv2
    import numpy as np
    height, width = image.shape[:2]
    boxes = boxes.reshape(-1, 4) * (width, height, width, height)
    minimum = rng.choice([0, 0.1, 0.3, 0.5, 0.7, 0.9, None])
    for _ in range(50 if minimum is not None else 0):
        w, h = rng.uniform(0.3, 1) * width, rng.uniform(0.3, 1) * height
        if not 0.5 <= h / w <= 2:
            continue
        left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
        region = np.array([int(left), int(top), int(left + w), int(top + h)])
        overlap = pairwise(boxes, region)
        if len(overlap) and overlap.min() < minimum and overlap.max() > minimum + 0.2:
            continue
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((centre > region[:2]) & (centre < region[2:])).all(axis=1)
        if inside.any():
            image = image[region[1]:region[3], region[0]:region[2]]
            boxes, labels = boxes[inside].copy(), labels[inside]
            boxes[:, :2] = np.maximum(boxes[:, :2], region[:2]) - region[:2]
            boxes[:, 2:] = np.minimum(boxes[:, 2:], region[2:]) - region[:2]
            break
    height, width = image.shape[:2]
    image = cv2.resize(image, (size, size))
    boxes = boxes / (width, height, width, height)
    if rng.uniform() < 0.5:
        image = cv2.flip(image, 1)
        boxes[:, [0, 2]] = 1 - boxes[:, [2, 0]]
    return image, *published_match(boxes, labels, corners, anchors)


def published_match(boxes, labels, corners, anchors):
    """Matching in the published granularity."""
    import numpy as np
    best, classes, owned = np.zeros(len(anchors), np.float32), np.zeros(len(anchors), np.int64), np.zeros(anchors.shape)
    for box, label in zip(boxes, labels):
        scores = pairwise(corners, box)
        scores[scores.argmax()] = 2
        mask = (scores > 0.5) & (scores > best)
        best = np.maximum(best, scores * mask)
        classes = mask * label + (1 - mask) * classes
        for side in range(4):
            owned[:, side] = mask * box[side] + (1 - mask) * owned[:, side]
    targets = np.zeros((len(anchors), 4), np.float32)
    targets[:, :2], targets[:, 2:] = (owned[:, :2] + owned[:, 2:]) / 2, owned[:, 2:] - owned[:, :2]
    chosen = np.flatnonzero(classes)
    targets[chosen, :2] = (targets[chosen, :2] - anchors[chosen, :2]) / (anchors[chosen, 2:] * 0.1)
    targets[chosen, 2:] = np.log(np.maximum(targets[chosen, 2:] / anchors[chosen, 2:], 1e-6)) / 0.2
    return targets, classes.astype(np.int32), np.int32(len(chosen))


def pairwise(boxes, box):
    """IoU of boxes [N, 4] with one box, a column at a time."""
    import numpy as np
    x1, y1, x2, y2 = np.split(boxes, 4, axis=-1)
    wide = np.maximum(np.minimum(x2, box[2]) - np.maximum(x1, box[0]), 0)
    high = np.maximum(np.minimum(y2, box[3]) - np.maximum(y1, box[1]), 0)
    shared = wide * high
    return np.squeeze(shared / ((x2 - x1) * (y2 - y1) + (box[2] - box[0]) * (box[3] - box[1]) - shared), axis=1)


def decode(options):
    """JPEG decoding alone, all images again and again in `workers` threads."""
    import cv2
    import numpy as np
    cv2.setNumThreads(1)
    folder = os.path.join(options.coco_root, options.train_data_type)
    files = [np.fromfile(entry.path, np.uint8) for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)]
    with ThreadPoolExecutor(options.workers) as pool:
        def batches():
            while True:
                yield sum(1 for _ in pool.map(lambda data: cv2.imdecode(data, cv2.IMREAD_COLOR), files))
        return count_images(batches(), options)


if __name__ == "__main__":
    main()
