"""Writes small weight files of other programs, and damages them. PyTorch's are written opcode by opcode, because torch
is not among the packages of this repository."""
import json
import os
import pickle
import struct
import zipfile

import numpy as np

from src.errors import DataError
from src.weights.files import open_weights
from src.weights.formats.crc32c import masked_crc32c
from src.weights.formats.pytorch import MAGIC_NUMBER

STORAGE = {"f8": "Double", "f4": "Float", "f2": "Half", "i8": "Long", "i4": "Int", "i2": "Short", "i1": "Char",
           "u1": "Byte", "b1": "Bool", "c8": "ComplexFloat"}


def plain(value):
    """Opcodes that push a number, a text, None or a tuple of them."""
    return pickle.dumps(value, 2)[2:-1]


def pushed(name):
    """The opcode that pushes a global: "module.name"."""
    return b"c" + "\n".join(name.rsplit(".", 1)).encode() + b"\n"


def packed(*parts):
    """A tuple of pushed values."""
    return b"(" + b"".join(parts) + b"t"


def called(name, *arguments):
    """A global called with pushed values."""
    return pushed(name) + packed(*arguments) + b"R"


def mapping(values):
    """A dict {text: pushed value}."""
    return b"}(" + b"".join(plain(key) + value for key, value in values.items()) + b"u"


def whole(body):
    """One pickle of what `body` pushes."""
    return b"\x80\x02" + body + b"."


def storage(key, kind, count, *view):
    """A storage as torch.save refers to it."""
    words = plain("storage"), pushed(f"torch.{kind}Storage"), plain(key), plain("cpu"), plain(count)
    return packed(*words, *view) + b"Q"


def tensor(key, kind, count, offset, size, stride, *view):
    """torch._utils._rebuild_tensor_v2 as torch.save writes it."""
    return called("torch._utils._rebuild_tensor_v2", storage(key, kind, count, *view), plain(offset), plain(size),
                  plain(stride), plain(False), called("collections.OrderedDict"))


