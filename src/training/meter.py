"""Means and speed between two log lines, and how long is left (numpy)."""
import resource

import numpy as np

from src.progress import duration

MEANS = ("loss", "loss_cls", "loss_box", "positives", "grad_norm")


class Meter:
    """Collects steps and sums them up in a row for the log.

    total: steps of the run; done: those that were counted. images_per_step: of all processes. The first step compiles
    and is left out of the speed, and of the time that is left, unless it stands alone.
    """

    def __init__(self, total, images_per_step):
        self.total, self.images_per_step, self.done = total, images_per_step, 0
        self.steps, self.fresh, self.timed, self.seconds = [], True, 0, 0.0

    def add(self, numbers, data_time, step_time):
        """numbers: dict of one step; seconds spent waiting for data and in the step."""
        self.done += 1
        self.steps.append({**numbers, "data_time": data_time, "step_time": step_time, "compiles": self.fresh})
        self.fresh = False

    def row(self, step, epoch, rate):
        """The log row of the steps since the last one; `step` and `epoch` count from 1."""
        steps, self.steps = self.steps, []
        later = [one for one in steps if not one.get("compiles")]  # absent in older checkpoints
        means = {key: float(np.mean([one[key] for one in steps])) for key in MEANS}
        times = {key: float(np.mean([one[key] for one in later or steps])) for key in ("data_time", "step_time")}
        seconds = sum(times.values())
        self.timed += len(later)
        self.seconds += seconds * len(later)
        row = {**means, "lr": rate, "loss_scale": steps[-1]["loss_scale"], **times,
               "images_per_second": self.images_per_step / seconds,
               "eta": (self.seconds / self.timed if self.timed else seconds) * (self.total - step)}
        row["peak_memory"] = peak_memory()
        return {"step": step, "epoch": epoch, **{key: round(value, 6) for key, value in row.items()},
                "skipped": sum(not one["finite"] for one in steps)}

    def line(self, row):
        """The row for people."""
        text = (f"step {row['step']}/{self.total}  epoch {row['epoch']}  loss {row['loss']:.4f} "
                f"(cls {row['loss_cls']:.4f} box {row['loss_box']:.4f})  grad {row['grad_norm']:.3g}  "
                f"lr {row['lr']:.5f}  {row['images_per_second']:.1f} images/s (data {row['data_time'] * 1000:.0f} ms, "
                f"step {row['step_time'] * 1000:.0f} ms)  {duration(row['eta'])} left")
        return f"{text}  {row['skipped']} skipped, loss scale {row['loss_scale']:g}" if row["skipped"] else text


def peak_memory():
    """The most main memory this process has held so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20  # Linux counts in KiB
