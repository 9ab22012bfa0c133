"""The loop over epochs and steps."""
from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from src.data.loader import TrainLoader
from src.data.prefetch import Prefetcher
from src.errors import ALL, ALONE, ANOTHER, Interrupted, NotFiniteError, SSDError, leave_at_once, tell
from src.machine.distributed import gather_rows, wait_for_all
from src.machine.stop_signals import stop_signals
from src.training.log import RunLog, no_panel
from src.training.meter import Meter
from src.training.saver import Saver
from src.training.state import RunState
from src.training.step import TrainStep, run_step
from src.training.timing import UNPLANNED, Costs, Plan, RunTimer
from src.training.validator import Validator

MAX_SKIPPED = 20  # steps in a row; a dynamic loss scale needs fewer to find its value
SAVED = "the state was saved, --resume=True goes on from here"


class Loop:
    """Trains from the last step of a RunState to the end of the run.

    rates: of every step of the run, as the optimiser has them; with a timer, which finds out how many steps there are,
    of the steps before that. image_names: gives those of all rows, for errors. network: what is compiled, in words.
    The methods pass on the numbers of a step: the dict of run_step, whose keys TrainStep explains.
    """

    def __init__(self, step: TrainStep, loader: TrainLoader, state: RunState, *, rates: np.ndarray,
                 validator: Validator | None, saver: Saver, log: RunLog, image_names: Callable[[], Sequence[str]],
                 log_interval: int = 10, timer: RunTimer | None = None, network: str = "the network"):
        self.step, self.loader, self.state, self.rates, self.timer = step, loader, state, rates, timer
        self.validator, self.saver, self.log = validator, saver, log
        self.image_names, self.log_interval, self.network = image_names, log_interval, network
        self.meter = Meter(state, images_per_step=loader.batch_size * loader.world)
        self.batches = Prefetcher(loader, UNPLANNED if timer else state.total_steps)
        if timer and state.plan:  # of a resumed run
            self.follow(Plan(**state.plan))
        self.signals: list[int] = []  # signals received; the first one asks the run to stop
        self.finite: list[bool] = []  # for each step, whether its gradients were finite
        self.show: Callable[[int, float, int], None] = no_panel  # tells a live panel of a step; train_epochs() opens it
        self.loss = math.nan            # of the last step
        self.doing = "this step"        # what ends before the run does after a signal

    def run(self) -> None:
        """Trains. After an error too it saves the state and closes the log, and all processes leave together."""
        self.step.set_train()
        try:
            with contextlib.closing(self.log), self.saver.saving_at_fault(self.state):
                self.train()
        except KeyboardInterrupt as error:  # before the first step or behind the last: nothing is left to end first
            raise self.ended_at_once() from error
        except (Interrupted, NotFiniteError) as error:  # all processes meet it at the same step
            wait_for_all(self.loader.world)  # the first process that leaves ends the others
            if error.__cause__:  # the error that this process met in its data, see train_epoch()
                raise error.__cause__ from None
            raise
        wait_for_all(self.loader.world)

    def train(self) -> None:
        """Trains epoch after epoch.

        Raises NotFiniteError, Interrupted (from the error of the loader, where it came to one of several processes),
        and what the loader raises.
        """
        stalled = self.state.is_stalled  # asked before the evaluation: only rank 0 counts its score
        with stop_signals(self.tell_stop, self.stop_now) as self.signals:
            # an interrupted run had done the steps of an epoch, but perhaps not what follows them
            ended = self.end_epoch() if self.state.epoch_end_due else False
            if not stalled and not ended:
                self.train_epochs()

    def train_epochs(self) -> None:
        """Trains epoch after epoch, to the end of the run."""
        total = 0 if self.is_measuring else self.state.total_steps
        with self.log.live(total) as self.show, contextlib.closing(self.batches):
            if not self.state.is_complete:
                self.log.say(f"compiling the first step of {self.network}: half a minute to some minutes, less where "
                             "--compile_cache has it", in_panel=True)
            while not self.state.is_complete:
                self.train_epoch()
                if self.end_epoch():
                    return

    def train_epoch(self) -> None:
        """Trains to the end of the epoch, or of the run: batch, step, log, save."""
        state = self.state
        epoch, first = divmod(state.steps_done, state.steps_per_epoch)
        asked = time.monotonic()
        for images, labels, targets, rows in self.batches.epoch(epoch, first):
            data_time = time.monotonic() - asked
            if self.timer:
                self.prepare_timed_step()
            began = time.monotonic()
            stop = bool(self.signals or self.batches.error)
            numbers = run_step(self.step, [images, labels, targets], stop=stop)
            self.meter.add(numbers, data_time=data_time, step_time=time.monotonic() - began)
            self.check_finite(numbers, rows)
            state.count_step()
            if self.is_measuring:
                self.timer.count(time.monotonic() - asked)
                state.spent = self.timer.spent()
            self.report(numbers, time.monotonic() - asked)
            if numbers["stops"]:  # how many processes ask to stop
                self.saver.save_last(state)
                raise self.interruption(everyone=numbers["stops"] == self.loader.world) from self.data_error()
            self.saver.after_step(state)
            if state.is_complete:
                break
            asked = time.monotonic()
        if not self.step.dynamic:
            refuse_skipping(self.finite[-state.steps_per_epoch:])
        del self.finite[:-MAX_SKIPPED]  # a run may have millions of steps

    def end_epoch(self) -> bool:
        """What follows an epoch: validate, save. Returns whether the run ends here, before its last step."""
        state, ended = self.state, False
        if self.is_measuring:
            state.epoch_end_due = False
            return False
        evaluated = self.validator is not None and self.validator.is_due(state)
        if evaluated:
            self.doing = "this evaluation" if state.is_complete else "this evaluation and the next step"
            self.saver.save_last(state)  # the evaluation may fail
            metrics = self.validator.validate(state)
            if metrics and state.count_score(metrics.get("mAP_area", metrics.get("AP"))):
                self.saver.save_best(state, scores=self.validator.choose_scores(state.steps_done))
            ended = self.validator.ends_run(state, metrics)
            self.doing = "this step"
        self.saver.after_epoch(state, evaluated=evaluated, ended=ended)
        state.epoch_end_due = False
        return ended

    @property
    def is_measuring(self) -> bool:
        """Whether the timer has still to find out how many steps the run has. Epochs have no end until then."""
        return self.timer is not None and not self.state.plan

    def prepare_timed_step(self) -> None:
        """Makes the plan of the run when it is due, and gives the next step its learning rate."""
        state, world = self.state, self.loader.world
        if self.is_measuring:
            asked = np.float32([[self.timer.is_due(), bool(self.signals)]])
            due, stopping = gather_rows(asked, self.loader.rank, world).any(axis=0)
            if due and not stopping:
                self.make_plan()
        self.step.set_rate(self.rates[state.steps_done])

    def make_plan(self) -> None:
        """Measures what the run consists of, and gives it the length that fits into its time."""
        state, evaluation = self.state, 0.0
        if self.validator and self.timer.left():
            self.log.say("trying the evaluation, to know how long one takes; it is compiled first")
            evaluation = self.validator.measure()
        began = time.monotonic()
        self.saver.save_last(state)
        save = time.monotonic() - began
        costs = np.float32([[self.timer.step_seconds, evaluation, save, self.timer.spent()]])
        # the slowest process counts, so that all get the same plan
        costs = Costs(*gather_rows(costs, self.loader.rank, self.loader.world).max(axis=0).tolist())
        plan = self.timer.plan(costs, state.steps_done)
        self.follow(plan)
        self.saver.save_last(state)  # from here on a killed run is resumed with the plan
        self.show(state.steps_done, self.loss, plan.steps)
        self.log.say(self.timer.describe(plan, costs))

    def follow(self, plan: Plan) -> None:
        """Gives the run the length of a plan."""
        state = self.state
        state.plan, state.total_steps, self.batches.total_steps = plan._asdict(), plan.steps, plan.steps
        self.rates = self.timer.rates_of(plan.steps)
        self.saver.epoch_interval = plan.save_interval
        self.loader.limit_mosaics(round(self.timer.mosaic_share * state.epochs))
        if self.validator:
            self.validator.interval = plan.eval_interval
            self.validator.start_epoch = min(self.validator.start_epoch, state.epochs)

    def check_finite(self, numbers: dict, rows: np.ndarray) -> None:
        """Raises NotFiniteError where the loss is not finite, or too many steps in a row were skipped."""
        self.finite.append(bool(numbers["finite"]))
        newest = self.finite[-MAX_SKIPPED:]
        all_skipped = len(newest) == MAX_SKIPPED and not any(newest)
        if math.isfinite(numbers["loss"]) and not all_skipped:
            return
        epoch, step = self.state.steps_done // self.state.steps_per_epoch + 1, self.state.steps_done + 1
        # the loss is a mean over the processes, of which one or more are the cause
        if math.isfinite(numbers["own_loss"]) and not math.isfinite(numbers["loss"]):
            raise NotFiniteError(f"the loss of another process is not finite at step {step}; it names the images")
        names = self.image_names()
        raise NotFiniteError(
            f"loss is {numbers['own_loss']}, gradient norm {numbers['grad_norm']} at step {step}, epoch {epoch}: lr "
            f"{self.step.last_rate(self.rates):.3g}, loss scale {numbers['loss_scale']:g}, images "
            f"{', '.join(names[row] for row in rows)}; usual causes: lr too high (lower --lr, raise "
            "--warmup_epochs), no --grad_clip, a loss scale too large for float16; the weights before this step are in "
            "ckpt/diverged.ckpt")

    def report(self, numbers: dict, seconds: float) -> None:
        """Shows the progress after a step, which took so many seconds, and logs every log_interval steps."""
        state = self.state
        if len(self.finite) == 1:
            self.log.say(f"first step took {seconds:.1f} s")
        self.loss = numbers["loss"]
        self.show(state.steps_done, self.loss, 0 if self.is_measuring else state.total_steps)
        if state.steps_done % self.log_interval == 0 or state.is_complete:
            row = self.meter.row(self.step.last_rate(self.rates), self.timer.left() if self.is_measuring else None)
            self.log.write(row, "train")
            self.log.say(self.meter.line(row, has_end=not self.is_measuring), in_panel=True)

    def tell_stop(self) -> None:
        """Answers the first signal, from another thread."""
        self.log.say(f"stopping after {self.doing}; press Ctrl-C again to stop now")

    def stop_now(self) -> None:
        """Answers the second signal, from another thread: ends the program."""
        error = self.ended_at_once()
        try:
            self.log.leave_panel()
            tell(error)
        finally:
            leave_at_once(error.exit_code)

    def ended_at_once(self) -> Interrupted:
        """The error of a run that ends without saving."""
        return Interrupted(f"interrupted at once, after step {self.state.steps_done}; {self.saver.what_is_saved()}")

    def interruption(self, *, everyone: bool) -> Interrupted:
        """The error that ends the loop after a process asked to stop and the state was saved. everyone: all asked."""
        after = f"after step {self.state.steps_done}"
        if self.signals or self.batches.error:
            return Interrupted(f"interrupted {after}; {SAVED}", ALL if everyone else ALONE)
        return Interrupted(f"another process was interrupted or met an error {after}; {SAVED}", ANOTHER)

    def data_error(self) -> Exception | None:
        """The error that this process met in its data, if any; one for users also says that the state was saved."""
        error = self.batches.error
        if isinstance(error, SSDError):
            return type(error)(f"{error}; after step {self.state.steps_done} {SAVED}", ALONE)
        return error


def refuse_skipping(finite: Sequence[bool]) -> None:
    """Raises NotFiniteError when most of these steps were skipped: a static loss scale will not get better."""
    skipped = finite.count(False)
    if skipped > len(finite) / 2:
        raise NotFiniteError(f"{skipped} of {len(finite)} steps were skipped, their gradients were not finite; lower "
                             "--lr or --loss_scale, or use --dynamic_loss_scale=True")
