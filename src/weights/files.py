"""Weight files of other programs -> {name: array} (numpy), told apart by content; nothing a file says is executed."""
import io
import json
import math
import os
import zipfile
from pathlib import Path

import numpy as np

from src.errors import DataError, OptionError
from src.weights.tensor_pickle import TensorUnpickler, decode, to_arrays, width

FORMATS = ("PyTorch .pth, .safetensors, NumPy .npz, Paddle .pdparams, TensorFlow.js model.json (or its folder) and "
           "MindSpore .ckpt")
TORCH_MAGIC = 0x1950a86a20f9469cfc6c  # first object of what torch.save wrote before version 1.6
LARGEST_HEADER = 100_000_000          # bytes of JSON that the safetensors format allows
# the types of each format as src/tensor_pickle.py calls them
SAFETENSORS = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "bf16", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
               "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "b1"}
TFJS = {"float32": "f4", "float16": "f2", "int32": "i4", "uint16": "u2", "uint8": "u1", "bool": "b1", "complex64": "c8"}


def read_weights(path):
    """The tensors of a weight file, or of a folder with a model.json -> {name: array}, kind.

    kind: torch, safetensors, npz, paddle, tfjs or mindspore. Names, axes and types are the file's, but bfloat16 and
    quantized numbers become float32, and a "module." that all names begin with (DataParallel) is dropped. Raises
    OptionError when there is no file, DataError when it is damaged, of another format or asks for more than tensors.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        path = model_json(path)
    container = container_of(path)
    if container == "mindspore":
        from src.weights.checkpoint import load  # the only reader that needs MindSpore
        return load(path)[0], "mindspore"
    try:
        values, kind = READERS[container](path)
    except Exception as error:  # damaged bytes raise whatever they lead to
        reason = str(error) if isinstance(error, DataError) else \
            f"damaged or cut short ({os.path.getsize(path)} bytes; {type(error).__name__}: {error})"
        raise DataError(f"weights '{path}': {' '.join(reason.split())[:300]}") from error
    if not values:
        raise DataError(f"weights '{path}': there are no tensors in it")
    cut = len("module.") if all(name.startswith("module.") for name in values) else 0
    return {name[cut:]: np.asarray(value, value.dtype.newbyteorder("="), "C") for name, value in values.items()}, kind


def model_json(folder):
    """The model.json in a folder. Raises OptionError, naming the checkpoints of a run's folder, where there is none."""
    path = os.path.join(folder, "model.json")
    if os.path.isfile(path):
        return path
    there = sorted(os.path.relpath(one, folder) for below in (folder, os.path.join(folder, "ckpt"))
                   for one in Path(below).glob("*.ckpt"))
    raise OptionError(f"'{path}' is not a file; give " + (
        f"one of the files of the folder '{folder}': {', '.join(there)}" if there else f"a file of {FORMATS}"))


def container_of(path):
    """What the first bytes say a file is; a missing one is left to the reader of checkpoints. Raises DataError."""
    if not os.path.isfile(path):
        return "mindspore"
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as error:
        raise DataError(f"weights '{path}' cannot be read: {error.strerror}") from error
    if head.startswith(b"PK\3\4"):
        return "zip"
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= LARGEST_HEADER:
        return "safetensors"
    if head.startswith((b"\x80", b"{")):
        return "pickle" if head[0] == 0x80 else "json"
    if head.startswith(b"\n") or path.endswith(".ckpt"):  # field 1 of the protobuf message
        return "mindspore"
    raise DataError(f"weights '{path}': unknown format ({os.path.getsize(path)} bytes); known are {FORMATS}")


