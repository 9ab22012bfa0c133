"""How a program ends: one line and a code, of one process and of several, whatever runs out and whatever is printed."""
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
from programs import ROOT, environment

from src.errors import (
    ALONE,
    ANOTHER,
    DataError,
    EnvironmentFault,
    Interrupted,
    OptionError,
    RankFault,
    memory_fault,
    out_of_memory,
    smaller_batch,
    translate,
)

PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from src import errors
errors.PATIENCE = {{errors.ALL: 1.0, errors.ALONE: 0.0, errors.ANOTHER: 2.0}}
errors.LATER = 0.0

def main():
    import atexit, os
    atexit.register(os.write, 1, b"torn down\\n")
    {body}

errors.run_main(main)
"""


def program(body, **variables):
    """Exit code, standard output, standard error of a program with this line in main()."""
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(root=ROOT, body=body)], check=False, timeout=60,
                          capture_output=True, env=environment(**variables))
    return done.returncode, done.stdout, done.stderr.decode()


def rank(number, world=2):
    return {"OMPI_COMM_WORLD_SIZE": str(world), "OMPI_COMM_WORLD_RANK": str(number), "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}


# --- several processes

@pytest.mark.parametrize("name", ["DataError", "OptionError", "EnvironmentFault", "RankFault", "NotFiniteError"])
@pytest.mark.parametrize("number", [0, 1])
def test_an_error_is_said_by_whoever_meets_it_even_where_no_other_process_does(name, number):
    code, out, errors = program(f"raise errors.{name}('row 3')", **rank(number))
    assert code == getattr(__import__("src.errors").errors, name).exit_code and out == b""
    assert errors == ("rank 1: " if number else "") + "error: row 3\n"


@pytest.mark.parametrize("number, met_by, waits", [(0, "ALL", b""), (1, "ALL", b"1.0\n"), (1, "ALONE", b""),
                                                   (0, "ANOTHER", b"2.0\n"), (1, "ANOTHER", b"2.0\n")])
def test_who_may_hear_of_it_from_another_waits(number, met_by, waits):
    body = f"errors.time.sleep = print; raise errors.DataError('x', errors.{met_by})"
    _, out, errors = program(body, **rank(number))
    assert "error: x" in errors and out == waits


def test_a_process_that_waits_is_silent_when_the_launcher_ends_it():
    body = "errors.time.sleep = lambda seconds: os.kill(os.getpid(), 15); raise errors.DataError('x')"
    code, _, errors = program(body, **rank(1))
    assert (code, errors) == (-15, "")


def test_a_message_that_quotes_a_long_text_keeps_its_beginning_and_its_end():
    text = str(OptionError(f"--tiles={'x' * 100000}: expected 2x2"))
    assert len(text) < 4100 and text.startswith("--tiles=xx") and text.endswith("xx: expected 2x2")
    assert str(OptionError("y" * 4000)) == "y" * 4000


def test_an_interruption_that_a_library_made_an_error_of_is_one():
    """As of MindSpore, whose load_checkpoint catches KeyboardInterrupt."""
    damaged, full = DataError("damaged"), EnvironmentFault("the disk is full")
    damaged.__cause__ = ValueError("cannot be read")
    assert translate(damaged) is damaged
    damaged.__cause__.__cause__ = KeyboardInterrupt()
    assert str(translate(damaged)) == "interrupted before there was anything to save"
    full.__context__ = KeyboardInterrupt()  # met behind it
    assert translate(full) is full
    saved = Interrupted("after step 3")
    saved.__cause__ = KeyboardInterrupt()
    assert translate(saved) is saved


def test_an_error_carries_who_meets_it():
    assert DataError("x").met_by == OptionError("x").met_by == "all" and RankFault("x").met_by == ALONE
    assert DataError("x", ALONE).met_by == ALONE and DataError("x", ANOTHER).met_by == ANOTHER
    assert str(DataError("x", ALONE)) == "x" and DataError.met_by == "all"


@pytest.mark.parametrize("variables, body, code, torn_down", [
    ({}, "raise errors.DataError('x')", 3, True), ({}, "return 7", 7, True), ({}, "return 0", 0, True),
    (rank(0), "raise errors.DataError('x')", 3, False), (rank(1), "return 7", 7, False),
    (rank(1), "1 / 0", 1, False), (rank(0), "raise KeyboardInterrupt", 130, False), (rank(0), "return 0", 0, True),
    (rank(0, 1), "raise errors.DataError('x')", 3, True), ({"MS_ROLE": "MS_WORKER"}, "return 0", 0, False),
    ({"MS_WORKER_NUM": "2", "MS_NODE_ID": "1"}, "raise errors.DataError('x', errors.ALONE)", 3, False)])
def test_one_of_several_processes_fails_without_a_teardown(variables, body, code, torn_down):
    done = program(body, **variables)
    assert done[0] == code and (b"torn down" in done[1]) == torn_down


def test_what_was_printed_is_there_after_an_end_without_a_teardown():
    code, out, errors = program("print('before'); 1 / 0", **rank(1))
    assert (code, out) == (1, b"before\n") and errors.startswith("rank 1:\nTraceback") and "ZeroDivision" in errors


# --- memory

def cv2_error():
    try:
        cv2.resize(np.zeros((1, 1, 3), np.uint8), (2 ** 31 - 1, 2 ** 31 - 1))
    except cv2.error as error:
        return error
    return None


def numpy_error():
    try:
        np.empty((1 << 60,), np.uint8)
    except MemoryError as error:
        return error
    return None


NO_MEMORY = [MemoryError(), numpy_error(), cv2_error(), OSError(12, "Cannot allocate memory"), *map(RuntimeError, (
    "Out of memory", "Allocate memory failed for size: 8", "Memory not enough: alloc size[8]", "std::bad_alloc",
    "#umsg#Memory not enough:#umsg#Device(id:0) memory isn't enough and alloc failed, kernel name: Conv2D, alloc size",
    "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED", "Failed to allocate memory for requested buffer of 8",
    "Allocate continuous memory failed"))]
OTHERS = [RuntimeError("the shape does not fit"), OSError(28, "No space left on device"), ValueError("memory format"),
          DataError("'out of memory.jpg' is missing"), KeyError("allocated")]


@pytest.mark.parametrize("error", NO_MEMORY, ids=repr)
def test_an_error_of_memory_ends_with_4_and_a_batch_to_try(error):
    assert out_of_memory(error)
    assert isinstance(translate(error), EnvironmentFault)
    with pytest.raises(EnvironmentFault, match="^out of memory.*; try --batch_size=8, half of the batch of 16, or"):
        with smaller_batch("batch_size", 16):
            raise error


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_other_errors_stay_what_they_are(error):
    assert not out_of_memory(error)
    with pytest.raises(type(error)) as caught:
        with smaller_batch("batch_size", 16):
            raise error
    assert caught.value is error


def test_a_batch_of_one_is_not_halved():
    assert "image_size" in str(memory_fault(MemoryError(), "batch_size", 1))
    assert "=0" not in str(memory_fault(MemoryError(), "batch_size", 0))
    assert "batch_size=3," in str(memory_fault(MemoryError(), "batch_size", 7))


def test_the_text_of_mindspore_becomes_one_line():
    rule = "-" * 52
    text = (f"\n{rule}\n- Memory not enough:\n{rule}\nDevice(id:0) has none\n\n{rule}\n- C++ Call Stack: (For)\n"
            f"{rule}\na:1")
    fault = str(memory_fault(RuntimeError(text), "batch_size", 2))
    assert "\n" not in fault and "Device(id:0) has none" in fault
    assert "Call Stack" not in fault and "---" not in fault


def test_a_reader_without_memory_is_not_taken_for_damaged_files():
    from src.data.mindrecord import read_error
    assert out_of_memory(read_error(RuntimeError("[Out of memory] row 3"), "x"))
    assert isinstance(read_error(RuntimeError("row 3 is cut short"), "x"), DataError)


def test_memory_in_a_program():
    code, _, errors = program("raise MemoryError")
    assert code == 4 and re.fullmatch("error: out of memory; .*\n", errors)


# --- any name on any terminal

@pytest.mark.parametrize("variables", [
    {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"},
    {"LC_ALL": "C.UTF-8"}])
def test_names_in_any_script_are_printed_and_opened(tmp_path, variables):
    (tmp_path / "\u732b.txt").write_bytes(b"cat")
    body = (f"print(chr(0x732b), chr(0xdcff)); print(open({str(tmp_path)!r} + '/' + chr(0x732b) + '.txt').read()); "
            "raise errors.DataError(chr(0x732b) + chr(0xdcff))")
    code, out, errors = program(body, **variables)
    assert code == 3 and out.splitlines()[1] == b"cat" and errors.startswith("error: ") and errors.count("\n") == 1
    assert out.splitlines()[0] in (b"\\u732b \\udcff", "\u732b \\udcff".encode())


def test_a_program_finds_its_arguments_again_after_it_has_chosen_utf8(tmp_path):
    done = subprocess.run([sys.executable, os.path.join(ROOT, "train.py"), "--config_path=\u732b.yaml"], check=False,
                          env=environment(LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii"), capture_output=True,
                          cwd=tmp_path, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith(b"error: --config_path '\\u732b.yaml' cannot be read")
