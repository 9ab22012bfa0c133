"""Collective operations, with threads in place of processes."""
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from src.errors import OptionError
from src.machine import distributed


@pytest.fixture(name="together")
def threads(monkeypatch):
    """Function: together(calls) runs a function a rank at once; all_reduce adds over them."""
    def together(*calls):
        barrier, given, mine = threading.Barrier(len(calls), timeout=60), {}, threading.local()

        def all_reduce(values):
            given[mine.rank] = values
            barrier.wait()
            total = np.sum([given[rank] for rank in range(len(calls))], axis=0)
            barrier.wait()
            return total

        def start(rank):
            mine.rank = rank
            return calls[rank]()

        monkeypatch.setattr(distributed, "all_reduce", all_reduce)
        with ThreadPoolExecutor(len(calls)) as pool:
            futures = [pool.submit(start, rank) for rank in range(len(calls))]
            return [future.exception() or future.result() for future in futures]
    return together


def answers(together, *facts):
    world = len(facts)
    return together(*(lambda rank=rank: distributed.check_equal(facts[rank], rank, world) for rank in range(world)))


def test_equal_processes_pass(together):
    assert answers(together, {"--lr": 0.1}, {"--lr": 0.1}, {"--lr": 0.1}) == [None] * 3


def test_the_first_fact_that_differs_is_named_with_both_values_on_all(together):
    errors = answers(together, {"--a": 1, "--lr": 0.1, "--z": "é"}, {"--a": 1, "--lr": 0.1, "--z": "w"},
                     {"--a": 1, "--lr": 0.2, "--z": "é"})
    assert all(isinstance(error, OptionError) for error in errors)
    assert {str(error) for error in errors} == {"--lr is 0.2 on rank 2, but 0.1 on rank 0; start all processes alike"}


def test_another_version_of_the_program_is_told(together):
    errors = answers(together, {"--lr": 0.1}, {"--lr": 0.1, "--new": 1})
    assert {str(error) for error in errors} == {"rank 1 runs another version of this program than rank 0; update it on "
                                                "all hosts"}


def test_rows_are_gathered_in_order_of_rank(together):
    rows = [np.full((count, 2), rank, np.float32) for rank, count in enumerate((2, 0, 3))]
    for table in together(*(lambda rank=rank: distributed.gather_rows(rows[rank], rank, 3) for rank in range(3))):
        assert table[:, 0].tolist() == [0, 0, 2, 2, 2]


def test_all_processes_have_the_anchors_that_the_first_one_fitted(together):
    from src.training.anchors import AnchorChooser
    shapes = [np.array([[10.1, 20.3], [7.7, 9.9]]), np.array([[0.1, 300.0]])]

    def share(rank, own):
        chooser = AnchorChooser("auto", threshold=0.5, seed=1, max_images=0, log=None, rank=rank, world=2)
        return [level.tolist() for level in chooser.share(own, [2, 1])]

    expected = [level.tolist() for level in shapes]
    assert together(lambda: share(0, shapes), lambda: share(1, [])) == [expected] * 2
    assert together(lambda: share(0, []), lambda: share(1, [])) == [[], []]


@pytest.mark.parametrize("values, expected", [
    ([[1, 2], [3, 2], [5, 2]], [3, 2]), ([[0.1, -0.7], [0.1, -0.7], [0.1, -0.7]], [0.1, -0.7]),
    ([[1, 2], [np.nan, 2]], [np.nan, 2])])
def test_parameters_become_their_mean_and_equal_ones_stay_to_the_last_bit(together, monkeypatch, values, expected):
    import mindspore as ms
    # the operator is not made for threads
    monkeypatch.setattr(distributed.ops, "assign", lambda parameter, tensor: parameter.set_data(tensor))
    ranks = [[ms.Parameter(np.array(one, np.float32)), ms.Parameter(np.full((2, 1), one[0], np.float32))]
             for one in values]
    answers = together(*(lambda rank=rank: distributed.average_parameters(ranks[rank], rank, len(ranks))
                         for rank in range(len(ranks))))
    assert answers == [None] * len(ranks)
    for first, second in ranks:
        assert np.array_equal(first.asnumpy(), np.array(expected, np.float32), equal_nan=True)
        assert np.array_equal(second.asnumpy().ravel(), np.float32([expected[0]] * 2), equal_nan=True)
    together(*(lambda rank=rank: distributed.average_parameters([], rank, 2) for rank in range(2)))


def test_a_digest_follows_from_every_bit_and_every_name():
    import mindspore as ms

    def digest(name, *values):
        return distributed.digest_of([ms.Parameter(np.array(values, np.float32), name=name)])

    assert digest("a", 1, 2) == digest("a", 1, 2)
    others = {digest("a", 1, 2), digest("a", 1, np.nextafter(np.float32(2), np.float32(3))), digest("a", 2, 1),
              digest("b", 1, 2)}
    assert len(others) == 4


@pytest.mark.parametrize("options, advice", [
    ({"resume": False, "pre_trained": "x.ckpt"}, "the same file by --pre_trained"),
    ({"resume": True, "pre_trained": ""}, "the same ckpt/ folder in --output_path"),
    ({"resume": False, "pre_trained": ""}, "the same packages")])
def test_other_weights_are_told_with_what_to_do(together, options, advice):
    import mindspore as ms

    from src.training.resume import check_same_state
    from src.training.state import RunState

    def compare(rank, number, **options):
        step = SimpleNamespace(get_parameters=lambda: [ms.Parameter(np.full(3, number, np.float32), name="a")])
        return check_same_state(step, RunState(1, 1), options, rank=rank, world=2)

    assert together(*(lambda rank=rank: compare(rank, 1, **options) for rank in (0, 1))) == [None, None]
    errors = together(*(lambda rank=rank: compare(rank, rank, **options) for rank in (0, 1)))
    assert all(isinstance(error, OptionError) for error in errors)
    assert advice in str(errors[1]) and "the digest of all weights is" in str(errors[0])
