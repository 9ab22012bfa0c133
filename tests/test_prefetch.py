"""One of several processes meets an error: the others hear of it in the step before, and the state is saved."""
import os
import sys
import uuid
from types import SimpleNamespace

import numpy as np
import pytest
from programs import MPIRUN, ROOT, left_behind, run, run_differing, succeed
from stepping import Loader, Saver, build, make_loop

from src.data.prefetch import Prefetcher
from src.errors import ALL, ALONE, ANOTHER, DataError, Interrupted
from src.training import loop as loop_module
from src.training import step


class Watched(Loader):
    """Of two processes; tells which (epoch, step) was prepared, and fails at one of them."""
    world = 2

    def __init__(self, steps, fails=None, error=None):
        super().__init__(steps)
        self.prepared, self.fails, self.error, self.closed = [], fails, error or DataError("row 3 is damaged"), 0

    def epoch(self, epoch, first=0):
        try:
            for index, batch in enumerate(super().epoch(epoch, first), first):
                if (epoch, index) == self.fails:
                    raise self.error
                self.prepared.append((epoch, index))
                yield (*batch[:3], np.array([10 * epoch + index]))
        finally:
            self.closed += 1


def numbers(batches):
    return [int(batch[3][0]) for batch in batches]


def test_each_batch_comes_once_and_in_order_and_is_prepared_one_step_early():
    loader, seen = Watched(3), []
    ahead = Prefetcher(loader, 6)
    for epoch in (0, 1):
        for batch in ahead.epoch(epoch):
            seen.append((int(batch[3][0]), len(loader.prepared)))
    assert seen == [(0, 2), (1, 3), (2, 4), (10, 5), (11, 6), (12, 6)] and ahead.error is None


def test_a_process_alone_prepares_nothing_early():
    loader = Watched(3)
    loader.world = 1
    seen = [(int(batch[3][0]), len(loader.prepared)) for batch in Prefetcher(loader, 6).epoch(0)]
    assert seen == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("fails, seen", [((0, 1), [0]), ((0, 2), [0, 1]), ((1, 0), [0, 1, 2]),
                                         ((1, 2), [0, 1, 2, 10, 11])])
def test_an_error_is_known_with_the_batch_before(fails, seen):
    loader, found = Watched(3, fails), []
    ahead = Prefetcher(loader, 6)
    for epoch in (0, 1):
        for batch in ahead.epoch(epoch):
            found.append(int(batch[3][0]))
            assert (ahead.error is not None) == (found == seen)
            if ahead.error:
                break
        if ahead.error:
            break
    assert found == seen and ahead.error is loader.error


def test_an_error_in_the_first_batch_is_raised():
    with pytest.raises(DataError):
        next(Prefetcher(Watched(3, (0, 0)), 6).epoch(0))
    with pytest.raises(DataError):
        next(Prefetcher(Watched(3, (1, 1)), 6).epoch(1, 1))


def test_a_start_within_an_epoch_and_an_end_within_one():
    loader = Watched(3)
    ahead = Prefetcher(loader, 5)
    assert numbers(ahead.epoch(0, 2)) == [2]
    source = ahead.epoch(1)
    assert [numbers([next(source)]) for _ in range(2)] == [[10], [11]] and loader.prepared[-1] == (1, 1)
    ahead.close()


def test_an_epoch_that_does_not_come_is_closed():
    loader = Watched(2)
    ahead = Prefetcher(loader, 4)
    assert numbers(ahead.epoch(0)) == [0, 1] and loader.closed == 1
    ahead.close()
    assert loader.closed == 2


# --- the loop

@pytest.mark.parametrize("fails, done", [((0, 2), 2), ((1, 0), 3), ((1, 1), 4)])
def test_the_loop_saves_before_the_batch_that_fails_and_hands_on_the_error(fails, done):
    step, _ = build([0.1] * 6)
    saver = Saver()
    with pytest.raises(Interrupted) as caught:
        make_loop(step, Watched(3, fails), np.full(6, 0.1), saver=saver).train()
    cause = caught.value.__cause__
    assert saver.saved == [done] and saver.epochs == ([(1, 3)] if done > 3 else [])
    assert cause.met_by == ALONE and str(cause) == (f"row 3 is damaged; after step {done} the state was saved, "
                                                    "--resume=True goes on from here")


