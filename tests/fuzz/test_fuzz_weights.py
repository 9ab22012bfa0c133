"""Weight files of every format, damaged by bytes, and by structure behind checksums that are right."""
import io
import json
import os
import pickle
import zipfile

import mindspore as ms
import numpy as np
import pytest
import weight_writers as writers
from caffe_files import caffemodel
from harness import check_both, fuzz
from hypothesis import strategies as st
from mutations import EDITS, edit_bytes, edit_tree, to_json

from src.weights import checkpoint
from src.weights.files import open_weights

FLOATS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([7], np.int64)}


def content(path):
    with open(path, "rb") as file:
        return file.read()


def npz(save=np.savez):
    stream = io.BytesIO()
    save(stream, **writers.ARRAYS)
    return stream.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


def paddle():
    """What paddle.save writes: a pickled dict of numpy arrays."""
    return pickle.dumps({"w": FLOATS["a"], "b": FLOATS["b"], "StructuredToParameterName@@": {"w": "linear_0.w_0"}}, 4)


def valid_files(folder):
    """{format: its files}."""
    path = str(folder / "x")
    tensors, storages = writers.two_tensors()
    body = writers.mapping({"state_dict": writers.mapping(tensors), "epoch": writers.plain(3)})
    writers.save_zip(path, body, storages)
    archive = content(path)
    writers.save_legacy(path, body, storages)
    legacy = content(path)
    parameters = [ms.Parameter(ms.Tensor(array), name=name) for name, array in FLOATS.items()]
    checkpoint.save(path, parameters, {"model": "x", "classes": ["a"]})
    ours = content(path)
    graph = (
        writers.constant(b"w", writers.raw_tensor(FLOATS["a"]))
        + writers.constant(b"c", writers.tensor_proto(3, (4,), writers.number_field(7, 3)))
        + writers.field(1, writers.field(1, b"x") + writers.field(2, b"Placeholder"))
    )
    small = {"layer.0": FLOATS["a"], "layer.1": np.float32([1])}
    return {"PyTorch zip": (archive,), "PyTorch pickles": (legacy,), "npz": (npz(), npz(np.savez_compressed)),
            "safetensors": (writers.safetensors(),), "Paddle": (paddle(),), "MindSpore checkpoint": (ours,),
            "Caffe": (caffemodel(small), caffemodel(small, name=""), caffemodel(small, old=True)),
            "frozen graph": (graph,)}


COUNTS = {"PyTorch zip": 3500, "PyTorch pickles": 4500, "npz": 3000, "safetensors": 3500, "Paddle": 4000,
          "MindSpore checkpoint": 2000, "Caffe": 4000, "frozen graph": 4000}


@pytest.mark.parametrize("kind", COUNTS)
def test_files_of_bytes(folder, examples, kind):
    files = valid_files(folder)
    others = tuple(data for group in files.values() for data in group)
    path = str(folder / "weights.bin")

    def read_edited(data, edits):
        writers.write(path, edit_bytes(data, edits, others))
        for name, array in open_weights(path).arrays.items():
            assert isinstance(name, str) and array.nbytes < 1 << 28 and array.flags.writeable

    tally = fuzz(kind, examples(COUNTS[kind]), st.sampled_from(files[kind]), EDITS, read=read_edited)
    check_both(tally)


def test_pickles_in_a_zip(folder, examples):
    """The pickle alone is damaged, behind checksums that are right."""
    path, (tensors, storages) = str(folder / "inner.pth"), writers.two_tensors()
    body = writers.whole(writers.mapping({"state_dict": writers.mapping(tensors)}))

    def read_edited(edits):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", edit_bytes(body, edits))
            for key, data in storages.items():
                archive.writestr(f"x/data/{key}", data)
        open_weights(path)

    fuzz("pickle in a zip", examples(3500), EDITS, read=read_edited)


def test_headers_of_safetensors(folder, examples):
    path, whole = str(folder / "x.safetensors"), writers.safetensors()
    length = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]

    def read_edited(edits):
        text = to_json(edit_tree(header, edits))
        writers.write(path, len(text).to_bytes(8, "little") + text + data)
        open_weights(path)

    fuzz("header of safetensors", examples(2000), EDITS, read=read_edited)


def test_tfjs(folder, examples):
    place = str(folder / "tfjs")
    how = {"dtype": "uint8", "scale": 0.1, "min": -2.0}
    weights = [{"name": "f", "dtype": "float32", "shape": [2, 3]},
               {"name": "q", "dtype": "float32", "shape": [3], "quantization": how}]
    path = writers.save_tfjs(place, [(weights, [bytes(20), bytes(7)])])
    tree = json.loads(content(path))

    def read_edited(edits, more):
        data = to_json(edit_tree(tree, edits))
        writers.write(path, edit_bytes(data, more) if more else data)
        open_weights(place)

    fuzz("TensorFlow.js", examples(3500), EDITS, st.just([]) | EDITS, read=read_edited)


def test_bundles(folder, examples):
    """TensorFlow's index and data: damaged as they are, and with an index whose checksums are right."""
    prefix = writers.save_bundle(str(folder / "tf" / "model.ckpt-1"), FLOATS, names=["a/weights", "b"])
    files = {name: content(f"{prefix}{name}") for name in (".index", ".data-00000-of-00001")}

    def read_edited(name, edits):
        for other, data in files.items():
            writers.write(f"{prefix}{other}", edit_bytes(data, edits) if other == name else data)
        open_weights(prefix)

    fuzz("TensorFlow checkpoint", examples(2500), st.sampled_from(sorted(files)), EDITS, read=read_edited)
    numbers, fields = (st.sampled_from([0, 1, -1, 2, 7, 24, 255, 2**31, 2**40, 2**63 - 1, -(2**63)]),
                       ("dtype", "shard", "offset", "size"))

    def read_rewritten(changes, shape, shards, compression):
        changes = {**changes, **({"shape": shape} if shape else {})}
        writers.save_bundle(prefix, FLOATS, names=["a/weights", "b"], shards=shards, compression=compression, **changes)
        open_weights(prefix)

    fuzz("index of TensorFlow", examples(2000), st.dictionaries(st.sampled_from(fields), numbers, max_size=2),
         st.lists(numbers, max_size=3), st.sampled_from([1, 1, 1, 0, 2, 2**40]), st.sampled_from([0, 0, 1]),
         read=read_rewritten)
    assert os.path.exists(f"{prefix}.index")
