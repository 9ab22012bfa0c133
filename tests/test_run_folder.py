"""The folder of a run: held by one living run, taken for what it is whatever its name, swept of halves only."""
import os
import signal
import subprocess
import sys
import time

import pytest
from programs import ROOT

from src.errors import OptionError
from src.training.run_folder import LOCK, check_run_folder, hold_run_folder, restart_note

HOLDER = """
import os, sys, time
sys.path.insert(0, {root!r})
from src.training.run_folder import hold_run_folder
with hold_run_folder({path!r}):
    if {fork}:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    print(child if {fork} else 0, flush=True)
    time.sleep(60)
"""


class Holder:
    """Another process that holds a folder until `end`."""

    def __init__(self, path, fork=False):
        code = HOLDER.format(root=ROOT, path=str(path), fork=fork)
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        self.child = int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end(signal.SIGKILL)
        if self.child:
            os.kill(self.child, signal.SIGKILL)

    def end(self, number):
        self.process.send_signal(number)
        self.process.wait()
        self.process.stdout.close()


def test_a_folder_in_use_is_refused_and_the_message_says_by_whom(tmp_path):
    with Holder(tmp_path / "run") as holder:
        for resume in (False, True):
            with pytest.raises(OptionError) as caught:
                with hold_run_folder(str(tmp_path / "run"), resume=resume):
                    pass
        assert f"process {holder.process.pid} on {os.uname().nodename}" in str(caught.value)
        assert "choose another --output_path" in str(caught.value) and (tmp_path / "run").is_dir()
        assert os.listdir(tmp_path / "run") == [LOCK]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_ended_holds_nothing_whatever_its_children_do(tmp_path, number):
    with Holder(tmp_path / "run", fork=True) as holder:
        holder.end(number)
        os.kill(holder.child, 0)  # it lives
        with hold_run_folder(str(tmp_path / "run")):
            assert str(os.getpid()) in (tmp_path / "run" / LOCK).read_text()
        holder.process = subprocess.Popen(["true"], stdout=subprocess.PIPE)


def test_only_one_of_many_that_start_at_once_gets_the_folder(tmp_path):
    code = (f"import os, sys, time; sys.path.insert(0, {ROOT!r}); from src.training.run_folder import hold_run_folder\n"
            f"with hold_run_folder({str(tmp_path / 'run')!r}):\n"
            f"    while not os.path.exists({str(tmp_path / 'end')!r}): time.sleep(0.05)")
    many = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) for _ in range(4)]
    end = time.time() + 60
    while sum(process.poll() is not None for process in many) < 3 and time.time() < end:
        time.sleep(0.05)
    (tmp_path / "end").touch()
    assert sorted(process.wait() for process in many) == [0, 1, 1, 1]


def test_what_was_made_for_nothing_goes_and_the_rest_stays(tmp_path):
    with hold_run_folder(str(tmp_path / "a" / "b")):
        assert (tmp_path / "a" / "b" / LOCK).exists()
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    with hold_run_folder(str(tmp_path / "mine")):
        pass
    assert os.listdir(tmp_path / "mine") == []
    with hold_run_folder(str(tmp_path / "c")):
        (tmp_path / "c" / "log.jsonl").write_text("")
    assert os.listdir(tmp_path / "c") == ["log.jsonl"]


def test_a_file_system_without_locks_lets_pass(tmp_path, monkeypatch):
    from src.training import run_folder

    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(run_folder.fcntl, "lockf", refuse)
    half = tmp_path / "ckpt" / ".writing.x"  # perhaps of a run that lives
    half.mkdir(parents=True)
    for name in ("config.yaml", "log.jsonl"):
        (tmp_path / name).touch()
    with hold_run_folder(str(tmp_path)), hold_run_folder(str(tmp_path)):
        assert half.exists()


def test_a_run_that_came_and_went_meanwhile_is_seen(tmp_path):
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "last.ckpt").touch()
    with pytest.raises(OptionError, match="already holds a run"):
        with hold_run_folder(str(tmp_path)):
            pass
    assert sorted(os.listdir(tmp_path)) == ["ckpt"]


def test_what_a_killed_run_was_writing_goes_and_nothing_else(tmp_path):
    folder = tmp_path / "ckpt"
    (folder / ".writing.abc").mkdir(parents=True)
    (folder / ".writing.abc" / "aside.tmp").touch()
    (folder / ".writing.last.ckpt~").touch()
    for name in ("last.ckpt", ".writing", "writing.x", ".notes"):
        (folder / name).touch()
    with hold_run_folder(str(tmp_path), resume=True):
        assert sorted(os.listdir(folder)) == [".notes", ".writing", "last.ckpt", "writing.x"]


def test_a_run_that_saved_nothing_is_started_again_and_said_to_be(tmp_path):
    path = str(tmp_path)
    assert restart_note(path) == restart_note(str(tmp_path / "none")) == ""
    (tmp_path / "ckpt").mkdir()
    for name in ("config.yaml", "log.jsonl"):
        (tmp_path / name).touch()
    check_run_folder(path)
    assert "holds a run that ended before its first checkpoint: it starts again" in restart_note(path)
    (tmp_path / "ckpt" / "last.ckpt").touch()
    assert restart_note(path) == ""
    with pytest.raises(OptionError, match=f"go on with it by --resume=True --output_path={path}, or choose"):
        check_run_folder(path)


@pytest.mark.parametrize("name", ["runs[1]", "[a-z]", "what?", "all*", "a[!b]"])
def test_a_folder_whose_name_is_a_pattern_is_not_taken_for_empty(tmp_path, name):
    (tmp_path / name / "ckpt").mkdir(parents=True)
    (tmp_path / name / "ckpt" / "last.ckpt").touch()
    with pytest.raises(OptionError, match="already holds a run"):
        check_run_folder(str(tmp_path / name))
    check_run_folder(str(tmp_path / name), resume=True)


def test_a_folder_that_cannot_be_read_is_not_taken_for_empty(tmp_path, monkeypatch):
    """Too many open files, for example: another run would begin in it."""
    def fail(path):
        raise OSError(24, "Too many open files", path)
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "last.ckpt").touch()
    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(OSError, match="Too many"):
        check_run_folder(str(tmp_path))


def test_a_folder_that_the_pattern_fits_is_not_taken_for_the_run(tmp_path):
    (tmp_path / "runs1" / "ckpt").mkdir(parents=True)
    (tmp_path / "runs1" / "ckpt" / "last.ckpt").touch()
    check_run_folder(str(tmp_path / "runs[1]"))
    with pytest.raises(OptionError, match="there is no"):
        check_run_folder(str(tmp_path / "runs[1]"), resume=True)