def whole_tensor(key, array):
    """A contiguous tensor that is all of its storage."""
    strides = tuple(step // array.itemsize for step in array.strides)
    return tensor(key, STORAGE[array.dtype.str[1:]], array.size, 0, array.shape, strides)


def save_zip(path, body, storages, order=None):
    """torch.save since 1.6. body: pushes the object. storages: {key: bytes}."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", whole(body))
        archive.writestr("archive/version", "3\n")
        if order:
            archive.writestr("archive/byteorder", order)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)


def save_legacy(path, body, storages, width=4, protocol=2):
    """torch.save before 1.6: magic number, protocol, machine, object, keys, then every storage behind its length."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = [*(pickle.dumps(one, protocol) for one in (MAGIC_NUMBER, 1001, system)), whole(body)]
    with open(path, "wb") as file:
        file.write(b"".join(head) + pickle.dumps(list(storages), protocol))
        for data in storages.values():
            file.write(struct.pack("<q", len(data) // width) + data)


def two_tensors():
    """A body that pushes {"a", "b"} and its storages."""
    first, second = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([5], np.int64)
    tensors = {"a": whole_tensor("0", first), "b": whole_tensor("1", second)}
    return tensors, {"0": first.tobytes(), "1": second.tobytes()}


ARRAYS = {"weight": np.arange(12, dtype=np.float32).reshape(3, 4), "mean": np.array([1.5, -2], np.float64),
          "turned": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)), "count": np.array(7, np.int64),
          "big": np.array([1, 2], ">i4"), "half": np.array([0.5], np.float16), "flag": np.array([True, False]),
          "none": np.zeros((0, 2), np.float32)}


def check_arrays(values, names=ARRAYS):
    """The values are those of ARRAYS, in the byte order of this machine, contiguous and writable."""
    assert set(values) == set(names)
    for name in names:
        assert values[name].dtype == ARRAYS[name].dtype.newbyteorder("=") and values[name].shape == ARRAYS[name].shape
        assert values[name].flags.c_contiguous and values[name].flags.writeable
        np.testing.assert_array_equal(values[name], ARRAYS[name])


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


SAFE = {"F64": "mean", "F32": "weight", "F16": "half", "I64": "count", "BOOL": "flag"}


def safetensors(changes=(), **more):
    """Bytes of a .safetensors file with the arrays of SAFE; changes: entry fields to overwrite in "weight"."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for kind, name in SAFE.items():
        raw = ARRAYS[name].tobytes()
        place = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": kind, "shape": list(ARRAYS[name].shape), "data_offsets": place}
        data += raw
    header["weight"].update(changes)
    text = json.dumps({**header, **more}).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def save_tfjs(folder, groups):
    """groups: [([weight entries], [bytes of each shard])] -> the path of model.json."""
    os.makedirs(folder, exist_ok=True)
    manifest = []
    for number, (weights, shards) in enumerate(groups, 1):
        paths = [f"group{number}-shard{k}of{len(shards)}" for k in range(1, len(shards) + 1)]
        for name, data in zip(paths, shards):
            write(os.path.join(folder, name), data)
        manifest.append({"paths": paths, "weights": weights})
    path = os.path.join(folder, "model.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"modelTopology": {}, "weightsManifest": manifest}, file)
    return path


def check_damage(path, content):
    """A file cut after every third byte, or changed at one of 200, gives DataError or values and no other error."""
    write(path, content)
    right = open_weights(path).arrays
    for length in range(0, len(content), 3):
        write(path, content[:length])
        try:
            values = open_weights(path).arrays
        except DataError as error:
            assert "\n" not in str(error)
        else:  # only padding is missing
            assert all(np.array_equal(values[name], right[name]) for name in right)
    rng = np.random.default_rng(0)
    for place in rng.integers(len(content), size=200):
        # without 'r': the memo index of four bytes behind it may ask for gigabytes, by the design of pickle
        byte = rng.choice([value for value in range(256) if value != ord("r")])
        write(path, content[:place] + bytes([byte]) + content[place + 1:])
        try:
            open_weights(path)
        except DataError as error:
            assert "\n" not in str(error)


# --- protocol buffers, and checkpoints of TensorFlow

def varint(number):
    """Seven bits a byte, the lowest first; a negative number is 64 bits long."""
    number %= 1 << 64
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes([*data, number])


def field(number, data):
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def number_field(number, value):
    """A field of a number."""
    return varint(number << 3) + varint(value)


def bundle_entry(array, offset, changes):
    """A BundleEntryProto. changes: what to write instead of what is right."""
    facts = {"dtype": {"f4": 1, "i8": 9}[array.dtype.str[1:]], "shape": array.shape, "shard": 0, "offset": offset,
             "size": array.nbytes, **changes}
    shape = b"".join(field(2, number_field(1, size)) for size in facts["shape"])
    return (number_field(1, facts["dtype"]) + field(2, shape) + number_field(3, facts["shard"])
            + number_field(4, facts["offset"]) + number_field(5, facts["size"])
            + b"\x35" + struct.pack("<I", masked_crc32c(array.tobytes())))


def graph_entry(keys, names, offset):
    """The entry of the object graph {key: name of its variable}, and its bytes."""
    nodes = [field(1, field(2, field(1, b"VARIABLE_VALUE") + field(2, name.encode()) + field(3, key.encode())))
             for key, name in zip(keys, names)]
    text = b"".join(nodes)
    length = struct.pack("<I", len(text))
    crc = struct.pack("<I", masked_crc32c(length))
    data = varint(len(text)) + crc + text
    total = struct.pack("<I", masked_crc32c(length, crc, text))
    return number_field(1, 7) + number_field(4, offset) + number_field(5, len(data)) + b"\x35" + total, data


def block(entries, compression=0):
    """A block of a table and what follows it; no key is shortened."""
    body = b"".join(varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in entries)
    body += struct.pack("<2I", 0, 1)
    kind = bytes([compression])
    return body, kind + struct.pack("<I", masked_crc32c(body, kind))


def save_bundle(prefix, arrays, names=(), **changes):
    """PREFIX.index and its data file -> PREFIX. names: of the variables, for an object graph.

    changes: fields of the entry of "b" to overwrite, its key, and compression and shards of the whole.
    """
    os.makedirs(os.path.dirname(prefix), exist_ok=True)
    compression, shards = changes.pop("compression", 0), changes.pop("shards", 1)
    key_of_b, data, entries = changes.pop("key", "b"), b"", []
    for key in sorted(arrays):
        entry = bundle_entry(arrays[key], len(data), changes if key == "b" else {})
        entries.append((key_of_b if key == "b" else key, entry))
        data += arrays[key].tobytes()
    if names:
        entry, text = graph_entry(sorted(arrays), names, len(data))
        entries.insert(0, ("_CHECKPOINTABLE_OBJECT_GRAPH", entry))
        data += text
    header = number_field(1, shards) + field(3, number_field(1, 1))
    body, tail = block([(b"", header), *((key.encode(), entry) for key, entry in entries)], compression)
    meta, meta_tail = block([])
    handles = [varint(len(body) + len(tail)) + varint(len(meta))]
    last, last_tail = block([(b"~", varint(0) + varint(len(body)))])
    handles.append(varint(len(body + tail + meta + meta_tail)) + varint(len(last)))
    footer = b"".join(handles)
    write(f"{prefix}.index", body + tail + meta + meta_tail + last + last_tail + footer.ljust(40, b"\0")
          + bytes.fromhex("57fb808b247547db"))
    write(f"{prefix}.data-00000-of-00001", data)
    return str(prefix)


def constant(name, tensor, kind=b"Const"):
    """A node of a graph whose attribute "value" is a TensorProto."""
    attribute = field(1, b"value") + field(2, field(8, tensor))
    return field(1, field(1, name) + field(2, kind) + field(5, attribute))


def tensor_proto(dtype, shape, values):
    """A TensorProto; values: its other fields."""
    return number_field(1, dtype) + field(2, b"".join(field(2, number_field(1, size)) for size in shape)) + values


def raw_tensor(array):
    """A TensorProto of float32."""
    return tensor_proto(1, array.shape, field(4, array.tobytes()))
