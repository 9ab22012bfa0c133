"""Means and speed between two log lines, and the time that is left (numpy)."""
from __future__ import annotations

import resource

import numpy as np

from src.progress import duration
from src.training.state import RunState

MEANS = ("loss", "loss_cls", "loss_box", "positives", "grad_norm")


class Meter:
    """Measures steps and sums up those of a RunState that are not logged yet.

    images_per_step: of all processes. The first step compiles: the speed and the time that is left do not count it,
    unless it stands alone.
    """

    def __init__(self, state: RunState, *, images_per_step: int):
        self.state, self.images_per_step = state, images_per_step
        self.first, self.timed, self.seconds = True, 0, 0.0

    def add(self, numbers: dict[str, float], *, data_time: float, step_time: float) -> None:
        """Adds the numbers of one step, the seconds it waited for data and those it took."""
        times = {"data_time": data_time, "step_time": step_time, "compiles": self.first}
        self.state.unlogged.append({**numbers, **times})
        self.first = False

    def row(self, rate: float, left: float | None = None) -> dict:
        """The log row of the steps since the last row. rate: learning rate of the last one; left: seconds to the end of
        the run, None to take it from the steps that are left."""
        state, steps = self.state, self.state.unlogged
        state.unlogged = []
        later = [step for step in steps if not step.get("compiles")]  # absent in older checkpoints
        means = {key: float(np.mean([step[key] for step in steps])) for key in MEANS}
        times = {key: float(np.mean([step[key] for step in later or steps])) for key in ("data_time", "step_time")}
        seconds = sum(times.values())
        self.timed += len(later)
        self.seconds += seconds * len(later)
        seconds_per_step = self.seconds / self.timed if self.timed else seconds
        row = {**means, "lr": rate, "loss_scale": steps[-1]["loss_scale"], **times,
               "images_per_second": self.images_per_step / seconds,
               "eta": seconds_per_step * (state.total_steps - state.steps_done) if left is None else left,
               "peak_memory": peak_memory()}
        return {"step": state.steps_done, "epoch": state.epoch, **{key: round(value, 6) for key, value in row.items()},
                "skipped": sum(not step["finite"] for step in steps)}

    def line(self, row: dict, *, has_end: bool = True) -> str:
        """The row for people. has_end: whether it is known how many steps the run has."""
        steps, epochs = (f"/{self.state.total_steps}", f"/{self.state.epochs}") if has_end else ("", "")
        data_ms, step_ms = row["data_time"] * 1000, row["step_time"] * 1000
        text = (f"step {row['step']}{steps}  epoch {row['epoch']}{epochs}  "
                f"loss {row['loss']:.4f} (cls {row['loss_cls']:.4f} box {row['loss_box']:.4f})  "
                f"grad {row['grad_norm']:.3g}  lr {row['lr']:.5f}  {row['images_per_second']:.1f} images/s "
                f"(data {data_ms:.0f} ms, step {step_ms:.0f} ms)  {duration(row['eta'])} left")
        if row["skipped"]:
            text += f"  {row['skipped']} skipped, loss scale {row['loss_scale']:g}"
        return text


def peak_memory() -> float:
    """The most main memory this process has held so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20  # Linux counts in KiB
