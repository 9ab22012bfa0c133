"""Collective operations, with threads in place of processes."""
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from src import distributed
from src.errors import OptionError


@pytest.fixture(name="together")
def threads(monkeypatch):
    """Function: together(calls) runs a function a rank at once; all_reduce adds over them."""
    def together(*calls):
        barrier, given, mine = threading.Barrier(len(calls), timeout=10), {}, threading.local()

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
