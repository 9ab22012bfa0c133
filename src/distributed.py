"""Device and processes: which device, which rank, and the two collective operations the programs need."""
import atexit
import os

import numpy as np
from mindspore import GRAPH_MODE, Tensor, ops, set_context
from mindspore.communication import get_group_size, get_rank, init

from src.compat import set_device
from src.errors import EnvironmentFault


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


def plain(error):
    """What an error of MindSpore says, as one line: without rules, headings and the stack."""
    lines = str(error).split("- C++ Call Stack")[0].splitlines()
    return " ".join(" ".join(line for line in lines if line.strip("- ") and not line.startswith("- ")).split())[:300]


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


def all_reduce(values):
    """Sum of a float32 array over all processes; also a barrier."""
    return ops.AllReduce()(Tensor(values)).asnumpy()
