"""Device and processes: which device, which rank, and the collective operations the programs need.

rank: number of this process; world: how many there are.
"""
from __future__ import annotations

import atexit
import hashlib
import os
import time

import numpy as np
from mindspore import GRAPH_MODE, Parameter, Tensor, ops, set_context
from mindspore.communication import get_group_size, get_rank, init

from src.errors import EnvironmentFault, OptionError, plain
from src.machine.compat import set_device

MAX_TEXT = 200  # bytes of a value in a message


def start(device_target: str = "CPU", device_id: int = 0, run_distribute: bool = False) -> tuple[int, int]:
    """Chooses the device, joins the other processes and starts the device -> rank, world (0, 1 when alone).

    Raises EnvironmentFault when MindSpore cannot use the device. A first operation finds that out now: otherwise the
    first graph would, after the data was converted.
    """
    set_context(mode=GRAPH_MODE)
    rank, world = 0, 1
    try:
        if run_distribute:
            set_device(device_target)
            init()
            rank, world = get_rank(), get_group_size()
        else:
            set_device(device_target, device_id)
        if device_target != "CPU":
            (Tensor(np.ones(1, np.float32)) + 1).asnumpy()
    except (RuntimeError, ValueError) as error:
        atexit.register(close_stderr)
        hint = "; 'python scripts/doctor.py' looks at the driver and CUDA" if device_target == "GPU" else ""
        raise EnvironmentFault(f"--device_target={device_target} cannot be used: {plain(error)}{hint}") from error
    return rank, world


def close_stderr() -> None:
    """Closes stderr at the end of the program, where MindSpore complains at length that the device did not start."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def gather_rows(rows: np.ndarray, rank: int, world: int) -> np.ndarray:
    """Rows [n, k] float32 of every process, each with its own n -> all rows [sum of n, k], in order of rank.

    Built from AllReduce alone, which every back end has: each process fills its slice of a zero table.
    """
    if world == 1:
        return rows
    counts = np.zeros(world, np.float32)
    counts[rank] = len(rows)
    counts = all_reduce(counts).astype(int)
    table = np.zeros((int(counts.sum()), rows.shape[1]), np.float32)
    start_row = int(counts[:rank].sum())
    table[start_row:start_row + len(rows)] = rows
    return all_reduce(table) if len(table) else table


def average_parameters(parameters: list[Parameter], rank: int, world: int) -> None:
    """Gives each parameter the mean of its values over the processes; equal ones do not change in any bit."""
    if world == 1 or not parameters:
        return
    own = np.concatenate([parameter.asnumpy().ravel() for parameter in parameters])
    first = all_reduce(own if rank == 0 else np.zeros_like(own))
    with np.errstate(invalid="ignore"):  # what is not finite stays so
        mean = first + all_reduce(own - first) / world
    ends = np.cumsum([parameter.size for parameter in parameters])[:-1]
    for parameter, values in zip(parameters, np.split(mean, ends)):
        ops.assign(parameter, Tensor(values.reshape(parameter.shape), parameter.dtype))


def digest_of(parameters: list[Parameter]) -> str:
    """A digest of the names and values of parameters."""
    sha = hashlib.sha256()
    for parameter in parameters:
        sha.update(parameter.name.encode())
        sha.update(np.ascontiguousarray(parameter.asnumpy()))
    return sha.hexdigest()[:12]


def check_equal(facts: dict[str, object], rank: int, world: int, *, advice: str = "start all processes alike") -> None:
    """Raises OptionError on all processes unless each has the same facts.

    The message names the first fact, in order of names, that differs on some process, both values, and the advice.
    """
    if world == 1:
        return
    names = sorted(facts)
    versions = gather_rows(np.float32([[digest(names)]]), rank, world)  # first: the number of names may differ
    if (versions != versions[0]).any():
        raise OptionError(f"rank {(versions != versions[0]).argmax()} runs another version of this program than rank "
                          "0; update it on all hosts")
    digests = gather_rows(np.float32([[digest(facts[name]) for name in names]]), rank, world)  # [world, names]
    different = np.argwhere((digests != digests[0]).T)  # [n, 2]: number of the name, rank
    if not len(different):
        return
    number, other = different[0]
    texts = gather_rows(encode_text(str(facts[names[number]]))[None], rank, world).astype(np.uint8)
    first, second = (bytes(texts[speaker]).rstrip(b"\0").decode(errors="replace") for speaker in (0, other))
    raise OptionError(f"{names[number]} is {second} on rank {other}, but {first} on rank 0; {advice}")


def digest(value: object) -> int:
    """24 bits of a hash of the text of a value, which a float32 can hold."""
    return int(hashlib.sha256(str(value).encode(errors="backslashreplace")).hexdigest()[:6], 16)


def encode_text(text: str) -> np.ndarray:
    """The first MAX_TEXT bytes of a text as float32, filled up with zeros."""
    data = text.encode(errors="backslashreplace")[:MAX_TEXT]
    return np.frombuffer(data.ljust(MAX_TEXT, b"\0"), np.uint8).astype(np.float32)


def wait_for_all(world: int) -> None:
    """Returns when all processes are here and had time to learn it: the launcher ends all of them at the first exit
    code other than 0."""
    if world > 1:
        all_reduce(np.zeros(1, np.float32))
        time.sleep(0.5)


def all_reduce(values: np.ndarray) -> np.ndarray:
    """Sum of a float32 array over all processes; also a barrier."""
    return ops.AllReduce()(Tensor(values)).asnumpy()
