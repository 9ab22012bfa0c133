"""Pickles of PyTorch and NumPy tensors -> arrays, without torch and without calling anything that a file names."""
from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from src.errors import DataError
from src.weights.formats.raw_numbers import to_numbers

# where training programs keep the state dict; the first that holds tensors wins, else the place with the most tensors
STATE_DICTS = ("state_dict", "model", "model_state_dict", "ema", "network")
# PyTorch's types of storages by the codes of raw_numbers
STORAGES = {"DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bf16",
            "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
            "BoolStorage": "b1", "ComplexFloatStorage": "c8", "ComplexDoubleStorage": "c16"}


class Storage(NamedTuple):
    """The numbers that one or several tensors are views of."""
    key: str    # its name in the file
    code: str   # type of its numbers
    start: int  # where a view into it begins, in elements


class Call:
    """Stands for a global of a pickle: keeps the arguments of its call and its state, and does nothing else."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Array(Call):
    """A numpy array: state is version, shape, dtype, whether in Fortran order, data."""

    def value(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        """The array; it needs no storages. Raises DataError if it holds anything but numbers."""
        _, shape, dtype, fortran, data = self.state
        code, order = dtype.arguments[0], dtype.state[1]
        if not re.fullmatch(r"[biufc]\d+", code) or order not in ("<", ">", "|", "="):
            raise DataError(f"an array in it has the type '{code}'; only numbers are read")
        if isinstance(data, Call):  # _codecs.encode(text, "latin1") or, without any, bytes(): protocol 2
            data = "".join(data.arguments[:1])
        if isinstance(data, str):
            data = data.encode("latin1")
        return to_numbers(data, code, order).reshape(shape, order="F" if fortran else "C")


class Tensor(Call):
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...), all counted in elements."""

    def value(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        """A copy of what the tensor shows of its storage. Raises DataError if it reaches beyond the storage."""
        storage, offset, size, stride = self.arguments[:4]
        flat, offset = storages[storage.key], storage.start + offset
        if len(size) != len(stride) or min((offset, *size, *stride)) < 0:
            raise DataError(f"a tensor in it has the size {size}, the strides {stride} and the offset {offset}")
        if 0 in size:
            return np.empty(size, flat.dtype)
        last = offset + sum((count - 1) * step for count, step in zip(size, stride))
        if last >= len(flat):
            raise DataError(f"a tensor in it ends at {last}, its storage at {len(flat)}; the file is damaged")
        steps = [step * flat.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(flat[offset:], size, steps).copy()


class Parameter(Call):
    """torch._utils._rebuild_parameter(tensor, ...)."""

    def value(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        """The array of its tensor."""
        return self.arguments[0].value(storages)


class Dictionary(dict):
    """A collections.OrderedDict without attributes such as the _metadata of a state dict."""

    def __setstate__(self, state: Any) -> None:
        pass


# Every global a file may name, and what stands for it. All of these have a __setstate__, without which a pickle could
# set attributes of the classes themselves.
GLOBALS = {("collections", "OrderedDict"): Dictionary, ("torch", "Size"): Call, ("torch", "device"): Call,
           ("torch._utils", "_rebuild_tensor_v2"): Tensor, ("torch._utils", "_rebuild_parameter"): Parameter,
           ("numpy", "dtype"): Call, ("numpy", "ndarray"): Call, ("_codecs", "encode"): Call,
           ("__builtin__", "bytes"): Call,
           ("numpy.core.multiarray", "_reconstruct"): Array, ("numpy._core.multiarray", "_reconstruct"): Array,
           ("numpy.core.multiarray", "scalar"): Call, ("numpy._core.multiarray", "scalar"): Call}


class TensorUnpickler(pickle.Unpickler):
    """Unpickler that knows the GLOBALS above and no others. `storages` collects the storages of tensors by key."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")  # of the texts that Python 2 wrote
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> type | str:
        """What stands for a global; for a type of storage its name. Raises DataError for any other global."""
        if module in ("torch", "torch.cuda") and name in STORAGES:
            return name
        if (module, name) not in GLOBALS:
            raise DataError(f"the file wants to call {module}.{name}; only tensors are read and nothing is executed, "
                            "save the state dict alone")
        return GLOBALS[module, name]

    def persistent_load(self, pid: tuple) -> Storage:
        """A storage: word, type, key, device, elements and, in older files, a view (key, start, elements) or None."""
        word, kind, key, *_ = pid
        if word != "storage":
            raise DataError(f"the file refers to a '{word}'; only storages of tensors are read")
        view = pid[5] if len(pid) > 5 else None
        self.storages[key] = Storage(key, STORAGES[kind], start=view[1] if view else 0)
        return self.storages[key]


def to_arrays(tree: Any, storages: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of an unpickled object, {name: array}. storages: {key: flat array}."""
    return {name: tensor.value(storages) for name, tensor in find_tensors(tree).items()}


def find_tensors(tree: Any) -> dict[str, Call]:
    """{name: tensor} of a state dict, or of the one inside a checkpoint. Leaves out all that is not a tensor."""
    named = named_tensors(tree, 4) if isinstance(tree, dict) else {}
    return named or max(map(own_tensors, dictionaries(tree)), key=len, default={})


def named_tensors(tree: dict, depth: int) -> dict[str, Call]:
    """{name: tensor} of the first of STATE_DICTS that holds tensors, {} without one. depth: how deep to search."""
    inner = [tree[key] for key in STATE_DICTS if isinstance(tree.get(key), dict)] if depth else []
    found = (named_tensors(state, depth - 1) or own_tensors(state) for state in inner)
    return next(filter(None, found), {})


def own_tensors(tree: dict) -> dict[str, Call]:
    """{name: tensor} of a dict, without those inside its values."""
    return {str(name): value for name, value in tree.items() if isinstance(value, (Array, Tensor, Parameter))}


def dictionaries(tree: Any) -> Iterator[dict]:
    """All dicts in dicts, lists and tuples, each once, the outer first; not those of an optimiser."""
    waiting, known = [tree], set()
    for node in waiting:
        if id(node) in known:
            continue
        known.add(id(node))
        if isinstance(node, dict):
            yield node
            waiting += [value for key, value in node.items() if "optim" not in str(key).lower()]
        elif isinstance(node, (list, tuple)):
            waiting += node
