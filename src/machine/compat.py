"""What of MindSpore 2.10 is missing in 1.10 (the package mindspore-gpu), by the names of 2.10. See docs/legacy.md."""
import os
import tempfile
import zlib
from functools import partial

import mindspore as ms
from mindspore import amp, ops
from mindspore import dtype as mstype

from src.errors import EnvironmentFault

OLD = ms.__version__.startswith("1.")
CHECKSUM = {} if OLD else {"crc_check": True}  # of save_checkpoint
MARK, DIGITS = b"crc_num", 10  # what 2.10 puts behind a checkpoint: this, and the CRC-32 of the rest in so many bytes


def refuse_old(what):
    """Raises EnvironmentFault where this is MindSpore 1.10; what: a thing it cannot do, as the beginning of a line."""
    if OLD:
        raise EnvironmentFault(f"{what} needs MindSpore 2.10, this is {ms.__version__}; docs/legacy.md lists what "
                               "runs on it")


def old_clamp(values, low, high):
    """Each number within low .. high."""
    return ops.maximum(ops.minimum(values, high), low)


def old_topk(values, count):
    """The largest numbers of the last axis, in falling order, and their places."""
    return ops.TopK(sorted=True)(values, count)


def old_full(shape, value, dtype):
    """An array of one value."""
    return ops.fill(dtype, shape, value)


def old_sort(values, axis, descending):
    """Values in order along an axis, and their places."""
    return ops.Sort(axis, descending)(values)


def old_narrow(values, axis, start, length):
    """`length` places of an axis, from start on."""
    begin = tuple([start if one == axis else 0 for one in range(values.ndim)])
    size = tuple([length if one == axis else values.shape[one] for one in range(values.ndim)])
    return ops.slice(values, begin, size)


def old_load_checkpoint(path):
    """A checkpoint of 1.10 or 2.10: 1.10 stumbles over the checksum behind it, so it reads a copy without.

    Raises ValueError where the checksum is wrong, and what load_checkpoint raises.
    """
    with open(path, "rb") as file:
        data = file.read()
    end = len(data) - len(MARK) - DIGITS
    if data[end:-DIGITS] != MARK:
        return ms.load_checkpoint(path)
    if zlib.crc32(data[:end]) != int.from_bytes(data[-DIGITS:], "big"):
        raise ValueError("the checksum is wrong")
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "copy.ckpt")
        with open(copy, "wb") as file:
            file.write(memoryview(data)[:end])
        return ms.load_checkpoint(copy)


load_checkpoint = old_load_checkpoint if OLD else partial(ms.load_checkpoint, crc_check=True)
clamp, topk, full, sort, narrow = (old_clamp, old_topk, old_full, old_sort, old_narrow) if OLD else \
    (ops.clamp, ops.topk, ops.full, ops.sort, ops.narrow)


def set_device(target, number=None):
    """Chooses the device. number: which one, None as the launcher has it."""
    if OLD:
        ms.set_context(device_target=target, **({} if number is None else {"device_id": number}))
    else:
        ms.set_device(target, number)


def set_deterministic():
    """Lets a run be repeated to the last bit. Raises EnvironmentFault."""
    refuse_old("deterministic=True")
    ms.set_deterministic(True)


def auto_mixed_precision(network, level, kind):
    """The network cast as amp_level says; kind: the short type, float16 or bfloat16. Raises EnvironmentFault."""
    if level == "auto" or kind != "float16":
        refuse_old(f"amp_level={level} with amp_type={kind}")
    return amp.auto_mixed_precision(network, level, *(() if OLD else (getattr(mstype, kind),)))
