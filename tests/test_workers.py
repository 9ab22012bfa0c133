"""Processes prepare the batches of a training as threads do, bit for bit; what they leave, however they end."""
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import uuid

import numpy as np
import preparing
import pytest
from preparing import PARTS
from programs import ROOT, environment, interrupt, left_behind, read_rows, started, succeed
from test_sampling import equal, joined, loader_of, split_of

from src.data import loader
from src.data.workers import SLOTS, Processes, Threads, pack, unpack, use_processes
from src.errors import DataError, RankFault


@pytest.fixture
def pool():
    """Two processes that prepare batches of two."""
    return Processes(preparing.fill, PARTS, workers=2, batch_size=2)


@pytest.fixture
def read(monkeypatch):
    """Function: read(pool, 5) -> the batches of 5 samples; further arguments go to fill()."""
    rows = lambda files, numbers, columns: ({"image": np.array([b"%d" % number])} for number in numbers)  # noqa: E731
    monkeypatch.setattr(loader, "read_rows", rows)

    def read(pool, count, **details):
        return loader.batches(["data"], np.arange(count)[:, None], pool, columns=[], batch_size=2,
                              details=lambda number: {"number": number, **details})
    return read


def check(batches, count):
    """Whether the batches have samples 0 .. count - 1 with their pixels, prepared without MindSpore."""
    images, numbers, mindspore = joined(batches)
    assert numbers.tolist() == list(range(count)) and not mindspore.any()
    for number, image in enumerate(images.reshape(count, -1).tolist()):
        text = list(b"%d" % number)
        assert image == text + [number] * (18 - len(text))


def test_batches_of_processes_come_in_order_and_stay_what_they_are(pool, read):
    """Also where all are kept, and in the next epoch, which overwrites what is free; the last batch is shorter."""
    kept = list(read(pool, 25))
    assert [len(batch[0]) for batch in kept] == [2] * 12 + [1] and len(pool.held) == 3
    again = list(read(pool, 25))
    check(kept, 25)
    check(again, 25)
    del kept, again
    gc.collect()
    assert sorted(pool.free) == list(range(SLOTS)) and not pool.held


def test_a_training_copies_no_batch(pool, read):
    """It drops a batch before the one behind the next; what an epoch leaves unfinished is free again, too."""
    for _ in range(2):
        for batch in read(pool, 20):
            assert batch[0].base is not None and not batch[0].flags.owndata
    del batch
    unfinished = read(pool, 20)
    next(unfinished)
    unfinished.close()
    del unfinished
    gc.collect()
    assert sorted(pool.free) == list(range(SLOTS))
    check(list(read(pool, 9)), 9)


def test_an_error_in_a_process_is_raised_here(pool, read):
    with pytest.raises(DataError, match="the image of row 5 is damaged") as error:
        list(read(pool, 20, fails=5))
    assert error.value.exit_code == 3
    del error
    gc.collect()
    check(list(read(pool, 9)), 9)


def test_a_process_that_is_killed_ends_the_run_with_one_line(pool, read):
    with pytest.raises(RankFault, match="a process of the loader was killed.*--num_workers.*--worker_kind") as error:
        list(read(pool, 40, dies=7))
    assert error.value.exit_code == 4
    for worker in pool.workers:
        worker.process.join(60)
        assert not worker.process.is_alive()


