"""Threads or processes that prepare samples: a pool gives an empty batch, has it filled, and hands it out."""
from __future__ import annotations

import contextlib
import itertools
import math
import multiprocessing
import os
import signal
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import NamedTuple

import cv2
import numpy as np

from src.errors import SSDError
from src.machine.process import keep_freed_memory
from src.machine.stop_signals import STOPS

BATCHES_AHEAD = 3   # that are prepared while one is used
BATCHES_HELD = 3    # that the user of a batch may still have: the one before, this one, and the next
SLOTS = BATCHES_AHEAD + 1 + BATCHES_HELD  # of shared memory, for a batch each
Row = dict[str, np.ndarray]                  # of MindRecord, by column
Part = tuple[tuple[int, ...], type]          # shape and type of an array of a sample; in a batch of B it is [B, *shape]
Prepare = Callable[..., None]                # prepare(rows, places, **details) fills the places of a sample
MAX_THREADS = 4     # of worker_kind auto: Python, in which one runs at a time, is a quarter of the time of an image


class Task(NamedTuple):
    """A sample to be prepared."""
    place: int      # in its batch
    rows: list[Row]
    details: dict   # further arguments of prepare()


class Batch(NamedTuple):
    """The arrays of a batch, and the slot in which they lie."""
    arrays: list[np.ndarray]
    slot: int = 0


class Threads:
    """Threads of this process. They start at once, but Python runs in one of them at a time."""
    at_once = 1  # tasks of a call of submit()

    def __init__(self, prepare: Prepare, parts: Sequence[Part], *, workers: int):
        cv2.setNumThreads(1)  # one thread a sample is enough
        self.prepare, self.parts, self.executor = prepare, parts, ThreadPoolExecutor(workers)

    def new_batch(self, count: int) -> Batch:
        """A batch of so many samples, not filled yet."""
        return Batch([np.empty((count, *shape), kind) for shape, kind in self.parts])

    def submit(self, batch: Batch, tasks: list[Task]) -> Future:
        """Begins to prepare some of its samples."""
        return self.executor.submit(prepare_all, self.prepare, batch.arrays, tasks)

    def hand_out(self, batch: Batch) -> list[np.ndarray]:
        """The arrays of a batch that is filled."""
        return batch.arrays

    def close(self) -> None:
        """Ends the threads; what has not begun will not."""
        self.executor.shutdown(cancel_futures=True)


class Job(NamedTuple):
    """What each process of Processes is given."""
    prepare: Prepare
    memory: object          # of all slots
    shapes: Sequence[Part]  # of the arrays of a slot


class Worker(NamedTuple):
    """A process of Processes."""
    process: BaseProcess
    pipe: Connection        # tasks go, answers come
    waiting: deque[Future]  # of the tasks without an answer, in order


class Processes:
    """Processes with a Python each, for machines with many cores. They need a second to start, and memory of their own.

    Batches lie in memory that all processes share, in SLOTS slots. A slot is free again when nobody has an array of its
    batch any longer; whoever keeps more than BATCHES_HELD batches gets copies of the others. Rows go through a pipe,
    but for their encoded images: these lie where the pixels will be. One epoch is prepared at a time. Nothing here has
    a name in the system that a kill -9 could leave behind, as the queues of multiprocessing have.
    """
    at_once = 4  # more tasks share the cost of a message, fewer let the processes end at the same time

    def __init__(self, prepare: Prepare, parts: Sequence[Part], *, workers: int, batch_size: int):
        """prepare, parts: can be pickled; the first part is the image, uint8."""
        # spawned, not forked: MindSpore's threads would leave locks behind that nobody opens
        context = multiprocessing.get_context("spawn")
        self.shapes = [((batch_size, *shape), kind) for shape, kind in parts]
        # RawArray goes to /tmp where /dev/shm is too small
        self.memory = context.RawArray("B", SLOTS * sum(padded_bytes(self.shapes)))
        self.free, self.held = list(range(SLOTS)), set()
        resource_tracker.ensure_running()  # of Python; to start it unblocks signals
        # The processes would speak of a Ctrl-C that comes before serve(), so it waits; other threads are there for it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            self.workers = [start(context, Job(prepare, self.memory, self.shapes)) for _ in range(workers)]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for worker in self.workers:
            threading.Thread(target=listen, args=(worker, self.workers), daemon=True).start()
        self.close = weakref.finalize(self, dismiss, self.workers)

    def new_batch(self, count: int) -> Batch:
        """A batch of so many samples, not filled yet."""
        slot = self.free.pop()
        content, arrays = open_slot(self.memory, slot, self.shapes)
        weakref.finalize(content, self.release, slot)
        return Batch([array[:count] for array in arrays], slot)

    def release(self, slot: int) -> None:
        """Nobody has an array of this slot any longer."""
        self.held.discard(slot)
        self.free.append(slot)

    def submit(self, batch: Batch, tasks: list[Task]) -> Future:
        """Begins to prepare some of its samples, in the process with the fewest tasks."""
        packed = [task._replace(rows=pack(task.rows, batch.arrays[0][task.place])) for task in tasks]
        worker, future = min(self.workers, key=lambda one: len(one.waiting)), Future()
        future.set_running_or_notify_cancel()  # a task that was sent cannot be taken back
        worker.waiting.append(future)
        try:
            worker.pipe.send((batch.slot, packed))
        except OSError:
            give_up(worker)
        return future

    def hand_out(self, batch: Batch) -> list[np.ndarray]:
        """The arrays of a batch that is filled."""
        if len(self.held) == BATCHES_HELD:
            return [array.copy() for array in batch.arrays]
        self.held.add(batch.slot)
        return batch.arrays


