"""The loop over the steps: log, epochs, resume, stop, a loss that is not finite."""
import contextlib
import os
import signal
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from stepping import Loader, Log, build

from src.errors import DataError, EnvironmentFault, Interrupted, NotFiniteError
from src.training import loop as engine
from src.training import step
from src.training.meter import Meter
from src.training.trainer import Run


def test_the_loop_logs_every_interval_and_calls_back():
    step, _ = build([0.1] * 6)
    log, epochs = Log(), []
    engine.train(step, Loader(3), np.full(6, 0.1, np.float32), log, Meter(6, 1), log_interval=2,
                 after_epoch=lambda *done: epochs.append(done))
    assert [row["step"] for row in log.rows] == [2, 4, 6] and [row["epoch"] for row in log.rows] == [1, 2, 2]
    assert epochs == [(1, 3), (2, 6)]
    assert log.rows[0]["loss"] == pytest.approx((7 + 6.8) / 2)
    assert {"loss_cls", "loss_box", "lr", "data_time", "step_time", "images_per_second", "eta",
            "peak_memory"} <= set(log.rows[0])
    assert 0.1 < log.rows[0]["peak_memory"] < 200


class Spikes(Loader):
    """The first `bad` steps of each epoch overflow at a loss scale of 2^60."""
    bad = 2

    def epoch(self, epoch, first=0):
        for index, (images, *rest) in enumerate(super().epoch(epoch, first), first):
            yield (images * (200 if index < self.bad else 1), *rest)


def test_the_log_has_the_rates_that_the_optimiser_used_and_the_last_one_is_reached():
    rates = np.array([0.1, 0.2, 0.4, 0.8, 0.05, 0.025], np.float32)
    step, weight = build(rates, 2.0 ** 60)
    log = Log()
    engine.train(step, Spikes(6), rates, log, Meter(6, 1), log_interval=1)
    assert [row["lr"] for row in log.rows] == pytest.approx(rates.tolist())
    assert [row["skipped"] for row in log.rows] == [1, 1, 0, 0, 0, 0]
    moments = np.array([1, 1.9, 2.71, 3.439])
    assert np.allclose(weight.asnumpy(), np.array([3, 4]) - (moments * rates[2:]).sum(), rtol=1e-6)


def test_a_rate_is_looked_up_by_the_optimisers_own_count():
    """The log says what was used even where somebody lets the two drift apart."""
    rates = np.array([0.1, 0.2, 0.4, 0.8], np.float32)
    for begin, expected in ((0, [0.1, 0.2]), (2, [0.4, 0.8])):
        step, weight = build(rates)
        step.start_at(begin)
        log = Log()
        engine.train(step, Loader(4), rates, log, Meter(4, 1), start=2, log_interval=1)
        assert [row["lr"] for row in log.rows] == pytest.approx(expected)
        assert np.allclose(weight.asnumpy(), np.array([3, 4]) - expected[0] - 1.9 * expected[1])


def test_most_steps_ends_early():
    step, _ = build([0.1] * 6)
    epochs = []
    engine.train(step, Loader(3), np.full(6, 0.1), Log(), Meter(6, 1), most_steps=4,
                 after_epoch=lambda *done: epochs.append(done))
    assert epochs == [(1, 3), (2, 4)]


def test_a_loss_that_is_not_finite_names_images_lr_and_scale():
    class Broken(nn.Cell):
        def construct(self, logits, deltas, labels, targets):
            loss = ms.ops.log(logits.sum() * 0 - 1)
            return loss, loss, loss, loss

    step, weight = build([0.25] * 2, loss=Broken())
    with pytest.raises(NotFiniteError, match=r"loss is nan.* at step 1, epoch 1: lr 0\.25, loss scale 1, images img0;"):
        engine.train(step, Loader(2), np.full(2, 0.25), Log(), Meter(2, 1), image_name="img{}".format)
    assert np.allclose(weight.asnumpy(), [3, 4])  # the update was left out