def named_memory():
    """The files of /dev/shm that this process has open and that still have a name."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        return {line.split()[5] for line in file if "/dev/shm/" in line and "(deleted)" not in line}


def test_nothing_has_a_name_that_a_kill_could_leave(read):
    before = named_memory()
    pool = Processes(preparing.fill, PARTS, workers=2, batch_size=2)
    check(list(read(pool, 9)), 9)
    assert named_memory() == before
    pool.close()
    assert not any(worker.process.is_alive() for worker in pool.workers)


def test_an_error_that_is_no_refusal_tells_where_it_came_from(pool, read):
    with pytest.raises(RuntimeError, match="(?s)in a process of the loader:.*prepare_all.*TypeError: fill"):
        list(read(pool, 9, unknown=1))


def test_threads_keep_the_same_rules(read):
    threads = Threads(preparing.fill, PARTS, workers=3)
    images, numbers, _ = joined(read(threads, 25))
    assert numbers.tolist() == list(range(25)) and images[24].reshape(-1)[:3].tolist() == [*b"24", 24]
    with pytest.raises(DataError, match="row 5"):
        list(read(threads, 20, fails=5))


@pytest.mark.parametrize("sizes, where", [([10], [slice(0, 10)]), ([10, 8], [slice(0, 10), slice(10, 18)]),
                                          ([19], [None]), ([10, 9, 8], [slice(0, 10), None, slice(10, 18)])])
def test_encoded_images_travel_where_the_pixels_will_be(sizes, where):
    """18 bytes have room; what has none stays in its row."""
    rows = [{"image": np.array([bytes(range(1, size + 1))]), "index": np.array(size)} for size in sizes]
    place = np.zeros((2, 3, 3), np.uint8)
    packed = pack(rows, place)
    assert [row["image"] if isinstance(row["image"], slice) else None for row in packed] == where
    for row, size in zip(unpack(packed, place), sizes):
        assert np.frombuffer(row["image"], np.uint8).tolist() == list(range(1, size + 1)) and row["index"] == size


@pytest.mark.parametrize("kind, workers, expected", [("auto", 2, False), ("auto", 4, False), ("auto", 5, True),
                                                     ("threads", 64, False), ("processes", 1, True)])
def test_many_workers_are_processes_unless_told(kind, workers, expected):
    assert use_processes(kind, workers) == expected


@pytest.mark.parametrize("typed", [(), ("--mosaic=0.5", "--class_balance=0.5", "--augmentation=ssd")])
@pytest.mark.parametrize("workers", [1, 3])
def test_processes_give_the_batches_of_threads(tmp_path, call, typed, workers):
    split, others = split_of(tmp_path, call), set(multiprocessing.active_children())
    threads = loader_of(split, *typed, "--batch_size=3")
    processes = loader_of(split, *typed, "--batch_size=3", "--worker_kind=processes", f"--num_workers={workers}")
    for epoch in (0, 1):
        assert equal(joined(threads.epoch(epoch)), joined(processes.epoch(epoch)))
    assert equal(joined(threads.epoch(1, 1)), joined(processes.epoch(1, 1))), "a resumed run"
    assert isinstance(processes.pool, Processes)
    processes.close()
    assert set(multiprocessing.active_children()) <= others
    assert equal(joined(threads.epoch(0)), joined(processes.epoch(0))), "a new pool"


PROGRAM = """
import os, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]

def main():
    import numpy as np
    import preparing
    from src.data import loader
    from src.data.workers import Processes
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as process.prepare() does
    loader.read_rows = lambda files, numbers, columns: ({{"image": np.array([b"x"])}} for number in numbers)
    pool = Processes(preparing.fill, preparing.PARTS, workers=2, batch_size=2)
    for number, batch in enumerate(loader.batches(["data"], np.arange(10 ** 7)[:, None], pool, columns=[],
                                                  batch_size=2, details=lambda number: {{"number": number % 200}})):
        if number == 0:  # the last of the processes may just begin
            print("ready", flush=True)

if __name__ == "__main__":
    from src.errors import run_main
    run_main(main)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("group", [False, True])
def test_no_process_is_left_and_none_speaks_when_the_program_ends(tmp_path, number, group):
    """Ctrl-C reaches all processes of a terminal; so do the signals of some launchers."""
    program, mark = tmp_path / "program.py", uuid.uuid4().hex
    program.write_text(PROGRAM.format(root=ROOT, tests=os.path.join(ROOT, "tests")))
    with started(sys.executable, str(program), env=environment(SSD_TEST_MARK=mark), stderr=subprocess.PIPE,
                 start_new_session=True) as process:
        assert process.stdout.readline() == "ready\n"
        (os.killpg if group else os.kill)(process.pid, number)
        _, errors = process.communicate(timeout=60)
    assert left_behind(mark) == []
    if number == signal.SIGKILL:
        assert (process.returncode, errors) == (-number, "")
    else:
        assert (process.returncode, errors) == (130, "error: interrupted before there was anything to save\n")


@pytest.mark.long
def test_a_training_with_processes_ends_and_goes_on_as_one_with_threads(place, tmp_path):
    """Ctrl-C after a step: the state is saved, exit 130. The run goes on, to the losses of a run with threads."""
    folder, losses = tmp_path / "run", {}
    options = [*place.data, "--run_eval=False", "--log_interval=1", "--num_workers=2", "--deterministic=True"]
    code, errors = interrupt(place, "step 3/", "train.py", *options, "--worker_kind=processes",
                             f"--output_path={folder}")
    assert code == 130 and errors.count("error: ") == 1 and "Traceback" not in errors, errors
    succeed(place, "train.py", "--resume=True", f"--output_path={folder}")
    succeed(place, "train.py", *options, "--worker_kind=threads", f"--output_path={tmp_path / 'threads'}")
    for run in (folder, tmp_path / "threads"):
        losses[run.name] = {row["step"]: row["loss"] for row in read_rows(run) if "loss" in row}
    assert losses["run"] == pytest.approx(losses["threads"], rel=1e-4) and len(losses["run"]) == 12