def use_processes(kind: str, workers: int) -> bool:
    """Whether so many workers are processes; kind: threads, processes or auto."""
    return kind == "processes" or (kind == "auto" and workers > MAX_THREADS)


def prepare_all(prepare: Prepare, arrays: list[np.ndarray], tasks: list[Task]) -> None:
    """Prepares samples, each in its place of the arrays of a batch."""
    for place, rows, details in tasks:
        prepare(rows, [array[place, ...] for array in arrays], **details)


# --- the processes, from this side

def start(context: SpawnContext, job: Job) -> Worker:
    """A process that serves()."""
    own, other = context.Pipe()
    process = context.Process(target=serve, args=(other, job), daemon=True)
    process.start()
    other.close()  # so that each end sees when the other process is gone
    return Worker(process, own, deque())


def listen(worker: Worker, workers: list[Worker]) -> None:
    """Hands on the answers of a process, in a thread of its own. One that dies at its work takes all others along."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            error, future = worker.pipe.recv(), worker.waiting.popleft()
            future.set_exception(error) if error else future.set_result(None)
    if worker.waiting:
        for other in workers:
            other.process.terminate()
        give_up(worker)


def give_up(worker: Worker) -> None:
    """Ends the tasks of a process that has died with a BrokenExecutor."""
    with contextlib.suppress(IndexError):  # another thread may do the same
        while True:
            worker.waiting.popleft().set_exception(BrokenExecutor("a process has died"))


def dismiss(workers: list[Worker]) -> None:
    """Ends processes that have nothing to do."""
    for worker in workers:
        with contextlib.suppress(OSError):
            worker.pipe.send(None)
    for worker in workers:
        worker.process.join()


# --- shared memory

def padded_bytes(shapes: Sequence[Part]) -> list[int]:
    """Bytes of each array of a slot, up to where the next one begins: at a multiple of 64, as processors like it."""
    return [-(-math.prod(shape) * np.dtype(kind).itemsize // 64) * 64 for shape, kind in shapes]


def open_slot(memory: object, slot: int, shapes: Sequence[Part]) -> tuple[np.ndarray, list[np.ndarray]]:
    """All bytes of a slot, and its arrays: views of them, which keep them alive."""
    sizes = padded_bytes(shapes)
    content = np.frombuffer(memory, np.uint8, sum(sizes), slot * sum(sizes))
    starts = itertools.accumulate(sizes, initial=0)
    return content, [np.ndarray(shape, kind, content, start) for (shape, kind), start in zip(shapes, starts)]


def pack(rows: list[Row], image: np.ndarray) -> list[Row]:
    """The rows with slices of an image array [H, W, 3] where it has room for their encoded images, which go there."""
    room, start, packed = image.reshape(-1), 0, []
    for row in rows:
        data = np.frombuffer(row["image"], np.uint8)
        end = start + len(data)
        if end <= len(room):
            room[start:end] = data
            row, start = {**row, "image": slice(start, end)}, end
        packed.append(row)
    return packed


def unpack(rows: list[Row], image: np.ndarray) -> list[Row]:
    """What pack() was given; the encoded images are valid until the pixels come."""
    room = image.reshape(-1)
    return [{**row, "image": room[row["image"]]} if isinstance(row["image"], slice) else row for row in rows]


# --- in a process of Processes

def serve(pipe: Connection, job: Job) -> None:
    """Prepares samples until there are no more tasks, or the parent is gone. Answers each with its error, or None."""
    os.setpgid(0, 0)  # Ctrl-C and the signals of launchers are for the parent, which ends this one when it is done
    while pending := signal.sigtimedwait(STOPS, 0):  # one that came while this process began
        if pending.si_pid == os.getppid():  # another one has died
            os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    cv2.setNumThreads(1)
    keep_freed_memory()
    slots = [open_slot(job.memory, slot, job.shapes)[1] for slot in range(SLOTS)]
    with contextlib.suppress(EOFError, OSError):
        while task := pipe.recv():
            slot, tasks = task
            pipe.send(error_of(job.prepare, slots[slot], tasks))


def error_of(prepare: Prepare, arrays: list[np.ndarray], tasks: list[Task]) -> Exception | None:
    """Prepares samples of the batch with these arrays -> the error that came, as one that can be pickled."""
    try:
        unpacked = [task._replace(rows=unpack(task.rows, arrays[0][task.place])) for task in tasks]
        prepare_all(prepare, arrays, unpacked)
    except SSDError as error:
        return error
    except MemoryError as error:
        return MemoryError(str(error))
    except Exception:  # of any kind: it is raised where the batch is used
        return RuntimeError(f"in a process of the loader:\n{traceback.format_exc()}")
    return None
