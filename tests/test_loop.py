"""The loop over the steps: log, epochs, resume, stop, a loss that is not finite."""
import contextlib
import os
import signal
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from stepping import Loader, Log, Saver, Validator, build, make_loop

from src.errors import DataError, EnvironmentFault, Interrupted, NotFiniteError
from src.training import saver as saver_module
from src.training import step


def test_the_loop_logs_every_interval_and_ends_every_epoch():
    step, _ = build([0.1] * 6)
    log, saver = Log(), Saver()
    make_loop(step, Loader(3), np.full(6, 0.1, np.float32), log=log, saver=saver, log_interval=2).train()
    assert [row["step"] for row in log.rows] == [2, 4, 6] and [row["epoch"] for row in log.rows] == [1, 2, 2]
    assert saver.epochs == [(1, 3), (2, 6)]
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
    make_loop(step, Spikes(6), rates, log=log, log_interval=1).train()
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
        make_loop(step, Loader(4), rates, log=log, start=2, log_interval=1).train()
        assert [row["lr"] for row in log.rows] == pytest.approx(expected)
        assert np.allclose(weight.asnumpy(), np.array([3, 4]) - expected[0] - 1.9 * expected[1])


def test_the_limit_of_steps_ends_early():
    step, _ = build([0.1] * 6)
    saver = Saver()
    make_loop(step, Loader(3), np.full(6, 0.1), saver=saver, total=4).train()
    assert saver.epochs == [(1, 3), (2, 4)]


def test_a_loss_that_is_not_finite_names_images_lr_and_scale():
    class Broken(nn.Cell):
        def construct(self, logits, deltas, labels, targets):
            loss = ms.ops.log(logits.sum() * 0 - 1)
            return loss, loss, loss, loss

    step, weight = build([0.25] * 2, loss=Broken())
    with pytest.raises(NotFiniteError, match=r"loss is nan.* at step 1, epoch 1: lr 0\.25, loss scale 1, images img0;"):
        make_loop(step, Loader(2), np.full(2, 0.25)).train()
    assert np.allclose(weight.asnumpy(), [3, 4])  # the update was left out


def test_a_long_run_of_a_large_data_set_keeps_little():
    step, _ = build([0.1] * 90)
    loop = make_loop(step, Loader(30), np.full(90, 0.1), image_names=lambda: pytest.fail("there may be very many"))
    loop.train()
    assert len(loop.finite) <= 20


def test_a_loss_that_is_not_finite_in_another_process_ends_this_one_too():
    class Step:
        micro_steps, dynamic = 1, False

        def __call__(self, *batch):
            values = {**dict.fromkeys(step.NUMBERS, 1.0), "loss": np.nan, "stops": 0.0}
            return ms.Tensor([values[name] for name in step.NUMBERS], ms.float32)

    with pytest.raises(NotFiniteError, match="the loss of another process is not finite at step 1"):
        make_loop(Step(), Loader(2), np.full(2, 0.25)).train()


@pytest.mark.parametrize("bad, ends", [(2, False), (4, True)])
def test_a_static_scale_that_skips_most_steps_ends_the_run(bad, ends):
    step, _ = build([0.1] * 6, 2.0 ** 127)

    class Mixed(Loader):
        def epoch(self, epoch, first=0):
            for index, (images, *rest) in enumerate(super().epoch(epoch, first)):
                yield (images * (200 if index < bad else 0), *rest)

    saver = Saver()
    with pytest.raises(NotFiniteError, match="4 of 6 steps were skipped") if ends else contextlib.nullcontext():
        make_loop(step, Mixed(6), np.full(6, 0.1), saver=saver).train()
    assert len(saver.epochs) == 1 - ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_raises(number):
    step, _ = build([0.1] * 4)
    saver = Saver()

    class Kicks(Loader):
        def epoch(self, epoch, first=0):
            for index, batch in enumerate(super().epoch(epoch, first)):
                if index == 1:
                    os.kill(os.getpid(), number)
                yield batch

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="^interrupted after step 2"):
        make_loop(step, Kicks(4), np.full(4, 0.1), saver=saver).train()
    assert saver.saved == [2] and signal.getsignal(number) is before


class Written(saver_module.Saver):
    """A Saver that keeps the names and steps of what it would write."""

    def __init__(self, **more):
        super().__init__(SimpleNamespace(get_parameters=lambda: []), "run/ckpt", facts={}, **more)
        self.written = []

    def write(self, name, state, *, settled=False, keep=0):
        self.written.append((name, state.steps_done))


def test_the_state_is_saved_within_an_epoch_and_not_where_the_epoch_saves_it():
    step, _ = build([0.1] * 8)
    saver = Written(step_interval=2)
    saver.after_epoch = lambda state, evaluated, ended: None
    make_loop(step, Loader(4), np.full(8, 0.1), saver=saver).train()
    assert saver.written == [("last", 2), ("last", 6)]


def test_after_an_epoch_the_run_can_be_ended():
    step, _ = build([0.1] * 6)
    saver = Saver()
    make_loop(step, Loader(2), np.full(6, 0.1), saver=saver, validator=Validator(2)).train()
    assert saver.epochs == [(1, 2), (2, 4)]


def test_a_run_that_early_stop_has_ended_takes_no_step_and_another_is_ended_by_its_validator_alone():
    """Rank 0 alone counts evaluations: the others would wait for it if its count ended the loop."""
    for stalls, steps in ((True, 0), (False, 6)):
        step, _ = build([0.1] * 6)
        saver = Saver()
        loop = make_loop(step, Loader(3), np.full(6, 0.1), saver=saver, validator=Validator(9))
        loop.state.early_stop, loop.state.since_best = 1, int(stalls)
        loop.validator.validate = lambda state: {"AP": -2.0}
        loop.train()
        assert loop.state.steps_done == steps


def test_starting_in_the_middle_of_an_epoch_reads_only_the_rest():
    step, _ = build([0.1] * 6)
    log = Log()
    make_loop(step, Loader(3), np.full(6, 0.1), log=log, start=4, log_interval=1).train()
    assert [row["step"] for row in log.rows] == [5, 6]


@pytest.mark.parametrize("fault, saved", [(DataError("x"), ["last"]), (EnvironmentFault("x"), ["last"]),
                                          (NotFiniteError("x"), ["diverged"]), (Interrupted("x"), [])])
def test_what_a_fault_leaves(fault, saved):
    """Of an evaluation too, for it is part of the loop."""
    class Faulty(Written):
        def write(self, name, state, *, settled=False, keep=0):
            super().write(name, state)
            if isinstance(fault, EnvironmentFault):
                raise EnvironmentFault("the disk is full")

    def fail():
        raise fault

    log, saver = Log(), Faulty()
    loop = make_loop(SimpleNamespace(set_train=lambda: None), Loader(1), np.ones(1), saver=saver, log=log)
    loop.train = fail
    with pytest.raises(type(fault), match="^x$"):
        loop.run()
    assert saver.written == [(name, 0) for name in saved] and log.said == ["closed"]