def test_the_others_hear_that_another_process_ended_it():
    class Step:
        micro_steps, dynamic = 1, False

        def __call__(self, *batch):
            import mindspore as ms
            return ms.Tensor([{"stops": 1.0}.get(name, 1.0) for name in step.NUMBERS], ms.float32)

    saver = Saver()
    with pytest.raises(Interrupted, match="another process was interrupted or met an error after step 1") as caught:
        make_loop(Step(), Watched(3), np.full(3, 0.1), saver=saver).train()
    assert saver.saved == [1] and caught.value.met_by == ANOTHER and caught.value.__cause__ is None


@pytest.mark.parametrize("signals, error, everyone, met_by", [
    ([2], None, True, ALL), ([2], None, False, ALONE), ([], None, False, ANOTHER), ([], DataError("x"), False, ALONE)])
def test_who_ends_the_loop_speaks(signals, error, everyone, met_by):
    loop = make_loop(None, Watched(3), np.ones(6))
    loop.signals, loop.batches.error = signals, error
    assert loop.interruption(everyone=everyone).met_by == met_by


@pytest.mark.parametrize("cause", [None, DataError("x"), MemoryError("y")])
def test_a_run_ends_with_the_error_of_its_process_when_all_have_saved(cause, monkeypatch):
    def train():
        raise Interrupted("together") from cause

    waited = []
    monkeypatch.setattr(loop_module, "wait_for_all", waited.append)
    loop = make_loop(SimpleNamespace(set_train=lambda: None), Watched(3), np.ones(6))
    loop.train = train
    with pytest.raises(type(cause) if cause else Interrupted):
        loop.run()
    assert waited == [2]


# --- several processes

DAMAGED = """
import os, sys
sys.path.insert(0, {root!r})
import train
from src.errors import run_main

def damage():
    from src.data import loader
    prepare, count = loader.TrainLoader.prepare_sample, [0]

    def fail(self, *sample, epoch, copy):
        count[0] += 1
        if os.environ["MS_NODE_ID"] == "1" and epoch == {epoch} and count[0] > {after}:
            raise {error}
        return prepare(self, *sample, epoch=epoch, copy=copy)

    loader.TrainLoader.prepare_sample = fail

def main():
    before = train.process.prepare
    train.process.prepare = lambda *options: (before(*options), damage())
    return train.main()

run_main(main)
"""


@pytest.mark.long
@pytest.mark.parametrize("error, code, words, epoch", [
    ("loader.DataError('row 3 is damaged')", 3, "rank 1: error: row 3 is damaged; after step ", 1),
    ("MemoryError('no more')", 4, "rank 1: error: out of memory (no more); try --batch_size=1, half of the", 0),
    ("loader.DataError('row 3 is damaged')", 3, "rank 1: error: row 3 is damaged", 0)])
def test_a_damaged_row_of_one_process_is_told_and_the_job_saves(place, tmp_path, error, code, words, epoch):
    """24 images, 6 steps an epoch; in the second epoch, or when the first batch (0) or one later on cannot be had."""
    program, mark, folder = tmp_path / "damaged.py", uuid.uuid4().hex, tmp_path / "run"
    after = 4 if error.startswith("Memory") else 0
    program.write_text(DAMAGED.format(root=ROOT, error=error, epoch=epoch, after=after))
    options = [*place.data, "--batch_size=2", "--run_eval=False", "--save_checkpoint_epochs=100", "--log_interval=1",
               "--num_workers=1", f"--output_path={folder}"]
    done = run(place, *MPIRUN, sys.executable, str(program), *options, "--run_distribute=True", SSD_TEST_MARK=mark)
    assert done.returncode == code and words in done.stderr, done.stdout + done.stderr
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr and left_behind(mark) == []
    saved = os.listdir(folder / "ckpt")
    assert saved == ([] if epoch == 0 and not after else ["last.ckpt"])
    if saved:
        text = succeed(place, "train.py", "--resume=True", f"--output_path={folder}", "--run_distribute=False")
        assert f"resumed after step {12 if epoch else 4}" in text


@pytest.mark.long
def test_what_only_one_host_lacks_is_told_by_its_process(place, tmp_path):
    """Before the processes are joined: rank 0 waits for the other and has nothing to say."""
    mark = uuid.uuid4().hex
    done = run_differing(place, tmp_path / "run", "--pre_trained=missing.ckpt", mark=mark)
    assert done.returncode == 2 and done.stderr.count("error: ") == 1, done.stderr
    assert "rank 1: error: --pre_trained 'missing.ckpt' is not a file" in done.stderr and left_behind(mark) == []