def read_zip(path):
    """torch.save since version 1.6, or NumPy's savez."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        roots = [name[:-len("data.pkl")] for name in names if name.split("/")[-1] == "data.pkl"]
        if roots:
            return read_torch_zip(archive, roots[0], names), "torch"
    if not any(name.endswith(".npy") for name in names):
        raise DataError(f"a zip file without data.pkl or .npy; known are {FORMATS}")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}, "npz"


def read_torch_zip(archive, root, names):
    """root/data.pkl describes the tensors, root/data/KEY are the storages in the byte order of root/byteorder."""
    unpickler = TensorUnpickler(io.BytesIO(archive.read(f"{root}data.pkl")))
    tree = unpickler.load()
    big = f"{root}byteorder" in names and archive.read(f"{root}byteorder").strip() == b"big"
    return to_arrays(tree, {key: decode(archive.read(f"{root}data/{key}"), one.code, ">" if big else "<")
                            for key, one in unpickler.storages.items()})


def read_pickle(path):
    """torch.save before version 1.6 (five pickles, then the storages in little endian), or Paddle's one pickle."""
    with open(path, "rb") as file:
        first = TensorUnpickler(file).load()  # a new one for every pickle: each counts its memo from 0
        if first != TORCH_MAGIC:
            return to_arrays(first, {}), "paddle"
        for _ in ("protocol", "machine"):
            TensorUnpickler(file).load()
        unpickler = TensorUnpickler(file)
        tree = unpickler.load()
        storages = {}
        for key in TensorUnpickler(file).load():
            count, code = int.from_bytes(file.read(8), "little"), unpickler.storages[key].code
            storages[key] = decode(file.read(count * width(code)), code)
    return to_arrays(tree, storages), "torch"


def read_safetensors(path):
    """Eight bytes of length, so much JSON {name: dtype, shape, data_offsets}, the numbers in little endian."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    header.pop("__metadata__", None)
    values = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        if entry["dtype"] not in SAFETENSORS:
            raise DataError(f"'{name}' has the type {entry['dtype']}; known are {', '.join(SAFETENSORS)}")
        if not 0 <= start <= end <= len(data):
            raise DataError(f"'{name}' lies at {start}..{end} of {len(data)} bytes; the file is damaged or cut short")
        values[name] = shaped(decode(data[start:end], SAFETENSORS[entry["dtype"]]), entry["shape"], name)
    return values, "safetensors"


def shaped(numbers, shape, name):
    """A flat array in the shape that a file gives it. Raises DataError when it has another number of elements."""
    if min(shape, default=0) < 0 or math.prod(shape) != len(numbers):
        raise DataError(f"'{name}' has {len(numbers)} numbers for the shape {shape}; the file is damaged or cut short")
    return numbers.reshape(shape)


def read_tfjs(path):
    """TensorFlow.js: weightsManifest lists groups of weights that lie one after the other in the group's shards."""
    with open(path, encoding="utf-8") as file:
        model = json.load(file)
    if "weightsManifest" not in model:
        raise DataError(f"JSON without weightsManifest; known are {FORMATS}")
    values = {}
    for group in model["weightsManifest"]:
        data, at = b"".join(read_shard(path, name) for name in group["paths"]), 0
        for entry in group["weights"]:
            stored = entry.get("quantization", entry)["dtype"]
            if stored not in TFJS:
                raise DataError(f"'{entry['name']}' has the type {stored}; known are {', '.join(TFJS)}")
            end = at + math.prod(entry["shape"]) * width(TFJS[stored])
            numbers = dequantize(decode(data[at:end], TFJS[stored]), entry)
            values[entry["name"]] = shaped(numbers, entry["shape"], entry["name"])
            at = end
        if at != len(data):
            raise DataError(f"{', '.join(group['paths'])} have {len(data)} bytes, model.json says {at}")
    return values, "tfjs"


def read_shard(path, name):
    """The bytes of a file beside a model.json. Raises DataError when it is missing."""
    shard = os.path.join(os.path.dirname(path), name)
    if not os.path.isfile(shard):
        raise DataError(f"its shard '{shard}' is missing")
    with open(shard, "rb") as file:
        return file.read()


def dequantize(stored, entry):
    """stored * scale + min in the type of the weight, for integers rounded; scale and min may be absent (float16)."""
    if "quantization" not in entry:
        return stored
    numbers = stored * float(entry["quantization"].get("scale", 1)) + float(entry["quantization"].get("min", 0))
    return (np.floor(numbers + 0.5) if entry["dtype"] == "int32" else numbers).astype(TFJS[entry["dtype"]])


READERS = {"zip": read_zip, "pickle": read_pickle, "safetensors": read_safetensors, "json": read_tfjs}
