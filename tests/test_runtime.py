"""What is prepared before MindSpore is imported."""
import socket

import pytest

from src import runtime


def no_address(name):
    raise socket.gaierror(-2, "Name or service not known")


@pytest.mark.parametrize("one_host, address", [(True, "127.0.0.1"), (False, "")])
def test_a_host_without_an_address(one_host, address, monkeypatch):
    monkeypatch.setattr(socket, "gethostbyname", no_address)
    assert runtime.free_address(one_host)[0] == address
