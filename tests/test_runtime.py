"""What is prepared before MindSpore is imported."""
import socket

import pytest

from src import cluster, runtime


def no_address(name):
    raise socket.gaierror(-2, "Name or service not known")


@pytest.mark.parametrize("one_host, address", [(True, "127.0.0.1"), (False, "")])
def test_a_host_without_an_address(one_host, address, monkeypatch):
    monkeypatch.setattr(socket, "gethostbyname", no_address)
    assert cluster.free_address(one_host)[0] == address


@pytest.mark.parametrize("variables, expected", [
    ({}, 8), ({"LOCAL_WORLD_SIZE": "2", "MS_WORKER_NUM": "8"}, 4),
    ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "MS_WORKER_NUM": "8"}, 2), ({"MS_WORKER_NUM": "3"}, 2),
    ({"OMPI_COMM_WORLD_LOCAL_SIZE": "16"}, 1)])
def test_processes_of_one_machine_share_its_cores(monkeypatch, variables, expected):
    for name in ("OMPI_COMM_WORLD_LOCAL_SIZE", "MS_WORKER_NUM", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda process: set(range(8)))
    assert runtime.loader_threads() == expected
