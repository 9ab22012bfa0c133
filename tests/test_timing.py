"""--minutes: the plan of a run, the loop that follows it, and the options beside it."""
import math
import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
from programs import RECIPE, read_rows, run, succeed
from stepping import Loader, Log, Saver, build, make_loop

from src.config import read_options
from src.errors import Interrupted, OptionError
from src.training import timing
from src.training.build import build_rates, build_state, build_timer
from src.training.checks import check_minutes
from src.training.resume import Saved, minutes_left, refuse_idling, refuse_other_minutes
from src.training.state import RunState
from src.training.timing import UNPLANNED, Costs, Plan, RunTimer, too_short


def timer(minutes=10, began=None, **more):
    more = {"rates_of": lambda steps: np.full(steps, 0.1, np.float32), "steps_per_epoch": 10, **more}
    return RunTimer(minutes, time.monotonic() if began is None else began, **more)


# --- the plan

def test_a_run_of_steps_alone():
    """594 seconds are 99 % of ten minutes; 94 are spent: 500 steps of a second, of which 6 were done."""
    assert timer().plan(Costs(1.0, 0.0, 0.0, 94.0), 6) == Plan(500, 1, 1)  # 506, down to whole epochs
    assert timer(steps_per_epoch=400).plan(Costs(1.0, 0.0, 0.0, 94.0), 6) == Plan(506, 1, 1)  # few epochs: to the step


def test_evaluations_and_checkpoints_count():
    """An epoch of 10 s with an evaluation of 4 s and 2 x 0.5 s of saving: at most 2 s an epoch -> every third epoch; a
    checkpoint (1 s) at most every second epoch. 10 steps cost 10 + 5/3 + 1/2 = 12.17 s; the last 6 s are kept."""
    plan = timer(steps_per_epoch=10).plan(Costs(1.0, 4.0, 0.5, 94.0), 0)
    assert plan == Plan(10 * int((594 - 94 - 6) / 12.1667), 3, 2)
    typed = timer(eval_interval=1, eval_share=math.inf, save_share=math.inf).plan(Costs(1.0, 4.0, 0.5, 94.0), 0)
    assert typed == Plan(10 * int(494 / 16), 1, 1)  # typed intervals stay
    assert timer(eval_interval=7).plan(Costs(1.0, 4.0, 0.5, 94.0), 0).eval_interval == 7


@pytest.mark.parametrize("costs", [Costs(0.0, 0.0, 0.0, 700.0), Costs(1.0, 3.0, 0.1, 590.0), Costs(5.0, 0, 0, 1e6)])
def test_no_time_left_is_one_step_more(costs):
    assert timer().plan(costs, 3).steps == 4


def test_what_is_measured(monkeypatch):
    monkeypatch.setattr(timing.time, "monotonic", lambda: 1000.0)
    one = timer(minutes=1, began=990.0)
    assert one.left() == 50
    for seconds in (30.0, 5.0, 0.2, 0.2, 0.2, 0.2):
        one.count(seconds)
    assert one.step_seconds == pytest.approx(0.2) and not one.is_due()  # four steps, the first two do not count
    one.count(0.2)
    assert not one.is_due()  # five steps, but 1 of the 1.8 seconds
    one.count(0.8)
    assert one.is_due()
    late = timer(minutes=1, began=940.0)
    assert late.is_due() and late.spent() == 60 and late.left() == timer(1, began=0.0).left() == 0


def test_the_plan_in_words():
    one = timer(minutes=30)
    costs = Costs(1.5, 9.0, 0.2, 74.0)
    one.measured = 36
    assert one.describe(Plan(1000, 2, 1), costs) == (
        "--minutes=30: a step takes 1.5 s (mean of 36), an evaluation 9.0 s, a checkpoint 0.2 s, 1:14 are over: 1000 "
        "steps fit, 100 epochs, evaluated every 2 epoch(s); without a clock: --epoch_size=100 --eval_interval=2")
    assert one.describe(Plan(1003, 2, 1), costs._replace(evaluation=0.0)).endswith("1003 steps fit, 100.3 epochs")
    assert "are over before 5 steps were measured: the run ends after step 4" in one.describe(
        Plan(4, 1, 1), costs._replace(spent=1800.0))


# --- the loop

class Mosaics(Loader):
    def limit_mosaics(self, epochs):
        self.limit = epochs


