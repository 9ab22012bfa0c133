"""Device and processes: which device, which rank, and the collective operations the programs need."""
import atexit
import hashlib
import os
import time

import numpy as np
from mindspore import GRAPH_MODE, Tensor, ops, set_context
from mindspore.communication import get_group_size, get_rank, init

from src.errors import EnvironmentFault, OptionError, plain
from src.machine.compat import set_device


def start(device_target="CPU", device_id=0, run_distribute=False):
    """Chooses the device, joins the other processes and starts the device. Returns rank, world (0, 1 when alone).

    Raises EnvironmentFault when MindSpore cannot use the device; without a first operation that would come out only
    when the first graph is compiled, after the data was converted.
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
        atexit.register(hush)
        hint = "; 'python scripts/doctor.py' looks at the driver and CUDA" if device_target == "GPU" else ""
        raise EnvironmentFault(f"device_target={device_target} cannot be used: {plain(error)}{hint}") from error
    return rank, world


def hush():
    """Closes stderr at the end: MindSpore waits there for the device that did not start, and complains at length."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def gather_rows(rows, rank, world):
    """Rows [n, k] float32 of every process, each with its own n -> all rows [sum n, k], in order of rank.

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


def average_parameters(parameters, rank, world):
    """Gives each parameter the mean of its values over the processes; equal ones stay what they are to the last bit."""
    if world == 1 or not parameters:
        return
    own = np.concatenate([one.asnumpy().ravel() for one in parameters])
    first = all_reduce(own if rank == 0 else np.zeros_like(own))
    with np.errstate(invalid="ignore"):  # what is not finite shall come out so
        mean = first + all_reduce(own - first) / world
    ends = np.cumsum([one.size for one in parameters])[:-1]
    for one, values in zip(parameters, np.split(mean, ends)):
        ops.assign(one, Tensor(values.reshape(one.shape), one.dtype))


def digest_of(parameters):
    """A digest of the names and values of parameters."""
    text = hashlib.sha256()
    for one in parameters:
        text.update(one.name.encode())
        text.update(np.ascontiguousarray(one.asnumpy()))
    return text.hexdigest()[:12]


def check_equal(facts, rank, world, advice="start all processes alike"):
    """Raises OptionError on all processes unless each has the same facts, a dict of what has a text form.

    The message names the first fact in order of names that differs on some process, both values, and the advice.
    """
    if world == 1:
        return
    names = sorted(facts)
    own = np.array([digest(names), *(digest(facts[name]) for name in names)], np.float32)
    # the length alone may differ where the programs do, and AllReduce wants one shape
    first = all_reduce(own[:1] * (rank == 0))
    strange = np.zeros(world, np.float32)
    strange[rank] = first[0] != own[0]
    strange = all_reduce(strange)
    if strange.any():
        raise OptionError(f"rank {int(strange.argmax())} runs another version of this program than rank 0; "
                          "update it on all hosts")
    different = all_reduce(own * (rank == 0)) != own
    table = np.zeros((world, len(own)), np.float32)
    table[rank] = different
    table = all_reduce(table)
    if not table.any():
        return
    number = int(table.any(0).argmax())
    name, other = names[number - 1], int(table[:, number].argmax())
    ours, theirs = (share_text(str(facts[name]), rank == speaker) for speaker in (0, other))
    raise OptionError(f"{name} is {theirs} on rank {other}, but {ours} on rank 0; {advice}")


def digest(value):
    """24 bits of a hash of the text of a value: what a float32 can hold."""
    return int(hashlib.sha256(str(value).encode(errors="backslashreplace")).hexdigest()[:6], 16)


def share_text(text, speak, most=200):
    """The text of the one process that speaks, on all of them; at most so many bytes."""
    table = np.zeros(most, np.float32)
    if speak:
        raw = np.frombuffer(text.encode(errors="backslashreplace")[:most], np.uint8)
        table[:len(raw)] = raw
    return bytes(all_reduce(table).astype(np.uint8)).rstrip(b"\0").decode(errors="replace")


def wait_for_all(world):
    """Returns when all processes have come here. The launcher ends the others at the first exit that is no 0, and
    a process that leaves shall not take along what the others have yet to receive."""
    if world > 1:
        all_reduce(np.zeros(1, np.float32))
        time.sleep(0.5)


def all_reduce(values):
    """Sum of a float32 array over all processes; also a barrier."""
    return ops.AllReduce()(Tensor(values)).asnumpy()
