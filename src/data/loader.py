"""MindRecord -> batches. Order and augmentation follow from (seed, epoch, row) alone, so any run can be repeated."""
import mindspore.dataset as ds
import numpy as np

from src.data.images import decode_image
from src.data.policies import build_policy
from src.data.transforms import GREY, augment, resize
from src.errors import DataError

COLUMNS = ["image", "height", "width", "boxes", "labels", "crowd", "difficult", "index"]


class TrainLoader:
    """Batches images [B, S, S, 3] uint8, labels [B, A] int32, targets [B, A, 4] float32, index [B] int64 (row numbers).

    files: MindRecord files; rows: how many rows they hold. Each epoch is a fresh permutation, split over `world`
    processes; what does not fill a batch of all is left out of it. Crowd boxes are no training targets, difficult ones
    only with use_difficult.
    """

    def __init__(self, files, rows, matcher, policy, image_size, batch_size, seed=1, rank=0, world=1, workers=2,
                 use_difficult=True, fill=GREY):
        self.files, self.rows, self.batch_size = files, rows, batch_size
        self.matcher, self.policy, self.image_size = matcher, build_policy(policy, image_size, fill), image_size
        self.seed, self.rank, self.world, self.workers = seed, rank, world, workers
        self.use_difficult = use_difficult
        self.steps = rows // (batch_size * world)
        if self.steps == 0:
            raise DataError(f"batch_size={batch_size} on {world} process(es) needs {batch_size * world} training "
                            f"images, there are {rows}; use a smaller --batch_size")

    def order(self, epoch):
        """Row numbers [steps, world, B] of an epoch, the same on every process."""
        shuffled = np.random.default_rng((self.seed, epoch)).permutation(self.rows)
        return shuffled[:self.steps * self.world * self.batch_size].reshape(self.steps, self.world, self.batch_size)

    def epoch(self, epoch, first_step=0):
        """Iterates over the batches of this process, from first_step on."""
        mine = self.order(epoch)[first_step:, self.rank].reshape(-1)
        if len(mine) == 0:
            return iter(())

        def prepare(*columns):
            return self.sample(epoch, *columns)

        outputs = ["images", "labels", "targets", "index"]
        return batches(self.files, mine, prepare, outputs, self.batch_size, self.workers)

    def sample(self, epoch, image, height, width, boxes, labels, crowd, difficult, index):
        """One MindRecord row -> one training sample."""
        rng = np.random.default_rng((self.seed, epoch, int(index)))
        image = decode_image(image, int(height), int(width))
        wanted = (labels > 0) & (crowd == 0) & ((difficult == 0) | self.use_difficult)
        boxes, labels = boxes.reshape(-1, 4)[wanted], labels[wanted]
        image, boxes, labels = augment(image, boxes, labels, self.policy, self.image_size, rng)
        return image, *self.matcher(boxes, labels), np.int64(index)


class EvalLoader:
    """Batches images [n, S, S, 3] uint8 and index [n] int64; the last may be shorter, every row of `rows` comes once.

    With several processes each takes every world-th row. resize: "bilinear" or "antialias".
    """

    def __init__(self, files, rows, image_size, batch_size, rank=0, world=1, workers=2, resize="bilinear"):
        self.files, self.image_size, self.batch_size, self.workers = files, image_size, batch_size, workers
        self.resize = resize
        self.rows = np.arange(rank, rows, world)

    def __iter__(self):
        if len(self.rows) == 0:
            return iter(())

        def prepare(image, height, width, *rest):
            image = decode_image(image, int(height), int(width))
            return resize(image, self.image_size, self.resize), np.int64(rest[-1])

        return batches(self.files, self.rows, prepare, ["images", "index"], self.batch_size, self.workers)


def batches(files, rows, prepare, outputs, batch_size, workers):
    """Reads the given rows in order, maps each by `prepare`, yields tuples of numpy batches."""
    data = ds.MindDataset(files, COLUMNS, workers, sampler=ds.SubsetSampler(rows.tolist()))
    data = data.map(prepare, COLUMNS, outputs, num_parallel_workers=workers, python_multiprocessing=False)
    data = data.project(outputs).batch(batch_size)
    return data.create_tuple_iterator(num_epochs=1, output_numpy=True)
