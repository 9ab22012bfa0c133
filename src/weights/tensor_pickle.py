"""Pickles of torch and numpy tensors -> arrays (numpy), without torch and without calling anything a file names."""
import pickle
import re
from collections import namedtuple

import numpy as np

from src.errors import DataError

# where training programs keep the state dict; the first that holds tensors wins, else the place with the most tensors
STATE_DICTS = ("state_dict", "model", "model_state_dict", "ema", "network")
# numpy's type codes and bf16, which numpy lacks: see decode
STORAGES = {"DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bf16",
            "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
            "BoolStorage": "b1", "ComplexFloatStorage": "c8", "ComplexDoubleStorage": "c16"}
Storage = namedtuple("Storage", "key code count start")  # start: where a view into it begins; both in elements


class Call:
    """What a global of a pickle was called with and the state it was given; that it is kept is all that happens."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __setstate__(self, state):
        self.state = state


class Bytes(Call):
    """_codecs.encode(text, "latin1") or, without any, bytes(): how protocol 2 writes them."""


class Array(Call):
    """A numpy array: state is version, shape, dtype, whether in Fortran order, data."""

    def value(self, storages):
        """The array. Raises DataError when it is not one of numbers. storages: not needed."""
        _, shape, dtype, fortran, data = self.state
        code, order = dtype.arguments[0], dtype.state[1]
        if not re.fullmatch(r"[biufc]\d+", code) or order not in ("<", ">", "|", "="):
            raise DataError(f"an array in it has the type '{code}'; only numbers are read")
        text = "".join(data.arguments[:1]) if isinstance(data, Bytes) else data
        data = text.encode("latin1") if isinstance(text, str) else text
        return decode(data, code, order).reshape(shape, order="F" if fortran else "C")


class Tensor(Call):
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...), all counted in elements."""

    def value(self, storages):
        """An array of its own. storages: {key: flat array}. Raises DataError when it reaches out of its storage."""
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

    def value(self, storages):
        """The array of its tensor."""
        return self.arguments[0].value(storages)


class Dictionary(dict):
    """A collections.OrderedDict without attributes such as the _metadata of a state dict."""

    def __setstate__(self, state):
        pass


# Every global a file may name, and what stands for it. All of these have a __setstate__, without which a pickle could
# set attributes of the classes themselves.
GLOBALS = {("collections", "OrderedDict"): Dictionary, ("torch", "Size"): Call, ("torch", "device"): Call,
           ("torch._utils", "_rebuild_tensor_v2"): Tensor, ("torch._utils", "_rebuild_parameter"): Parameter,
           ("numpy", "dtype"): Call, ("numpy", "ndarray"): Call, ("_codecs", "encode"): Bytes,
           ("__builtin__", "bytes"): Bytes,
           ("numpy.core.multiarray", "_reconstruct"): Array, ("numpy._core.multiarray", "_reconstruct"): Array,
           ("numpy.core.multiarray", "scalar"): Call, ("numpy._core.multiarray", "scalar"): Call}


class TensorUnpickler(pickle.Unpickler):
    """Unpickler that knows the GLOBALS above and no others. `storages` gets every storage of tensors by its key."""

    def __init__(self, file):
        super().__init__(file, encoding="latin1")  # of the texts that Python 2 wrote
        self.storages = {}

    def find_class(self, module, name):
        """The stand-in of a global; for a type of storage its name. Raises DataError naming any other."""
        if module in ("torch", "torch.cuda") and name in STORAGES:
            return name
        if (module, name) not in GLOBALS:
            raise DataError(f"the file wants to call {module}.{name}; only tensors are read and nothing is executed, "
                            "save the state dict alone")
        return GLOBALS[module, name]

    def persistent_load(self, pid):
        """A storage: word, type, key, device, elements and, in older files, a view (key, start, elements) or None."""
        word, kind, key, _, count, *view = pid
        if word != "storage":
            raise DataError(f"the file refers to a '{word}'; only storages of tensors are read")
        self.storages[key] = Storage(key, STORAGES[kind], count, view[0][1] if view and view[0] else 0)
        return self.storages[key]


def find_tensors(tree):
    """{name: tensor} of a state dict or of the one inside a checkpoint; what is no tensor is left out."""
    return named_tensors(tree, 4) or max(map(own_tensors, dictionaries(tree)), key=len, default={})


def named_tensors(tree, depth):
    """{name: tensor} of the first of STATE_DICTS that holds some, {} without; depth: how many lie in each other."""
    if not isinstance(tree, dict) or not depth:
        return {}
    held = (tree[key] for key in STATE_DICTS if isinstance(tree.get(key), dict))
    return next(filter(None, (named_tensors(one, depth - 1) or own_tensors(one) for one in held)), {})


def own_tensors(tree):
    """{name: tensor} of a dict without those inside of its values."""
    return {str(name): value for name, value in tree.items() if isinstance(value, (Array, Tensor, Parameter))}


def dictionaries(tree):
    """All dicts in dicts, lists and tuples, each once, the outer first; not those of an optimiser."""
    waiting, seen = [tree], set()
    for one in waiting:
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            yield one
            waiting += [value for key, value in one.items() if "optim" not in str(key).lower()]
        elif isinstance(one, (list, tuple)):
            waiting += one


def to_arrays(tree, storages):
    """The tensors of a loaded pickle as arrays. storages: {key: flat array}."""
    return {name: tensor.value(storages) for name, tensor in find_tensors(tree).items()}


def decode(data, code, order="<"):
    """Raw bytes of one type -> flat array in the byte order of this machine; bfloat16 is the upper half of float32."""
    if code == "bf16":
        return (decode(data, "u2", order).astype(np.uint32) << 16).view(np.float32)
    stored = np.dtype(order + code)
    return np.frombuffer(data, stored).astype(stored.newbyteorder("="))


def width(code):
    """Bytes of one number."""
    return 2 if code == "bf16" else np.dtype(code).itemsize
