"""Learning rates as plain arrays, one value per step (numpy)."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def warmup(rates: np.ndarray, lr_init: float, steps: int) -> np.ndarray:
    """The first `steps` values of a schedule replaced by a line from lr_init towards the value at that step.

    Step i has lr_init + (lr - lr_init) * i / steps: model zoo official/cv/SSD; NVIDIA and MLPerf with lr_init 0.
    """
    rates = np.array(rates, np.float64)
    warm = np.arange(min(steps, len(rates)))
    rates[warm] = lr_init + (rates[min(steps, len(rates) - 1)] - lr_init) * warm / max(steps, 1)
    return rates.astype(np.float32)


def cosine(lr: float, *, lr_end: float, start: int, total_steps: int) -> np.ndarray:
    """lr until step `start`, then half a cosine to lr_end at total_steps. [total_steps].

    Source: model zoo official/cv/SSD, src/lr_schedule.py; step i has the angle pi * (i - start) / (total - start).
    """
    angle = np.pi * np.maximum(np.arange(total_steps) - start, 0) / max(total_steps - start, 1)
    return lr_end + (lr - lr_end) * (1 + np.cos(angle)) / 2


def multistep(lr: float, *, milestones: Sequence[int], factors: Sequence[float], total_steps: int) -> np.ndarray:
    """lr, times factors[k] from step milestones[k] on; each factor is of lr itself, not of the rate before."""
    values = lr * np.array([1.0, *factors])
    return values[np.searchsorted(milestones, np.arange(total_steps), side="right")]