def test_the_loop_measures_and_follows(monkeypatch):
    """Steps of a second on a clock of our own; 3 % of two minutes are 3.6 s, but five steps are measured at least."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing.time, "monotonic", lambda: clock.now)
    step, weight = build(np.float32(0.1))

    class Slow(Mosaics):
        def epoch(self, epoch, first=0):
            for batch in super().epoch(epoch, first):
                clock.now += 1.0
                yield batch

    saver, log, loader = Saver(), Log(), Slow(3)
    rates_of = lambda steps: np.full(steps, 0.1 if steps == UNPLANNED else 0.01, np.float32)  # noqa: E731
    two = timer(2, 0.0, rates_of=rates_of, steps_per_epoch=3, mosaic_share=0.5)
    loop = make_loop(step, loader, rates_of(UNPLANNED), total=UNPLANNED, saver=saver, log=log, timer=two,
                     log_interval=1)
    loop.train()
    # the time of a step is read before the batch and behind the step, so the clock counts all of its second
    assert loop.state.plan["steps"] == loop.state.steps_done == 117 and clock.now == 117
    assert [row["lr"] for row in log.rows[:9]] == pytest.approx([0.1] * 7 + [0.01] * 2)
    assert saver.saved == [7, 7] and saver.epochs[0] == (3, 9)  # no epoch ended before the plan was made
    assert loader.limit == round(39 / 2)
    assert max(row["step_time"] for row in log.rows) < 0.5  # the second of each step passes in its data
    lines = [text for text in log.said if text.startswith("step ")]
    assert lines[5].startswith("step 6  epoch 2  loss ") and lines[5].endswith("  1:54 left")  # 6 of 120 s are over
    assert lines[7].startswith("step 8/117  epoch 3/39  loss ")
    planned, = [text for text in log.said if text.startswith("--minutes")]
    assert "a step takes 1 s (mean of 5)" in planned and "--epoch_size=39" in planned


@pytest.fixture
def slow(monkeypatch):
    """Function: slow(stop=None) gives a loader of 3 steps an epoch, of 4 seconds each on a clock of its own, which
    sends this process SIGINT with its batch number `stop`."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing.time, "monotonic", lambda: clock.now)

    class Slow(Mosaics):
        stop = None

        def epoch(self, epoch, first=0):
            for index, batch in enumerate(super().epoch(epoch, first)):
                clock.now += 4.0
                if 3 * epoch + first + index + 1 == self.stop:
                    os.kill(os.getpid(), signal.SIGINT)
                yield batch

    def build_slow(stop=None):
        loader = Slow(3)
        loader.stop, loader.clock = stop, clock
        return loader
    return build_slow


def test_a_run_that_is_killed_behind_its_plan_has_it_in_its_checkpoint(slow):
    step, _ = build(np.float32(0.1))
    plans = []

    class Kept(Saver):
        def save_last(self, state):
            plans.append(state.plan.get("steps"))

    validator = SimpleNamespace(interval=1, start_epoch=1, is_due=lambda state: False)  # no time to try an evaluation
    loop = make_loop(step, slow(), np.full(9, 0.1), total=9, saver=Kept(), timer=timer(0.5, -30.0), validator=validator)
    loop.train()
    assert plans == [None, 1] and loop.state.steps_done == 1  # the half minute was over


def test_a_run_that_is_interrupted_before_its_plan_has_the_minutes_that_are_left(slow):
    """Stopped after two steps of 4 s, continued after an hour: 8 of the 60 seconds are over."""
    step, _ = build(np.float32(0.1))
    loop = make_loop(step, slow(stop=2), np.full(60, 0.1), timer=timer(1, 0.0, steps_per_epoch=3))
    with pytest.raises(Interrupted):
        loop.train()
    meta = loop.state.to_meta()
    assert meta["plan"] == {} and meta["spent"] == 8 and meta["steps_done"] == 2
    state = RunState.from_meta(meta, steps_per_epoch=3, total_steps=60)
    assert state.spent == 8 and minutes_left(state, 1.0) == (
        "--minutes=1: 0:08 were over when the run was interrupted, and its length was not fixed; the rest counts from "
        "this start")
    loop.loader.clock.now = 3600.0
    began = build_timer(options(), 3, began=3600.0, saved=Saved({}, meta, "last.ckpt", {"minutes": 1.0})).began
    assert began == 3592
    resumed = make_loop(step, slow(), np.full(60, 0.1), start=2, timer=timer(1, began, steps_per_epoch=3))
    resumed.train()
    # planned in the eighth step of a start: 59.4 - 32 seconds are 6 steps behind 7, and 59.4 - 40 are 4 behind 2 + 7
    loop.loader.clock.now = 0.0
    undisturbed = make_loop(step, slow(), np.full(60, 0.1), timer=timer(1, 0.0, steps_per_epoch=3))
    undisturbed.train()
    assert resumed.state.steps_done == undisturbed.state.steps_done == 13
    assert minutes_left(resumed.state, 1.0) == "--minutes=1: the run keeps its 13 steps, however long they take"


def test_a_signal_comes_before_the_plan(monkeypatch):
    """What is due is left to the resumed run: a plan takes an evaluation."""
    monkeypatch.setattr(timing.time, "monotonic", lambda: 1000.0)
    step, _ = build(np.float32(0.1))
    loop = make_loop(step, Mosaics(3), np.full(9, 0.1), total=9, timer=timer(0.5, 0.0))
    loop.signals = [signal.SIGINT]
    loop.prepare_timed_step()
    assert loop.is_measuring


