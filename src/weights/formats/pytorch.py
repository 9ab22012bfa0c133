"""PyTorch's torch.save, and Paddle's pickles of numpy arrays: read without calling anything that a file names.

Checkpoints of Lightning, mmdetection, ultralytics and other training programs too: objects of their classes become
Bystanders, and a pickled network gives the tensors of its modules.
"""
from __future__ import annotations

import io
import os
import pickle
import re
import reprlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from src.errors import DataError
from src.weights.formats.archive import FREE_BYTES, open_archive
from src.weights.formats.raw_numbers import bytes_each, to_numbers

MAX_PARTS, MAX_DEPTH = 100_000, 100  # of tuples in tuples, of modules in modules; a network has less than ten
MAX_SHOWN = 4  # times that tensors may show what is stored: tied weights and averages share it
MAGIC_NUMBER = 0x1950a86a20f9469cfc6c  # first object of what torch.save wrote before version 1.6
# where training programs keep the state dict, an average of the weights before the weights themselves; the first that
# holds tensors wins, else the place with the most tensors
STATE_DICTS = ("ema", "model_ema", "state_dict_ema", "ema_state_dict", "state_dict", "model", "model_state_dict",
               "network")
# PyTorch's types of storages by the codes of raw_numbers
STORAGES = {"DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bf16",
            "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
            "BoolStorage": "b1", "ComplexFloatStorage": "c8", "ComplexDoubleStorage": "c16"}


def read_archive(file: BinaryIO) -> dict[str, np.ndarray] | None:
    """Since 1.6 a zip file: ROOT/data.pkl describes the tensors, ROOT/data/KEY are storages, ROOT/byteorder theirs."""
    archive = open_archive(file)
    roots = [name[:-len("data.pkl")] for name in archive.namelist() if name.split("/")[-1] == "data.pkl"]
    if not roots:
        return None
    root = roots[0]
    unpickler = TensorUnpickler(io.BytesIO(archive.read(f"{root}data.pkl")))
    tree = unpickler.load()
    big = f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder").strip() == b"big"
    order = ">" if big else "<"
    storages = {key: to_numbers(archive.read(f"{root}data/{key}"), code, order)
                for key, code in unpickler.codes.items()}
    return to_arrays(tree, storages, sum(array.nbytes for array in storages.values()))


def read_pickles(file: BinaryIO) -> dict[str, np.ndarray] | None:
    """Before: five pickles, the fourth is the object; then the storages in little endian, each behind its length."""
    if MAGIC_NUMBER.to_bytes(10, "little") not in file.read(64):
        return None
    file.seek(0)
    for _ in ("magic number", "protocol", "machine"):
        TensorUnpickler(file).load()  # a new one for every pickle: each counts its memo from 0
    unpickler = TensorUnpickler(file)
    tree, storages = unpickler.load(), {}
    for key in TensorUnpickler(file).load():
        if key not in unpickler.codes:
            raise DataError(f"no tensor in it needs the storage {shown(key)}; the file is damaged")
        count, code = int.from_bytes(file.read(8), "little"), unpickler.codes[key]
        storages[key] = to_numbers(file.read(count * bytes_each(code)), code)
    return to_arrays(tree, storages, file.seek(0, os.SEEK_END))


def read_paddle(file: BinaryIO) -> dict[str, np.ndarray]:
    """Paddle's .pdparams: one pickled dict of numpy arrays."""
    return to_arrays(TensorUnpickler(file).load(), {}, file.seek(0, os.SEEK_END))


