"""How many steps fit into the minutes that a user gives: measured at the start of a run, then fixed for all of it."""
from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from src.progress import duration

UNPLANNED = 1_000_000     # more steps than a run has before its plan is made
WARM_STEPS = 2            # steps that are not measured: the first one compiles, and batches were waiting for the second
MIN_MEASURED = 5          # steps that are measured at least
MEASURED = 0.03           # share of the minutes that they take at least: one step alone says little
EVALUATIONS, SAVES = 0.2, 0.05  # shares of the minutes that evaluations and checkpoints take at most
SPARE = 0.01              # share of the minutes for the curves at the end
WHOLE_EPOCHS = 20         # a run of so many epochs or more ends with a whole one
FEW_STEPS = 20            # a run of fewer teaches nothing, whatever the data


class Costs(NamedTuple):
    """What the parts of a run take, in seconds."""
    step: float        # with its data; 0: not known
    evaluation: float  # 0: there is none
    save: float        # of one checkpoint
    spent: float       # all that the run has taken so far


class Plan(NamedTuple):
    """The length of a run; its checkpoints keep it, so that a resumed run ends where it would have ended."""
    steps: int          # of the whole run
    eval_interval: int  # epochs between two evaluations
    save_interval: int  # epochs between two checkpoints


class RunTimer:
    """Measures the first steps of a run that began at time `began` and may take so many minutes.

    rates_of: steps of a run -> its learning rates [steps]. eval_interval, save_interval: epochs; they become longer
    where evaluations and checkpoints would take more than these shares of the time. mosaic_share: of the epochs, the
    first ones.
    """

    def __init__(self, minutes: float, began: float, *, rates_of: Callable[[int], np.ndarray], steps_per_epoch: int,
                 eval_interval: int = 1, save_interval: int = 1, eval_share: float = EVALUATIONS,
                 save_share: float = SAVES, mosaic_share: float = 1.0):
        self.minutes, self.began, self.rates_of, self.steps_per_epoch = minutes, began, rates_of, steps_per_epoch
        self.eval_interval, self.save_interval = eval_interval, save_interval
        self.eval_share, self.save_share, self.mosaic_share = eval_share, save_share, mosaic_share
        self.calls, self.measured, self.seconds = 0, 0, 0.0

    def count(self, seconds: float) -> None:
        """Takes note of a step that took so many seconds, with its data."""
        self.calls += 1
        if self.calls > WARM_STEPS:
            self.measured += 1
            self.seconds += seconds

    @property
    def step_seconds(self) -> float:
        """Mean of the measured steps, 0 before the first."""
        return self.seconds / max(self.measured, 1)

    def early_rates(self) -> np.ndarray:
        """The learning rates of the steps before the plan is made: the warm-up, then the rate behind it."""
        return self.rates_of(UNPLANNED)

    def spent(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    def is_due(self) -> bool:
        """Whether enough is measured to make the plan, or no time is left to measure more."""
        enough = self.measured >= MIN_MEASURED and self.seconds >= MEASURED * 60 * self.minutes
        return enough or not self.left()

    def left(self) -> float:
        """Seconds that are left of the minutes, 0 when they are over."""
        return max(60 * self.minutes - self.spent(), 0.0)

    def plan(self, costs: Costs, steps_done: int) -> Plan:
        """The longest run that ends in time; one step more where none is left."""
        epoch, save = costs.step * self.steps_per_epoch, 2 * costs.save  # last.ckpt and a second one
        evaluation = costs.evaluation + save if costs.evaluation else 0.0
        eval_interval = longer(self.eval_interval, evaluation, self.eval_share * epoch)
        save_interval = longer(self.save_interval, save, self.save_share * epoch)
        seconds = costs.step + (evaluation / eval_interval + save / save_interval) / self.steps_per_epoch
        left = 60 * self.minutes * (1 - SPARE) - costs.spent - evaluation - save  # the last ones, in addition
        steps = steps_done + (max(int(left / seconds), 1) if seconds else 1)
        if steps >= WHOLE_EPOCHS * self.steps_per_epoch:
            steps -= steps % self.steps_per_epoch
        return Plan(steps, eval_interval, save_interval)

    def describe(self, plan: Plan, costs: Costs) -> str:
        """The plan and what it is made of, in words."""
        if costs.spent >= 60 * self.minutes:
            return (f"--minutes={self.minutes:g} are over before {MIN_MEASURED} steps were measured: the run ends "
                    f"after step {plan.steps}")
        epochs = plan.steps / self.steps_per_epoch
        parts = [f"a step takes {costs.step:.3g} s (mean of {self.measured})"]
        if costs.evaluation:
            parts.append(f"an evaluation {costs.evaluation:.1f} s")
        parts.append(f"a checkpoint {costs.save:.1f} s")
        every = f", evaluated every {plan.eval_interval} epoch(s)" if costs.evaluation else ""
        text = (f"--minutes={self.minutes:g}: {', '.join(parts)}, {duration(costs.spent)} are over: {plan.steps} steps "
                f"fit, {epochs:.4g} epochs{every}")
        if epochs == int(epochs):
            words = f" --eval_interval={plan.eval_interval}" if costs.evaluation else ""
            text += f"; without a clock: --epoch_size={epochs:.0f}{words}"
        return text


def too_short(steps_done: int, steps_per_epoch: int, device: str) -> str:
    """Says of a run that it is too short to be a training, and what helps; "" for a longer one."""
    if steps_done >= max(FEW_STEPS, steps_per_epoch):
        return ""
    gpu = ", or a GPU (--device_target=GPU)" if device == "CPU" else ""
    return (f"this is not a training yet: {steps_done} step(s), {steps_done / steps_per_epoch:.2g} epoch(s), are too "
            f"few to learn from. What helps: more --minutes, a smaller --image_size{gpu}")


def longer(interval: int, cost: float, limit: float) -> int:
    """The interval in epochs, or the shortest one at which `cost` is at most `limit` an epoch (both in seconds)."""
    return max(interval, math.ceil(cost / limit)) if limit else interval