def test_a_run_that_is_too_short_says_so():
    """Under an epoch, and under 20 steps whatever an epoch has."""
    assert too_short(39, 40, "CPU") == (
        "this is not a training yet: 39 step(s), 0.97 epoch(s), are too few to learn from. What helps: more --minutes, "
        "a smaller --image_size, or a GPU (--device_target=GPU)")
    assert too_short(19, 4, "GPU").endswith("a smaller --image_size")
    assert too_short(20, 4, "CPU") == too_short(40, 40, "CPU") == ""


def test_a_resumed_run_keeps_its_plan():
    step, _ = build(np.float32(0.1))
    rates_of = lambda steps: np.arange(steps, dtype=np.float32)  # noqa: E731
    saver, log = Saver(), Log()
    loop = make_loop(step, Mosaics(3), rates_of(9), start=5, log=log, saver=saver, log_interval=1,
                     timer=timer(rates_of=rates_of), plan=Plan(9, 2, 4)._asdict())
    loop.train()
    assert saver.epoch_interval == 4 and loop.state.steps_done == 9
    assert [row["lr"] for row in log.rows] == [5, 6, 7, 8] and not any("--minutes" in text for text in log.said)


# --- options and resuming

def options(*typed):
    return read_options([*typed, "--minutes=30"])


def test_the_rates_of_a_time():
    """Warm-up at most a fifth of the run; milestones keep their share of it."""
    cosine = build_rates(options("--lr=1", "--lr_init=0", "--warmup_steps=50"), 10, 100)
    assert len(cosine) == 100 and cosine[10] == pytest.approx(0.5) and cosine[20] == pytest.approx(1)
    assert cosine[60] == pytest.approx(0.5)
    given = ("--lr=1", "--warmup_epochs=0", "--lr_schedule=multistep", "--lr_milestones=[30]", "--lr_factors=[0.1]")
    rates = build_rates(options(*given), 10, 100)  # 30 of 60 epochs
    assert rates[49] == 1 and rates[50] == pytest.approx(0.1)


def test_the_timer_of_the_options():
    assert build_timer(read_options([]), 10, began=0, saved=None) is None
    one = build_timer(options("--eval_interval=2", "--mosaic_off_epochs=15"), 10, began=100.0, saved=None)
    assert one.began == 100
    assert one.eval_interval == 2 and one.eval_share == math.inf and one.save_share == timing.SAVES
    assert one.mosaic_share == 0.75 and len(one.rates_of(40)) == 40


@pytest.mark.parametrize("typed", ["--epoch_size=60", "--max_steps=9", "--overfit=8", "--pre_trained_epoch_size=3"])
def test_one_thing_says_how_long_the_run_is(typed):
    with pytest.raises(OptionError, match=rf"{typed[2:]} and --minutes=30: .* leave one of the two out"):
        check_minutes(options(typed))
    check_minutes(options())
    check_minutes(read_options([typed]))


def test_a_saved_plan_counts_while_the_minutes_are_asked_for():
    meta = {"steps_done": 40, "best": 0.1, "steps_per_epoch": 10, "plan": Plan(100, 2, 1)._asdict()}
    saved = Saved({}, meta, "last.ckpt", {"minutes": 30.0, "lr": 0.05})
    state = build_state(options(), 10, saved)
    assert state.total_steps == 100 and state.plan == {"steps": 100, "eval_interval": 2, "save_interval": 1}
    other = build_state(options(), 5, saved)  # a batch twice as large
    assert other.total_steps == other.plan["steps"] == 50 and other.steps_done == 20
    assert build_state(read_options(["--epoch_size=7"]), 10, saved).total_steps == 70
    assert build_state(options(), 10, saved._replace(meta={**meta, "plan": {}})).total_steps == UNPLANNED
    refuse_other_minutes(saved, options())
    refuse_other_minutes(saved, read_options([]))
    with pytest.raises(OptionError, match=r"minutes 30 -> 60: the 100 steps of this run are fixed.*--minutes=0"):
        refuse_other_minutes(saved, read_options(["--minutes=60"]))
    done = saved._replace(meta={**meta, "steps_done": 100})
    with pytest.raises(OptionError, match="all its steps are done, so that --lr 0.05 -> 0.1 would change nothing"):
        refuse_idling(done, options("--lr=0.1"))


def test_a_run_of_minutes_and_its_end(place):
    """In seconds, of which most go into compiling: it ends, its checkpoint has the plan, and resuming finds it done."""
    folder = place.folder / "timed"
    text = succeed(place, "train.py", *place.data, f"--output_path={folder}", "--minutes=0.8")
    assert "--minutes=0.8" in text and "done: " in text
    assert "compiling the first step of ssd300_mobilenet_v2 at 64 pixels" in text
    rows = [row for row in read_rows(folder) if "loss" in row]
    assert rows[-1]["step"] >= 1 and rows[-1]["eta"] == 0
    again = succeed(place, "train.py", "--resume=True", f"--output_path={folder}")
    assert "all steps of this run are done" in again
    longer = run(place, "train.py", "--resume=True", f"--output_path={folder}", "--epoch_size=50")
    assert longer.returncode == 2 and "--minutes=0" in longer.stderr and RECIPE["epoch_size"] == 2
