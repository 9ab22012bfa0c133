"""Device and processes: which device, which rank, and the two collective operations the programs need."""
import time

import numpy as np
from mindspore import GRAPH_MODE, Tensor, ops, set_context, set_device
from mindspore.communication import get_group_size, get_rank, init

from src.errors import EnvironmentFault


def start(device_target="CPU", device_id=0, run_distribute=False):
    """Chooses the device and joins the other processes. Returns rank, world (0, 1 when alone)."""
    set_context(mode=GRAPH_MODE)
    try:
        if run_distribute:
            set_device(device_target)
            init()
            return get_rank(), get_group_size()
        set_device(device_target, device_id)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        hint = "; MindSpore looks for CUDA 11 below $CUDA_HOME" if device_target == "GPU" else ""
        raise EnvironmentFault(f"device_target={device_target} cannot be used: {reason}{hint}") from error
    return 0, 1


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


def wait_for_all(world):
    """Returns when all processes have come here. The launcher ends the others at the first exit that is no 0, and
    a process that leaves shall not take along what the others have yet to receive."""
    if world > 1:
        all_reduce(np.zeros(1, np.float32))
        time.sleep(0.5)


def all_reduce(values):
    """Sum of a float32 array over all processes; also a barrier."""
    return ops.AllReduce()(Tensor(values)).asnumpy()