def test_a_loss_that_is_not_finite_in_another_process_ends_this_one_too():
    class Step:
        micro_steps, dynamic = 1, False

        def __call__(self, *batch):
            values = {**dict.fromkeys(step.NUMBERS, 1.0), "loss": np.nan, "stops": 0.0}
            return ms.Tensor([values[name] for name in step.NUMBERS], ms.float32)

    with pytest.raises(NotFiniteError, match="the loss of another process is not finite at step 1"):
        engine.train(Step(), Loader(2), np.full(2, 0.25), Log(), Meter(2, 1))


@pytest.mark.parametrize("bad, ends", [(2, False), (4, True)])
def test_a_static_scale_that_skips_most_steps_ends_the_run(bad, ends):
    step, _ = build([0.1] * 6, 2.0 ** 127)

    class Mixed(Loader):
        def epoch(self, epoch, first=0):
            for index, (images, *rest) in enumerate(super().epoch(epoch, first)):
                yield (images * (200 if index < bad else 0), *rest)

    epochs = []
    with pytest.raises(NotFiniteError, match="4 of 6 steps were skipped") if ends else contextlib.nullcontext():
        engine.train(step, Mixed(6), np.full(6, 0.1), Log(), Meter(6, 1), after_epoch=lambda *done: epochs.append(done))
    assert len(epochs) == 1 - ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_raises(number):
    step, _ = build([0.1] * 4)
    saved = []

    class Kicks(Loader):
        def epoch(self, epoch, first=0):
            for index, batch in enumerate(super().epoch(epoch, first)):
                if index == 1:
                    os.kill(os.getpid(), number)
                yield batch

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="^interrupted after step 2"):
        engine.train(step, Kicks(4), np.full(4, 0.1), Log(), Meter(4, 1), save=saved.append)
    assert saved == [2] and signal.getsignal(number) is before


def test_the_state_is_saved_within_an_epoch_and_not_where_the_epoch_saves_it():
    step, _ = build([0.1] * 8)
    saved = []
    engine.train(step, Loader(4), np.full(8, 0.1), Log(), Meter(8, 1), save=saved.append, save_steps=2)
    assert saved == [2, 6]


def test_after_an_epoch_the_run_can_be_ended():
    step, _ = build([0.1] * 6)
    epochs = []
    engine.train(step, Loader(2), np.full(6, 0.1), Log(), Meter(6, 1),
                 after_epoch=lambda *done: epochs.append(done) or len(epochs) == 2)
    assert epochs == [(1, 2), (2, 4)]


def test_starting_in_the_middle_of_an_epoch_reads_only_the_rest():
    step, _ = build([0.1] * 6)
    log = Log()
    engine.train(step, Loader(3), np.full(6, 0.1), log, Meter(6, 1), start=4, log_interval=1)
    assert [row["step"] for row in log.rows] == [5, 6]


@pytest.mark.parametrize("fault, saved", [(DataError("x"), ["last"]), (EnvironmentFault("x"), ["last"]),
                                          (NotFiniteError("x"), ["diverged"]), (Interrupted("x"), [])])
def test_what_a_fault_leaves(fault, saved, tmp_path, monkeypatch):
    """Of an evaluation too, for after_epoch is called by the loop."""
    class Faulty(Run):
        def __init__(self):
            self.options = SimpleNamespace(max_steps=0, log_interval=1, save_checkpoint_steps=0)
            self.split, self.meter = SimpleNamespace(ground_truth=str(tmp_path / "truth.json")), Meter(1, 1)
            self.step = self.loader = self.log = None
            self.saved, self.owed = [], False

        def save(self, name, steps_done=None, keep=0, settled=False):
            self.saved.append(name)
            if isinstance(fault, EnvironmentFault):
                raise EnvironmentFault("the disk is full")

        def finish(self):
            self.saved.append("finished")

    def fail(*rest):
        raise fault

    (tmp_path / "truth.json").write_text('{"images": []}')
    monkeypatch.setattr(engine, "train", fail)
    run = Faulty()
    with pytest.raises(type(fault), match="^x$"):
        run.loop([], 0)
    assert run.saved == [*saved, "finished"]
