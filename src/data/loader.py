"""MindRecord -> batches. Order and augmentation follow from (seed, epoch, row) alone, so any run can be repeated."""
from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import cv2
import mindspore.dataset as ds
import numpy as np

from src.data.images import decode_image
from src.data.policies import build_policy
from src.data.transforms import GREY, Sample, augment, resize
from src.errors import DataError, out_of_memory
from src.matching import Matcher

FLAGS = ["labels", "crowd", "difficult"]
COLUMNS = ["image", "height", "width", "boxes", *FLAGS, "index"]
AHEAD = 3  # batches that are prepared while one is used


class TrainLoader:
    """Batches images [B, S, S, 3] uint8, labels [B, A] int32, targets [B, A, 4] float32, index [B] int64 (row numbers).

    files: MindRecord files; rows: how many of their rows, the first ones. Each epoch is a fresh permutation, split over
    `world` processes, so every row comes; the last batch of all is filled up from the beginning of the permutation.
    Crowd boxes are no training targets, difficult ones only with use_difficult.
    """

    def __init__(self, files: list[str], matcher: Matcher, *, rows: int, policy: str, image_size: int, batch_size: int,
                 seed: int = 1, rank: int = 0, world: int = 1, workers: int = 2, use_difficult: bool = True,
                 fill: tuple[float, ...] = GREY):
        self.files, self.rows, self.batch_size = files, rows, batch_size
        self.matcher, self.policy, self.image_size = matcher, build_policy(policy, image_size, fill), image_size
        self.seed, self.rank, self.world, self.workers = seed, rank, world, workers
        self.use_difficult = use_difficult
        self.steps = -(-rows // (batch_size * world))

    def order(self, epoch):
        """Row numbers [steps, world, B] of an epoch, the same on every process and for every split of a batch."""
        shuffled = np.random.default_rng((self.seed, epoch)).permutation(self.rows)
        return np.resize(shuffled, (self.steps, self.world, self.batch_size))

    def repeated(self) -> int:
        """How many images of an epoch come twice, or more often, to fill up its last batch."""
        return self.steps * self.world * self.batch_size - self.rows

    def has_targets(self) -> bool:
        """Whether any box can be trained on; as a rule the first row tells."""
        return any(self.wanted(*flags).any() for flags in read_rows(self.files, np.arange(self.rows), FLAGS))

    def wanted(self, labels, crowd, difficult):
        """Which boxes [N] of a row are training targets."""
        return (labels > 0) & (crowd == 0) & ((difficult == 0) | self.use_difficult)

    def epoch(self, epoch, first_step=0):
        """Iterates over the batches of this process, from first_step on."""
        mine = self.order(epoch)[first_step:, self.rank].reshape(-1)
        anchors, size = len(self.matcher.anchors), self.image_size
        parts = [((size, size, 3), np.uint8), ((anchors,), np.int32), ((anchors, 4), np.float32), ((), np.int64)]

        def prepare(sample, *columns):
            self.prepare(sample, epoch, *columns)

        return batches(self.files, mine, prepare, parts, self.batch_size, self.workers)

    def prepare(self, sample, epoch, image, boxes, labels, crowd, difficult, index):
        """One MindRecord row -> one training sample."""
        rng = np.random.default_rng((self.seed, epoch, int(index)))
        wanted = self.wanted(labels, crowd, difficult)
        boxes, labels = boxes.reshape(-1, 4)[wanted], labels[wanted]
        sample[0][:], boxes, labels = augment(Sample(image, boxes, labels), self.policy, size=self.image_size, rng=rng)
        positive, own_labels, deltas = self.matcher.match(boxes, labels)
        sample[1][:], sample[2][:], sample[3][...] = 0, 0, index
        sample[1][positive], sample[2][positive] = own_labels, deltas


class EvalLoader:
    """Batches images [n, S, S, 3] uint8 and index [n] int64; the last may be shorter, every row of `rows` comes once.

    With several processes each takes every world-th row. resize: "bilinear" or "antialias".
    """

    def __init__(self, files: list[str], *, rows: int, image_size: int, batch_size: int, rank: int = 0, world: int = 1,
                 workers: int = 2, resize: str = "bilinear"):
        self.files, self.image_size, self.batch_size, self.workers = files, image_size, batch_size, workers
        self.resize = resize
        self.rows = np.arange(rank, rows, world)

    def __iter__(self):
        size = self.image_size

        def prepare(sample, image, *rest):
            sample[0][:], sample[1][...] = resize(image, size, self.resize), rest[-1]

        parts = [((size, size, 3), np.uint8), ((), np.int64)]
        return batches(self.files, self.rows, prepare, parts, self.batch_size, self.workers)


def batches(files, rows, prepare, parts, batch_size, workers):
    """Reads the given rows in order and yields batches, each a list of arrays; the last may be shorter.

    parts: (shape, type) of each array of a sample. prepare(sample, image, boxes .. index) fills them, in one of the
    `workers` threads: decoding, resizing and colours are OpenCV's, which lets other threads run. Raises DataError for
    an image that can no longer be decoded.
    """
    if len(rows) == 0:
        return
    cv2.setNumThreads(1)  # a thread a sample is enough
    reader = read_rows(files, rows)

    def work(sample, image, height, width, *columns):
        pixels = decode_image(image, int(height), int(width))
        if pixels is None:
            raise DataError(f"the image of row {columns[-1]} in '{files[0]}' is damaged; remove the folder of that "
                            "file, and the next run converts the data anew")
        prepare(sample, pixels, *columns)

    def begin(batch):
        samples = ([part[place, ...] for part in batch] for place in range(len(batch[0])))
        try:
            tasks = [pool.submit(work, sample, *columns) for sample, columns in zip(samples, reader)]
            if len(tasks) < len(batch[0]):
                raise RuntimeError(f"only {len(tasks)} of {len(batch[0])} rows came")
        except (RuntimeError, ValueError) as error:
            raise unreadable(error, files[0]) from error
        return batch, tasks

    # rows are read by the caller's thread: MindSpore's reader ends the process when it meets an error in another one
    pool, waiting = ThreadPoolExecutor(workers), deque()
    try:
        for start in range(0, len(rows), batch_size):
            count = min(batch_size, len(rows) - start)
            waiting.append(begin([np.empty((count, *shape), kind) for shape, kind in parts]))
            if len(waiting) > AHEAD:
                yield finished(*waiting.popleft())
        while waiting:
            yield finished(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def unreadable(error, file):
    """What to raise for an error of MindSpore's reader: the files are damaged, unless memory ran out."""
    if out_of_memory(error):
        return MemoryError(str(error))
    return DataError(f"the MindRecord files cannot be read: {' '.join(str(error).split())[:200]}; remove the folder of "
                     f"'{file}', and the next run converts the data anew")


def read_rows(files, rows, columns=COLUMNS):
    """Columns of the given rows in order, a row as often as it is named."""
    most = rows.max() + 1  # MindSpore takes no longer list of rows than a file has; this many it has at least
    for piece in np.split(rows, range(most, len(rows), most)):
        data = ds.MindDataset(files, columns, 1, sampler=ds.SubsetSampler(piece.tolist()))
        yield from data.create_tuple_iterator(num_epochs=1, output_numpy=True)


def finished(batch, tasks):
    """A batch when all of its samples are there."""
    for task in tasks:
        task.result()
    return batch
