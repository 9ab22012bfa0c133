"""Signals of a program that computes: noticed while a single call takes long, and told apart."""
import os
import signal
import subprocess
import sys
import time

import pytest
from programs import ROOT, started, until

from src.machine.stop_signals import leaving_at_once, stop_signals


def test_the_first_and_the_later_ones():
    calls, before = [], [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_signals(lambda: calls.append("first"), lambda: calls.append("later")) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: calls == ["first"])
        assert signals == [signal.SIGTERM]
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
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10 ** 9)  # one call of minutes, behind which Python's handlers wait
print("over", flush=True)
"""


def test_a_call_that_does_not_return_is_no_hindrance():
    with started(sys.executable, "-c", BUSY.format(root=ROOT), stderr=subprocess.PIPE) as process:
        for expected in ("busy", "noticed"):
            assert process.stdout.readline() == f"{expected}\n"
            process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest, errors) == (130, "", "error: at once\n")


LEAVING = """
import hashlib, sys, time
sys.path.insert(0, {root!r})
from src.errors import run_main
from src.files import folder_aside, output_folder
from src.machine import stop_signals

def main():
    stop_signals.PATIENCE = {patience}
    with output_folder({folder!r}), folder_aside({folder!r} + "/a.ckpt"), stop_signals.leaving_at_once():
        try:
            print("busy", flush=True)
            {work}
        finally:
            print("unwound", flush=True)

run_main(main)
"""
CALL, LOOP = 'hashlib.pbkdf2_hmac("sha256", b"", b"", 10 ** 9)', "time.sleep(600)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work, patience, printed", [(CALL, 0.1, ""), (LOOP, 600, "unwound\n")])
def test_a_program_is_left_at_once_with_nothing_half_written(tmp_path, work, patience, printed, number):
    """Within one long call too; where Python can, its contexts end as usual."""
    code = LEAVING.format(root=ROOT, folder=str(tmp_path / "made" / "here"), work=work, patience=patience)
    with started(sys.executable, "-c", code, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == "busy\n"
        time.sleep(1)  # it says so before the call in which the signal is to come
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest) == (130, printed)
    assert errors == "error: interrupted before there was anything to save\n" and not (tmp_path / "made").exists()


def test_behind_it_signals_are_what_they_were():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with leaving_at_once():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


IMPORTING = """
import sys
sys.path.insert(0, {root!r})
from src.errors import run_main
from src.machine import process

def main():
    process.prepare()
    print("importing", flush=True)
    import {module}
    print("imported", flush=True)

run_main(main)
"""


@pytest.mark.parametrize("module, seconds", [("mindspore", 0.1), ("mindspore", 0.5), ("mindspore.dataset", 1.5)])
def test_while_mindspore_is_imported_the_program_ends_with_one_line(module, seconds):
    """An exception within the import leaves libraries that crash."""
    with started(sys.executable, "-c", IMPORTING.format(root=ROOT, module=module), stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == "importing\n"
        time.sleep(seconds)  # whenever it comes
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    if rest == "":
        assert (process.returncode, errors) == (130, "error: interrupted before there was anything to save\n")
