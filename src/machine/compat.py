"""What MindSpore 1.10 (the package mindspore-gpu) lacks, by the names of 2.10. See docs/legacy.md."""
from __future__ import annotations

import contextlib
import os
import zlib
from functools import partial

import mindspore as ms
from mindspore import Tensor, amp, nn, ops
from mindspore import dtype as mstype

from src.errors import EnvironmentFault
from src.files import scratch_folder

OLD = ms.__version__.startswith("1.")
CHECKSUM = {} if OLD else {"crc_check": True}  # of save_checkpoint
MARK, DIGITS = b"crc_num", 10  # 2.10 appends to a checkpoint this mark and the CRC-32 of the rest in 10 bytes


def refuse_old(what: str) -> None:
    """Raises EnvironmentFault where this is MindSpore 1.10. what: what it cannot do, the beginning of the message."""
    if OLD:
        raise EnvironmentFault(f"{what} needs MindSpore 2.10, this is {ms.__version__}; docs/legacy.md lists what "
                               "runs on it")


def old_clamp(values: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Each number limited to low .. high."""
    return ops.maximum(ops.minimum(values, high), low)


def old_topk(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest numbers of the last axis in falling order, and their places."""
    return ops.TopK(sorted=True)(values, count)


def old_full(shape: tuple[int, ...], value: float, dtype: mstype.Type) -> Tensor:
    """An array filled with a value."""
    return ops.fill(dtype, shape, value)


def old_sort(values: Tensor, axis: int, descending: bool) -> tuple[Tensor, Tensor]:
    """Values sorted along an axis, and their places."""
    return ops.Sort(axis, descending)(values)


def old_narrow(values: Tensor, axis: int, start: int, length: int) -> Tensor:
    """`length` places of an axis, from start on."""
    begin = tuple([start if other == axis else 0 for other in range(values.ndim)])
    size = tuple([length if other == axis else values.shape[other] for other in range(values.ndim)])
    return ops.slice(values, begin, size)


def old_load_checkpoint(path: str) -> dict[str, ms.Parameter]:
    """A checkpoint of 1.10 or 2.10; 1.10 cannot read the checksum at the end of a file, so it reads a copy without.

    Raises ValueError where the checksum is wrong, and what load_checkpoint raises.
    """
    with open(path, "rb") as file:
        data = file.read()
    end = len(data) - len(MARK) - DIGITS
    if data[end:-DIGITS] != MARK:
        return ms.load_checkpoint(path)
    if zlib.crc32(data[:end]) != int.from_bytes(data[-DIGITS:], "big"):
        raise ValueError("the checksum is wrong")
    with scratch_folder() as folder:
        copy = os.path.join(folder, "copy.ckpt")
        with open(copy, "wb") as file:
            file.write(memoryview(data)[:end])
        return ms.load_checkpoint(copy)


load_checkpoint = old_load_checkpoint if OLD else partial(ms.load_checkpoint, crc_check=True)
if OLD:
    clamp, topk, full, sort, narrow = old_clamp, old_topk, old_full, old_sort, old_narrow
else:
    clamp, topk, full, sort, narrow = ops.clamp, ops.topk, ops.full, ops.sort, ops.narrow


def without_initial_weights() -> contextlib.AbstractContextManager:
    """In it, networks are built whose weights have shapes but no values, which 2.10 does several times as fast."""
    if OLD:
        return contextlib.nullcontext()
    from mindspore.nn.utils import no_init_parameters

    return no_init_parameters()


def set_device(target: str, number: int | None = None) -> None:
    """Chooses the device. number: which one; None for the launcher's choice."""
    if not OLD:
        ms.set_device(target, number)
    else:
        ms.set_context(device_target=target, **({} if number is None else {"device_id": number}))


def is_running(target: str) -> bool:
    """Whether MindSpore has computed on a device: then it is chosen for good."""
    return not OLD and ms.hal.is_initialized(target)


def set_deterministic() -> None:
    """Makes a run repeatable to the last bit. Raises EnvironmentFault."""
    refuse_old("--deterministic=True")
    ms.set_deterministic(True)


def auto_mixed_precision(network: nn.Cell, level: str, kind: str) -> nn.Cell:
    """The network cast as amp_level says. kind: the 16-bit type, float16 or bfloat16. Raises EnvironmentFault."""
    if level == "auto" or kind != "float16":
        refuse_old(f"--amp_level={level} with --amp_type={kind}")
    if OLD:
        return amp.auto_mixed_precision(network, level)
    return amp.auto_mixed_precision(network, level, getattr(mstype, kind))
