"""MindRecord -> batches. Order and augmentation follow from (seed, epoch, row) alone, so any run can be repeated."""
from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import cv2
import numpy as np

from src.data.images import decode_image
from src.data.mindrecord import read_error, read_rows
from src.data.mosaic import augment_mosaic
from src.data.policies import build_policy
from src.data.resize import resize
from src.data.sampling import Sampler, repeat_factors
from src.data.transforms import GREY, Sample, augment
from src.errors import DataError
from src.matching import Matcher

EVAL_COLUMNS = ["image", "height", "width", "index"]  # of mindrecord.SCHEMA
LABEL_COLUMNS = ["labels", "crowd", "difficult"]
TRAIN_COLUMNS = [*EVAL_COLUMNS, "boxes", *LABEL_COLUMNS]
BATCHES_AHEAD = 3  # that are prepared while one is used
Row = dict[str, np.ndarray]  # of MindRecord, by column


class TrainLoader:
    """Batches images [B, S, S, 3] uint8, labels [B, A] int32, targets [B, A, 4] float32, index [B] int64 (row numbers).

    Each epoch is a fresh permutation, split over `world` processes, so that every row comes; the last batch of all is
    filled up from the beginning of the permutation. Crowd boxes are not trained on. With class_balance images of rare
    classes come more often, see sampling.py; with mosaic some images get partners, see mosaic.py, and index names the
    first row of the four.
    """

    def __init__(self, files: list[str], matcher: Matcher, *, rows: int, policy: str, image_size: int, batch_size: int,
                 seed: int = 1, rank: int = 0, world: int = 1, workers: int = 2, use_difficult: bool = True,
                 fill: tuple[float, ...] = GREY, class_balance: float = 0.0, mosaic: float = 0.0,
                 mosaic_epochs: float = math.inf):
        """files: of MindRecord. rows: how many of their rows, the first ones. policy, fill: as of build_policy().
        workers: threads. use_difficult: whether difficult boxes are trained on. class_balance: threshold of
        repeat_factors(), a share of the images; 0: every image comes once. mosaic: share of the samples that are one,
        in the first mosaic_epochs epochs."""
        self.files, self.rows, self.batch_size = files, rows, batch_size
        self.matcher, self.policy, self.image_size = matcher, build_policy(policy, image_size, fill), image_size
        self.seed, self.rank, self.world, self.workers = seed, rank, world, workers
        self.use_difficult = use_difficult
        factors, self.class_factors = None, {}
        if class_balance:
            classes = [np.unique(row["labels"][self.trainable(row)]) for row in self.read_labels()]
            factors, self.class_factors = repeat_factors(classes, class_balance)
        self.sampler = Sampler(seed, rows, factors, mosaic=mosaic, mosaic_epochs=mosaic_epochs)
        self.steps = -(-self.sampler.length // (batch_size * world))

    def places(self) -> np.ndarray:
        """Which sample of an epoch stands where in its batches, [steps, world, B]."""
        return np.resize(np.arange(self.sampler.length), (self.steps, self.world, self.batch_size))

    def order(self, epoch: int) -> np.ndarray:
        """Row numbers [steps, world, B] of an epoch, the same on every process and for every split of a batch."""
        return self.sampler.samples(epoch).rows[self.places()]

    def repeated(self) -> int:
        """How many samples of an epoch come twice, or more often, to fill up its last batch."""
        return self.steps * self.world * self.batch_size - self.sampler.length

    def limit_mosaics(self, epochs: int) -> None:
        """Makes mosaics in the first epochs only; for those that have not begun."""
        self.sampler.mosaic_epochs = epochs

    def has_targets(self) -> bool:
        """Whether any box can be trained on; as a rule the first row tells."""
        return any(self.trainable(row).any() for row in self.read_labels())

    def unmatched(self) -> tuple[int, int]:
        """How many training targets get no anchor before any augmentation, and how many there are."""
        chosen = [row["boxes"].reshape(-1, 4)[self.trainable(row)]
                  for row in read_rows(self.files, np.arange(self.rows), [*LABEL_COLUMNS, "boxes"])]
        return sum(map(self.matcher.unmatched, chosen)), sum(map(len, chosen))

    def read_labels(self) -> Iterator[Row]:
        """The columns of every row from which trainable() tells."""
        return read_rows(self.files, np.arange(self.rows), LABEL_COLUMNS)

    def trainable(self, row: Row) -> np.ndarray:
        """Which boxes [N] of a row are training targets."""
        return (row["labels"] > 0) & (row["crowd"] == 0) & ((row["difficult"] == 0) | self.use_difficult)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[list[np.ndarray]]:
        """Iterates over the batches of this process, from first_step on."""
        own = self.places()[first_step:, self.rank].reshape(-1)
        rows, copies, partners = (column[own] for column in self.sampler.samples(epoch))
        anchors, size = len(self.matcher.anchors), self.image_size
        parts = [((size, size, 3), np.uint8), ((anchors,), np.int32), ((anchors, 4), np.float32), ((), np.int64)]
        prepare = partial(self.prepare_sample, epoch=epoch, copies=copies)
        return batches(self.files, np.column_stack([rows, partners]), prepare, columns=TRAIN_COLUMNS, parts=parts,
                       batch_size=self.batch_size, workers=self.workers)

    def prepare_sample(self, number: int, rows: list[Row], places: list[np.ndarray], *, epoch: int,
                       copies: np.ndarray) -> None:
        """Augments a row, or the four of a mosaic, and matches the boxes into places of a batch.

        copies[number]: as of Samples.
        """
        images, labels, targets, index = places
        key, copy = (self.seed, epoch, int(rows[0]["index"])), int(copies[number])
        rng = np.random.default_rng((*key, copy) if copy else key)
        samples = [self.read_sample(row) for row in rows]
        if len(samples) == 1:
            sample = augment(samples[0], self.policy, size=self.image_size, rng=rng)
        else:
            sample = augment_mosaic(samples, self.policy, size=self.image_size, rng=rng)
        positive, positive_labels, deltas = self.matcher.match(sample.boxes, sample.labels)
        images[:], index[...] = sample.image, rows[0]["index"]
        labels[:], targets[:] = 0, 0
        labels[positive], targets[positive] = positive_labels, deltas

    def read_sample(self, row: Row) -> Sample:
        """The image of a row with its boxes that are trained on. Raises DataError."""
        chosen = self.trainable(row)
        return Sample(row_image(row, self.files[0]), row["boxes"].reshape(-1, 4)[chosen], row["labels"][chosen])


class EvalLoader:
    """Batches images [n, S, S, 3] uint8 and index [n] int64; the last may be shorter, every row of `rows` comes once.

    With several processes each takes every world-th row. resize: as of transforms.resize().
    """

    def __init__(self, files: list[str], *, rows: int, image_size: int, batch_size: int, rank: int = 0, world: int = 1,
                 workers: int = 2, resize: str = "bilinear"):
        self.files, self.image_size, self.batch_size, self.workers = files, image_size, batch_size, workers
        self.resize = resize
        self.rows = np.arange(rank, rows, world)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        parts = [((self.image_size, self.image_size, 3), np.uint8), ((), np.int64)]
        return batches(self.files, self.rows[:, None], self.prepare_sample, columns=EVAL_COLUMNS, parts=parts,
                       batch_size=self.batch_size, workers=self.workers)

    def prepare_sample(self, _number: int, rows: list[Row], places: list[np.ndarray]) -> None:
        """Resizes the image of a row into its place in a batch."""
        (row,), (images, index) = rows, places
        images[:] = resize(row_image(row, self.files[0]), self.image_size, self.resize)
        index[...] = row["index"]


def batches(files: list[str], rows: np.ndarray, prepare_sample: Callable[[int, list[Row], list[np.ndarray]], None], *,
            columns: list[str], parts: list[tuple[tuple[int, ...], type]], batch_size: int,
            workers: int) -> Iterator[list[np.ndarray]]:
    """Reads rows in order and yields batches, each a list of arrays; the last may be shorter.

    rows: [n, k], the numbers of those that make a sample; a negative one is left out. parts: shape and type of each
    array of a sample. prepare_sample(number, its rows, places in the batch) fills them for rows[number] in one of the
    `workers` threads: decoding, resizing and colours are OpenCV's, which lets other threads run.
    """
    if len(rows) == 0:
        return
    cv2.setNumThreads(1)  # one thread per sample is enough
    # rows are read by the caller's thread: MindSpore's reader ends the process when it meets an error in another one
    reader, counts = read_rows(files, rows[rows >= 0], columns), (rows >= 0).sum(axis=1).tolist()
    pool, waiting = ThreadPoolExecutor(workers), deque()

    def begin(batch: list[np.ndarray], start: int) -> list[Future]:
        tasks = []
        try:
            for place, count in enumerate(counts[start:start + len(batch[0])]):
                read = list(itertools.islice(reader, count))
                if len(read) < count:
                    break
                tasks.append(pool.submit(prepare_sample, start + place, read, [part[place, ...] for part in batch]))
        except (RuntimeError, ValueError) as error:
            raise read_error(error, files[0]) from error
        if len(tasks) < len(batch[0]):
            raise read_error(RuntimeError(f"only {len(tasks)} of {len(batch[0])} samples came"), files[0])
        return tasks

    try:
        for start in range(0, len(rows), batch_size):
            count = min(batch_size, len(rows) - start)
            batch = [np.empty((count, *shape), kind) for shape, kind in parts]
            waiting.append((batch, begin(batch, start)))
            if len(waiting) > BATCHES_AHEAD:
                yield finish(*waiting.popleft())
        while waiting:
            yield finish(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def row_image(row: Row, file: str) -> np.ndarray:
    """The image of a row, [H, W, 3] uint8 RGB. Raises DataError."""
    image = decode_image(row["image"], int(row["height"]), int(row["width"]))
    if image is None:
        raise DataError(f"the image of row {row['index']} in '{file}' is damaged; remove the folder of that file, and "
                        "the next run converts the data again")
    return image


def finish(batch: list[np.ndarray], tasks: list[Future]) -> list[np.ndarray]:
    """A batch when all of its samples are there."""
    for task in tasks:
        task.result()
    return batch
