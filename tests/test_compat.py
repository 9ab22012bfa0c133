"""The stand-ins for MindSpore 1.10 are tested here against 2.10; 1.10 itself is run by scripts/run_matrix.sh."""
import ast
import glob
import os

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops
from programs import ROOT

from src.errors import EnvironmentFault
from src.machine import compat
from src.models import layers

SOURCES = [*glob.glob(os.path.join(ROOT, "*.py")), *glob.glob(os.path.join(ROOT, "src", "**", "*.py"), recursive=True)]


class Call(nn.Cell):
    """A function of an array, compiled."""

    def __init__(self, function, arguments):
        super().__init__()
        self.function, self.arguments = function, arguments

    def construct(self, values):
        return self.function(values, *self.arguments)


@pytest.mark.parametrize("name, arguments", [
    ("clamp", (-0.5, 0.5)), ("topk", (3,)), ("sort", (1, True)), ("sort", (0, False)), ("narrow", (1, 2, 3)),
    ("narrow", (0, 1, 1))])
def test_stand_ins_equal_the_operators(name, arguments, mode):
    values = ms.Tensor(np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32))
    found, expected = (Call(function, arguments)(values) for function in (getattr(compat, f"old_{name}"),
                                                                          getattr(ops, name)))
    pairs = zip(found, expected) if isinstance(expected, tuple) else [(found, expected)]
    assert all(np.array_equal(one.asnumpy(), other.asnumpy()) for one, other in pairs)


def plus_old_full(values, number):
    return values + compat.old_full((2, 3), number, dtype=ms.float32)


def test_full_makes_an_array_of_one_value(mode):
    ones = ms.Tensor(np.ones((2, 3), np.float32))
    assert np.array_equal(Call(plus_old_full, (0.25,))(ones).asnumpy(), np.full((2, 3), 1.25, np.float32))
    assert np.array_equal(ops.full((2, 3), 0.25, dtype=ms.float32).asnumpy(), np.full((2, 3), 0.25, np.float32))


def test_a_checkpoint_of_2_10_is_read_without_its_checksum_which_is_checked(tmp_path):
    path, values = str(tmp_path / "a.ckpt"), np.arange(6, dtype=np.float32)
    for checksum in ({}, compat.CHECKSUM):
        ms.save_checkpoint([{"name": "a", "data": ms.Tensor(values)}], path, append_dict={"b": "text"}, **checksum)
        found = compat.old_load_checkpoint(path)
        assert np.array_equal(found["a"].asnumpy(), values) and str(found["b"]) == "text"
    data = (tmp_path / "a.ckpt").read_bytes()
    os.chmod(path, 0o600)
    (tmp_path / "a.ckpt").write_bytes(data.replace(values.tobytes(), values[::-1].tobytes()))
    with pytest.raises(ValueError, match="checksum"):
        compat.old_load_checkpoint(path)
    (tmp_path / "a.ckpt").write_bytes(b"")
    with pytest.raises(ValueError):
        compat.old_load_checkpoint(path)


def test_what_1_10_cannot_do_is_one_line(monkeypatch):
    compat.refuse_old("x=1")  # 2.10 can
    monkeypatch.setattr(compat, "OLD", True)
    with pytest.raises(EnvironmentFault, match="^x=1 needs MindSpore 2.10, .*docs/legacy.md"):
        compat.refuse_old("x=1")
    with pytest.raises(EnvironmentFault, match="bfloat16"):
        compat.auto_mixed_precision(nn.ReLU(), "O2", "bfloat16")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: os.path.relpath(path, ROOT))
def test_the_source_is_python_3_9_and_takes_missing_operators_from_compat(path):
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read(), feature_version=(3, 9))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name) and node.value.id == "ops"}
    words = {word.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for word in node.keywords}
    if not path.endswith("compat.py"):
        assert not used & {"clamp", "topk", "full", "sort", "narrow"}
    assert not words & {"root_dir"}  # of glob, from Python 3.10 on


def test_a_norm_reads_no_parameter_in_construct():
    """Else MindSpore 1.10 takes the running statistics of the first norm of a size for all."""
    with open(layers.__file__, encoding="utf-8") as file:
        norm = next(node for node in ast.parse(file.read()).body if getattr(node, "name", "") == "BatchNorm")
    construct = next(node for node in norm.body if getattr(node, "name", "") == "construct")
    assert not {node.attr for node in ast.walk(construct) if isinstance(node, ast.Attribute)} & {
        "gamma", "beta", "moving_mean", "moving_variance"}


def test_without_initial_weights_networks_have_their_shapes_and_later_ones_their_values():
    with compat.without_initial_weights():
        empty = nn.Conv2d(3, 4, 3)
    full = nn.Conv2d(3, 4, 3)
    assert empty.weight.shape == full.weight.shape == (4, 3, 3, 3)
    assert np.abs(full.weight.asnumpy()).sum() > 0
