"""Learning rates by hand."""
import numpy as np

from src.lr_schedule import warmup_cosine


def test_warm_up_is_linear_and_the_cosine_ends_low():
    rates = warmup_cosine(lr=1.0, lr_init=0.2, lr_end=0.0, warmup_steps=4, total_steps=8)
    assert np.allclose(rates[:4], [0.2, 0.4, 0.6, 0.8])
    assert np.allclose(rates[4:], [1.0, (1 + np.cos(np.pi / 4)) / 2, 0.5, (1 + np.cos(3 * np.pi / 4)) / 2])
    assert rates.dtype == np.float32 and len(rates) == 8


def test_no_warm_up_and_warm_up_longer_than_the_run():
    assert warmup_cosine(1.0, 0.1, 0.5, 0, 2)[0] == 1.0
    assert np.allclose(warmup_cosine(1.0, 0.0, 0.0, 10, 3), [0.0, 0.1, 0.2])