class Call:
    """Stands for a global of a pickle: keeps the arguments of its call and its state, and does nothing else."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Array(Call):
    """A numpy array: state is version, shape, dtype, whether in Fortran order, data."""

    def value(self, _: dict[str, np.ndarray]) -> np.ndarray:
        """The array. Raises DataError if it holds anything but numbers."""
        _, shape, dtype, fortran, data = self.state
        code, order = dtype.arguments[0], dtype.state[1]
        if not re.fullmatch(r"[biufc]\d+", code) or order not in ("<", ">", "|", "="):
            raise DataError(f"an array in it has the type {shown(code)}; only numbers are read")
        if isinstance(data, Call):  # in protocol 2 _codecs.encode(text, "latin1") or, without any, bytes()
            data = "".join(data.arguments[:1])
        if isinstance(data, str):
            data = data.encode("latin1")
        return to_numbers(data, code, order).reshape(shape, order="F" if fortran else "C")


class Tensor(Call):
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...), counted in elements, or
    _rebuild_parameter(tensor, ...)."""

    def value(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        """What it shows of its storage, not copied. Raises DataError if it reaches beyond the storage."""
        if isinstance(self.arguments[0], Tensor):
            return self.arguments[0].value(storages)
        (key, start), offset, size, stride = self.arguments[:4]
        flat, offset = storages[key], start + offset
        if len(size) != len(stride) or min((offset, *size, *stride)) < 0:
            raise DataError(f"a tensor in it has the size {shown(size)}, the strides {shown(stride)} and the offset "
                            f"{shown(offset)}")
        if 0 in size:
            return np.empty(size, flat.dtype)
        last = offset + sum((count - 1) * step for count, step in zip(size, stride))
        if last >= len(flat):
            raise DataError(f"a tensor in it ends at {last}, its storage at {len(flat)}; the file is damaged")
        steps = [step * flat.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(flat[offset:], size, steps)


class Dictionary(dict):
    """A collections.OrderedDict without attributes such as the _metadata of a state dict."""

    def __setstate__(self, state: Any) -> None:
        pass


class Bystander(dict):
    """Stands for any other class or function: ignores the arguments of its call, keeps a state that is a dict.

    A module of a pickled network then has its `_parameters`, `_buffers` and `_modules`.
    """
    __hash__, __eq__ = object.__hash__, object.__eq__  # it may be a key, as other objects

    def __new__(cls, *arguments: Any, **named: Any) -> Bystander:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)

    def extend(self, items: Any) -> None:
        """What a list of a pickle's own class would take."""

    append = add = extend


# Every global that is read, and what stands for it. All of these, and Bystander, have a __setstate__, without which a
# pickle could set attributes of the classes themselves.
GLOBALS = {("collections", "OrderedDict"): Dictionary, ("torch", "Size"): Call, ("torch", "device"): Call,
           ("torch._utils", "_rebuild_tensor_v2"): Tensor, ("torch._utils", "_rebuild_parameter"): Tensor,
           ("torch._utils", "_rebuild_parameter_with_state"): Tensor,
           ("numpy", "dtype"): Call, ("numpy", "ndarray"): Call, ("_codecs", "encode"): Call,
           ("__builtin__", "bytes"): Call,
           ("numpy.core.multiarray", "_reconstruct"): Array, ("numpy._core.multiarray", "_reconstruct"): Array,
           ("numpy.core.multiarray", "scalar"): Call, ("numpy._core.multiarray", "scalar"): Call}


# Of Python's own library a checkpoint names only these. A Bystander would do no harm in the place of os.system either,
# but who wrote such a file meant harm, and the user should know.
PYTHON = frozenset(getattr(sys, "stdlib_module_names", sys.builtin_module_names)) | {"__builtin__", "os", "subprocess"}
HARMLESS_MODULES = {"argparse", "collections", "copyreg", "copy_reg", "datetime", "enum", "functools", "pathlib",
                    "types", "typing", "uuid"}
HARMLESS_BUILTINS = {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "getattr", "int", "list",
                     "object", "range", "set", "slice", "str", "tuple"}


def weighed(load: Callable) -> Callable:
    """A method of an unpickler that makes a tuple, followed by TensorUnpickler.weigh."""
    def load_weighed(self: TensorUnpickler) -> None:
        load(self)
        self.weigh(self.stack[-1])
    return load_weighed


class TensorUnpickler(pickle._Unpickler):
    """Unpickler that knows the GLOBALS above; others are Bystanders. `codes`: the types of all storages by key.

    It is Python's own in Python. The one in C fills gigabytes for a memo of one large number; and as a key of a dict it
    takes a tuple of tuples so deep that hashing it crashes, or one that holds another twice, which holds .., whose hash
    is never done.
    """
    dispatch = {**pickle._Unpickler.dispatch,
                **{code[0]: weighed(pickle._Unpickler.dispatch[code[0]])
                   for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)}}

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")  # of the texts that Python 2 wrote
        self.codes: dict[str, str] = {}
        self.tuples: dict[int, tuple[int, int, tuple]] = {}  # parts, depth and the tuple itself, by its id

    def weigh(self, made: tuple) -> None:
        """Raises DataError for a tuple that is nested as none of a checkpoint is."""
        inner = [self.tuples[id(part)] for part in made if id(part) in self.tuples]
        parts, depth = len(made) + sum(known[0] for known in inner), 1 + max((known[1] for known in inner), default=0)
        if parts > MAX_PARTS or depth > MAX_DEPTH:
            raise DataError(f"a tuple in it is nested {depth} deep and stands for {parts:,} parts; the file is damaged")
        self.tuples[id(made)] = parts, depth, made

    def load_bytearray8(self) -> None:
        """Python's own would fill as much memory as the file says before it reads."""
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def find_class(self, module: str, name: str) -> type | str:
        """What stands for a global; for a type of storage its name. Raises DataError for what no checkpoint needs."""
        if module in ("torch", "torch.cuda") and name.endswith("Storage"):
            return name
        harmless = name in HARMLESS_BUILTINS if module in ("builtins", "__builtin__") else module in HARMLESS_MODULES
        if module.split(".")[0] in PYTHON and (module, name) not in GLOBALS and not harmless:
            raise DataError(f"the file wants to call {module}.{name}; only tensors are read and nothing is executed, "
                            "save the state dict alone")
        return GLOBALS.get((module, name), Bystander)

    def persistent_load(self, pid: tuple) -> tuple[str, int]:
        """The key of a storage, and the element at which a view into it starts.

        pid: word, type, key, device, elements and, in older files, a view (key, start, elements) or None.
        """
        word, kind, key, *_ = pid
        if word != "storage" or not isinstance(key, (str, int)):
            raise DataError(f"the file refers to a {shown(word)} {shown(key)}; only storages of tensors are read")
        if kind not in STORAGES:
            raise DataError(f"a tensor in it has the type {shown(kind)}; known are {', '.join(STORAGES)}")
        view = pid[5] if len(pid) > 5 else None
        self.codes[key] = STORAGES[kind]
        return key, view[1] if view else 0


