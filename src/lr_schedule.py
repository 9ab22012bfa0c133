"""Learning rates as plain arrays, one value a step (numpy)."""
import numpy as np


def warmup_cosine(lr, lr_init, lr_end, warmup_steps, total_steps):
    """Linear from lr_init to lr over warmup_steps, then half a cosine to lr_end. [total_steps] float32.

    Source: model zoo official/cv/SSD, src/lr_schedule.py; step i has the angle pi * (i - warmup) / (total - warmup).
    """
    step = np.arange(total_steps, dtype=np.float64)
    warm = lr_init + (lr - lr_init) * step / max(warmup_steps, 1)
    angle = np.pi * (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    cosine = lr_end + (lr - lr_end) * (1 + np.cos(angle)) / 2
    return np.maximum(np.where(step < warmup_steps, warm, cosine), 0).astype(np.float32)
