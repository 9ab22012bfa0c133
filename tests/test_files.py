"""Files appear whole or not at all, whatever ends their writer; what that left does not pile up."""
import ast
import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ROOT

from src import files
from src.errors import EnvironmentFault
from src.files import Appender, finish, folder_aside, make_folder, open_aside, remove_leftovers, write_atomic


def in_process(code, *words, end="ready"):
    """Another Python that runs code after some imports and prints `end` -> its Popen."""
    head = (f"import os, resource, sys, time; sys.path.insert(0, {ROOT!r})\n"
            "from src.files import *; from src.errors import EnvironmentFault\n")
    process = subprocess.Popen([sys.executable, "-c", head + code, *map(str, words)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == end
    return process


def test_a_file_is_there_in_full_and_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "a.json"
    with pytest.raises(OSError), folder_aside(str(path)):
        pass
    for data in (b"one", b"", b"two" * 100000):
        write_atomic(str(path), data)
        assert path.read_bytes() == data and os.listdir(path.parent) == ["a.json"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_names_of_255_bytes(tmp_path):
    for name in ("a" * 255, "ü" * 127, "猫" * 85):
        write_atomic(str(tmp_path / name), b"x")
        with folder_aside(str(tmp_path / name)) as folder:
            Path(folder, "y").touch()
        assert os.listdir(tmp_path) == [name]
        os.remove(tmp_path / name)


def test_of_a_killed_program_the_next_one_leaves_nothing(tmp_path):
    code = ("import contextlib\nfile = open_aside(sys.argv[1]); file.write(b'half'); file.flush()\n"
            "with folder_aside(sys.argv[2]) as folder:\n"
            "    open(os.path.join(folder, 'half'), 'w').close(); print('ready', flush=True); time.sleep(60)")
    for _ in range(3):
        process = in_process(code, tmp_path / "a.json", tmp_path / "b.ckpt")
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert sorted(os.listdir(tmp_path)) == [".writing.a.json~", ".writing.b.ckpt~", ".writing.b.ckpt~.d"]
    write_atomic(str(tmp_path / "a.json"), b"whole")
    with folder_aside(str(tmp_path / "b.ckpt")) as folder:
        assert os.listdir(folder) == []
    assert os.listdir(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_bytes() == b"whole"


def test_two_that_write_one_file_do_not_meet(tmp_path):
    path = str(tmp_path / "a.json")
    first, second = open_aside(path), open_aside(path)
    assert first.name != second.name
    second.write(b"second")
    finish(second, path)
    finish(first, path, b"first")
    assert os.listdir(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_bytes() == b"first"
    with folder_aside(path) as one, folder_aside(path) as other:
        assert one != other and os.path.isdir(one) and os.path.isdir(other)
    assert os.listdir(tmp_path) == ["a.json"]


def test_where_nothing_can_be_locked_names_differ(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")
    monkeypatch.setattr(files.fcntl, "flock", refuse)
    first, second = (open_aside(str(tmp_path / "a.json")) for _ in range(2))
    assert len(os.listdir(tmp_path)) == 2 and first.name != second.name
    finish(first, str(tmp_path / "a.json"))
    finish(second, str(tmp_path / "a.json"), keep=False)
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_is_not_to_be_kept_goes(tmp_path):
    path = tmp_path / "a.txt"
    file = io.TextIOWrapper(open_aside(str(path)), encoding="utf-8")
    file.write("half")
    finish(file, str(path), "end", keep=False)
    assert os.listdir(tmp_path) == [] and file.closed


# a file may have 1000 bytes, which stands in for the end of a disk
FULL = """
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
print("ready", flush=True)
try:
    {call}
except EnvironmentFault as error:
    print(error)
"""
CALLS = {"write_atomic": "write_atomic(sys.argv[1], bytes(5000))",
         "finish": "file = open_aside(sys.argv[1]); file.write(bytes(900)); finish(file, sys.argv[1], bytes(900))",
         "Appender": "log = Appender(sys.argv[1]); log.write(bytes(900)); log.write(bytes(900))"}


@pytest.mark.parametrize("call", CALLS)
def test_a_full_disk_is_one_error_and_leaves_no_half(tmp_path, call):
    path = tmp_path / "a.json"
    path.write_bytes(b"before")
    with in_process(FULL.format(call=CALLS[call]), path) as process:
        said = process.stdout.read()
    assert said == f"{path} cannot be written: File too large\n" and process.returncode == 0
    assert os.listdir(tmp_path) == ["a.json"]
    if call == "Appender":  # of a log the lines before are kept
        assert path.read_bytes() == b"before" + bytes(994)
    else:
        assert path.read_bytes() == b"before"


def test_a_log_on_a_full_disk_keeps_nothing_back():
    log = Appender("/dev/full")
    with pytest.raises(EnvironmentFault, match="/dev/full cannot be written: No space left on device"):
        log.write(b"a row\n")
    log.close()  # raises nothing: no row waits for it


def test_a_folder_that_can_be_written_stays_as_it_is(tmp_path):
    make_folder(str(tmp_path / "new" / "er"))
    assert os.listdir(tmp_path / "new" / "er") == []
    with pytest.raises(EnvironmentFault, match="folder '/proc/new' cannot be made or written"):
        make_folder("/proc/new")


def test_leftovers_are_files_and_folders(tmp_path):
    (tmp_path / ".writing.a~.d" / "deep").mkdir(parents=True)
    for name in (".writing.a~", ".writing", "a.ckpt"):
        (tmp_path / name).touch()
    remove_leftovers(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [".writing", "a.ckpt"]
    remove_leftovers(str(tmp_path / "none"))


# who needs the time of day: TensorBoard, and the panel that says when a run ends
TIME_OF_DAY = {"src/events.py", "src/training/panel.py"}


def test_what_takes_time_is_measured_by_a_clock_that_is_never_set_back():
    asked = set()
    for path in [*Path(ROOT).glob("*.py"), *Path(ROOT, "src").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "time" and getattr(node.value, "id", "") == "time":
                asked.add(str(path.relative_to(ROOT)))
    assert asked == TIME_OF_DAY
