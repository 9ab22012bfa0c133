"""MindRecord -> batches. Order and augmentation follow from (seed, epoch, row) alone, so any run can be repeated."""
from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future
from functools import cached_property

import numpy as np

from src.data.images import decode_image
from src.data.mindrecord import read_error, read_rows
from src.data.mosaic import augment_mosaic
from src.data.policies import build_policy
from src.data.resize import resize
from src.data.sampling import Sampler, repeat_factors
from src.data.transforms import GREY, Sample, augment
from src.data.workers import BATCHES_AHEAD, Batch, Processes, Row, Task, Threads
from src.errors import DataError, RankFault
from src.matching import Matcher

EVAL_COLUMNS = ["image", "height", "width", "index"]  # of mindrecord.SCHEMA
LABEL_COLUMNS = ["labels", "crowd", "difficult"]
TRAIN_COLUMNS = [*EVAL_COLUMNS, "boxes", *LABEL_COLUMNS]


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
                 mosaic_epochs: float = math.inf, processes: bool = False):
        """files: of MindRecord. rows: how many of their rows, the first ones. policy, fill: as of build_policy().
        workers: how many threads or, with `processes`, processes. use_difficult: whether difficult boxes are trained
        on. class_balance: threshold of repeat_factors(), a share of the images; 0: every image comes once. mosaic:
        share of the samples that are one, in the first mosaic_epochs epochs."""
        self.files, self.rows, self.batch_size = files, rows, batch_size
        self.matcher, self.policy, self.image_size = matcher, build_policy(policy, image_size, fill), image_size
        self.seed, self.rank, self.world, self.workers = seed, rank, world, workers
        self.use_difficult, self.processes = use_difficult, processes
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
        return batches(self.files, np.column_stack([rows, partners]), self.pool, columns=TRAIN_COLUMNS,
                       batch_size=self.batch_size,
                       details=lambda number: {"epoch": epoch, "copy": int(copies[number])})

    @cached_property
    def pool(self) -> Threads | Processes:
        """What calls prepare_sample(). It lasts until close(): processes take time to start."""
        anchors, size = len(self.matcher.anchors), self.image_size
        parts = [((size, size, 3), np.uint8), ((anchors,), np.int32), ((anchors, 4), np.float32), ((), np.int64)]
        if self.processes:
            return Processes(self.prepare_sample, parts, workers=self.workers, batch_size=self.batch_size)
        return Threads(self.prepare_sample, parts, workers=self.workers)

    def close(self) -> None:
        """Ends the workers; another epoch would start new ones."""
        if pool := vars(self).pop("pool", None):
            pool.close()

    def __getstate__(self) -> dict:
        """What a process of the pool needs: all but the pool."""
        return {name: value for name, value in vars(self).items() if name != "pool"}

    def prepare_sample(self, rows: list[Row], places: list[np.ndarray], *, epoch: int, copy: int) -> None:
        """Augments a row, or the four of a mosaic, and matches the boxes into places of a batch. copy: of Samples."""
        images, labels, targets, index = places
        key = (self.seed, epoch, int(rows[0]["index"]))
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
        pool = Threads(self.prepare_sample, parts, workers=self.workers)
        return batches(self.files, self.rows[:, None], pool, columns=EVAL_COLUMNS, batch_size=self.batch_size)

    def prepare_sample(self, rows: list[Row], places: list[np.ndarray]) -> None:
        """Resizes the image of a row into its place in a batch."""
        (row,), (images, index) = rows, places
        images[:] = resize(row_image(row, self.files[0]), self.image_size, self.resize)
        index[...] = row["index"]


def batches(files: list[str], rows: np.ndarray, pool: Threads | Processes, *, columns: list[str], batch_size: int,
            details: Callable[[int], dict] = lambda number: {}) -> Iterator[list[np.ndarray]]:
    """Reads rows in order and yields batches, each a list of arrays; the last may be shorter.

    rows: [n, k], the numbers of those that make a sample; a negative one is left out. details(number): what the pool's
    prepare() is given for the sample rows[number].
    """
    if len(rows) == 0:
        return
    # rows are read by the caller's thread: MindSpore's reader ends the process when it meets an error in another one
    reader, counts = read_rows(files, rows[rows >= 0], columns), (rows >= 0).sum(axis=1).tolist()
    waiting = deque()  # batches, each with the Futures of its samples

    def begin(start: int) -> None:
        count = min(batch_size, len(rows) - start)
        batch, futures = pool.new_batch(count), []
        waiting.append((batch, futures))
        for places in np.split(np.arange(count), range(pool.at_once, count, pool.at_once)):
            tasks = [Task(place, read_sample(reader, counts[start + place], files[0]), details(start + place))
                     for place in places.tolist()]
            futures.append(pool.submit(batch, tasks))

    try:
        for start in range(0, len(rows), batch_size):
            begin(start)
            if len(waiting) > BATCHES_AHEAD:
                yield finish(pool, waiting)
        while waiting:
            yield finish(pool, waiting)
    except BrokenExecutor as error:
        raise RankFault("a process of the loader was killed, perhaps because memory ran out (dmesg tells); try fewer "
                        "--num_workers, or --worker_kind=threads") from error
    finally:
        for future in [future for _, futures in waiting for future in futures if not future.cancel()]:
            future.exception()  # waits: it may still write into its batch
        waiting.clear()


def read_sample(reader: Iterator[Row], count: int, file: str) -> list[Row]:
    """The next rows, which make a sample. Raises DataError."""
    try:
        rows = list(itertools.islice(reader, count))
        if len(rows) == count:
            return rows
        raise RuntimeError("rows are missing at their end")
    except (RuntimeError, ValueError) as error:
        raise read_error(error, file) from error


def finish(pool: Threads | Processes, waiting: deque[tuple[Batch, list[Future]]]) -> list[np.ndarray]:
    """Takes the first batch when all of its samples are there, and hands it out."""
    batch, futures = waiting[0]
    for future in futures:
        future.result()
    waiting.popleft()
    return pool.hand_out(batch)


def row_image(row: Row, file: str) -> np.ndarray:
    """The image of a row, [H, W, 3] uint8 RGB. Raises DataError."""
    image = decode_image(row["image"], int(row["height"]), int(row["width"]))
    if image is None:
        raise DataError(f"the image of row {row['index']} in '{file}' is damaged; remove the folder of that file, and "
                        "the next run converts the data again")
    return image
