"""Puts many damaged inputs through a door of the program, and counts what became of them.

An input passes if it is read, or refused by an error of the repository in one line. Any other exception, more seconds
or more memory than allowed fail; a crash ends pytest, whose faulthandler says where.
"""
import contextlib
import datetime
import json
import os
import platform
import resource
import signal
import subprocess
import time
import zlib
from dataclasses import asdict, dataclass, field

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from src.errors import SSDError

MAX_SECONDS = 10  # of CPU time for one input
MAX_WAIT = 300  # seconds on the clock, in which a busy machine may pause
MAX_GROWTH = 2 << 30  # bytes of memory that one door may add to the peak of its process
NET = 8 << 30          # bytes that a process may ask for, so that a fault does not take the machine with it
MAX_MESSAGE = 4100  # letters of an error


class Hang(BaseException):
    """An input took too long; no reader catches a BaseException."""


@dataclass
class Tally:
    """What became of the inputs of one door."""

    door: str
    start: int = 0  # bytes, peak of the process before
    inputs: int = 0
    read: int = 0
    refused: int = 0
    errors: dict = field(default_factory=dict)  # refusals by class
    slowest: float = 0.0  # seconds of CPU of one input
    peak_mib: int = 0  # of the process, when the door was done


TALLIES: list[Tally] = []


def peak_bytes() -> int:
    """The most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@contextlib.contextmanager
def limits():
    """Raises Hang where the body takes too long; fails where it takes too much CPU time."""

    def too_long(*_):
        raise Hang(f"longer than {MAX_WAIT} seconds")

    before, began = signal.signal(signal.SIGALRM, too_long), time.process_time()
    signal.setitimer(signal.ITIMER_REAL, MAX_WAIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    used = time.process_time() - began
    assert used < MAX_SECONDS, f"{used:.1f} seconds of CPU"


def check_message(error: BaseException) -> None:
    """The message of a refusal: one line that can be printed."""
    text = str(error)
    assert text.strip() and len(text) < MAX_MESSAGE and "\n" not in text and "\r" not in text, repr(text[:500])


def attempt(tally: Tally, read, *arguments) -> None:
    """One input. read: the reader, which raises an SSDError to refuse."""
    began, before = time.process_time(), peak_bytes()
    tally.inputs += 1
    try:
        with limits():
            read(*arguments)
        tally.read += 1
    except SSDError as error:
        check_message(error)
        name = type(error).__name__
        tally.refused += 1
        tally.errors[name] = tally.errors.get(name, 0) + 1
    after = peak_bytes()  # a peak rises once: when the same input is tried again it passes, and hypothesis says so
    assert after == before or after < tally.start + MAX_GROWTH, f"{after - before >> 20} MiB of memory"
    tally.slowest = round(max(tally.slowest, time.process_time() - began), 3)


def fuzz(door: str, examples: int, *strategies, read) -> Tally:
    """Puts so many drawn inputs through read(*drawn). The same door draws the same inputs in every run."""
    tally = Tally(door, start=peak_bytes())

    @seed(zlib.crc32(door.encode()))
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(*strategies))
    def run(drawn):
        attempt(tally, read, *drawn)

    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (NET, before[1]))
    try:
        run()
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
    tally.peak_mib = peak_bytes() >> 20
    TALLIES.append(tally)
    return tally


def check_both(tally: Tally) -> None:
    """Of many inputs some must pass and some be refused, or the edits do not reach what they should."""
    assert tally.inputs < 1000 or (tally.read and tally.refused), tally


def machine() -> str:
    """The name of the processor, and how many cores this process may use."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(os.sched_getaffinity(0))} core(s)"


def facts_of_a_run(command: list[str]) -> dict:
    """What is needed to repeat a run with these words behind "python"."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {"command": " ".join(["python", *command]), "machine": machine(), "python": platform.python_version(),
            "date": datetime.date.today().isoformat(), "commit": commit.stdout.strip()}


def write_summary(path: str, session) -> None:
    """What became of all inputs of a session of pytest, with what is needed to repeat it, as JSON."""
    facts = {**facts_of_a_run(["-m", "pytest", *map(str, session.config.invocation_params.args)]),
             "failed_tests": session.testsfailed,
             "cpu_seconds": round(time.process_time()), "peak_mib": peak_bytes() >> 20}
    totals = {name: sum(getattr(tally, name) for tally in TALLIES) for name in ("inputs", "read", "refused")}
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**facts, **totals, "doors": [asdict(tally) for tally in TALLIES]}, file, indent=1)
