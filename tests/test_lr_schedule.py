"""Learning rates by hand."""
import numpy as np

from src.lr_schedule import cosine, multistep, warmup


def test_warm_up_is_linear_and_the_cosine_ends_low():
    rates = warmup(cosine(lr=1.0, lr_end=0.0, start=4, total_steps=8), 0.2, 4)
    assert np.allclose(rates[:4], [0.2, 0.4, 0.6, 0.8])
    assert np.allclose(rates[4:], [1.0, (1 + np.cos(np.pi / 4)) / 2, 0.5, (1 + np.cos(3 * np.pi / 4)) / 2])
    assert rates.dtype == np.float32 and len(rates) == 8


def test_no_warm_up_and_warm_up_longer_than_the_run():
    assert warmup(cosine(1.0, lr_end=0.5, start=0, total_steps=2), 0.1, 0)[0] == 1.0
    assert np.allclose(warmup(cosine(1.0, lr_end=0.0, start=10, total_steps=3), 0.0, 10), [0.0, 0.1, 0.2])


def test_steps_change_at_their_milestones_and_factors_are_of_the_base_rate():
    rates = warmup(multistep(2.0, milestones=[3, 5], factors=[0.5, 0.1], total_steps=7), 0.0, 2)
    assert np.allclose(rates, [0, 1, 2, 1, 1, 0.2, 0.2])
    assert np.allclose(multistep(1.0, milestones=[], factors=[], total_steps=3), 1.0)