def to_arrays(tree: Any, storages: dict[str, np.ndarray], stored: int) -> dict[str, np.ndarray]:
    """The tensors of a state dict, or of the one inside a checkpoint. storages: {key: flat array}; stored: bytes.

    Raises DataError where they are much more than what is stored: a tensor may show one number a billion times.
    """
    found = named_tensors(tree, 4) or max(map(own_tensors, dictionaries(tree)), key=len, default={})
    arrays, left = {}, MAX_SHOWN * stored + FREE_BYTES
    for name, tensor in found.items():
        array = tensor.value(storages)
        left -= array.nbytes
        if left < 0:
            raise DataError(f"its tensors up to '{name}' show what is stored, {stored:,} bytes, again and again; the "
                            "file is damaged")
        arrays[name] = array.copy()
    return arrays


def shown(value: Any) -> str:
    """A value of a pickle for a message: one list may stand in another so often that all of it does not end."""
    return reprlib.repr(value)


def named_tensors(tree: Any, depth: int) -> dict[str, Call]:
    """{name: tensor} of the first of STATE_DICTS that holds tensors, {} without one. depth: how deep to search."""
    if not depth or not isinstance(tree, dict):
        return {}
    inner = (tree[key] for key in STATE_DICTS if isinstance(tree.get(key), dict))
    return next(filter(None, (named_tensors(state, depth - 1) or own_tensors(state) for state in inner)), {})


def own_tensors(tree: dict) -> dict[str, Call]:
    """{name: tensor} of a dict, without those inside its values; of a pickled network those of all its modules."""
    found, waiting, known = {}, [("", tree)], set()
    for prefix, node in waiting:
        if id(node) in known:  # a module may hold itself
            continue
        known.add(id(node))
        is_module = isinstance(node.get("_modules"), dict)
        for part in (node["_parameters"], node["_buffers"]) if is_module else (node,):
            found.update({f"{prefix}{name}": value for name, value in part.items()
                          if isinstance(value, (Array, Tensor)) and isinstance(name, (str, int))})
        if is_module:
            if prefix.count(".") > MAX_DEPTH:
                raise DataError(f"a network in it has modules {MAX_DEPTH} deep; the file is damaged")
            waiting += [(f"{prefix}{name}.", module) for name, module in node["_modules"].items()
                        if module is not None and isinstance(name, (str, int))]
    return found


def dictionaries(tree: Any) -> Iterator[dict]:
    """All dicts in dicts, lists and tuples, each once, the outer first; not those of an optimiser."""
    waiting, known = [tree], set()
    for node in waiting:
        if id(node) not in known:
            known.add(id(node))
            if isinstance(node, dict):
                yield node
                waiting += [value for key, value in node.items()
                            if not (isinstance(key, str) and "optim" in key.lower())]
            elif isinstance(node, (list, tuple)):
                waiting += node
