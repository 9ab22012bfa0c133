"""Signals of a program that computes: noticed while a single call takes long, and told apart."""
import os
import signal
import subprocess
import sys
import time

from programs import ROOT

from src.machine.stop_signals import stop_signals


def until(condition):
    end = time.time() + 20
    while not condition() and time.time() < end:
        time.sleep(0.01)
    return condition()


def test_the_first_and_the_later_ones():
    calls, before = [], [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_signals(lambda: calls.append("first"), lambda: calls.append("later")) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals == [signal.SIGTERM] and until(lambda: calls == ["first"])
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert calls == ["first", "later", "later"] and len(signals) == 3
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1  # as it was


def test_without_a_signal_nothing_is_called():
    with stop_signals(None, None) as signals:
        pass
    assert signals == []


BUSY = """
import hashlib, sys
sys.path.insert(0, {root!r})
from src.machine.stop_signals import stop_signals
from src.errors import Interrupted, leave_at_once, tell

def leave():
    tell(Interrupted("at once"))
    leave_at_once(130)

with stop_signals(lambda: print("noticed", flush=True), leave):
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10 ** 8)  # one call of a minute, behind which Python's handlers wait
print("over", flush=True)
"""


def test_a_call_that_does_not_return_is_no_hindrance():
    with subprocess.Popen([sys.executable, "-c", BUSY.format(root=ROOT)], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        for expected in ("busy", "noticed"):
            assert process.stdout.readline() == f"{expected}\n"
            process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=20)
    assert (process.returncode, rest, errors) == (130, "", "error: at once\n")
