"""Which folder holds the graphs of a run: another one as soon as anything differs that a graph is made of."""
import os
from types import SimpleNamespace

import pytest

from src import compile_cache


def parameter(name="w", shape=(3, 3), dtype="Float32", requires_grad=True):
    return SimpleNamespace(name=name, shape=shape, dtype=dtype, requires_grad=requires_grad)


@pytest.fixture
def folder_of(monkeypatch, tmp_path):
    """Calls use_cache and returns the folder that MindSpore is given, None for none."""
    def call(facts=None, parameters=(), root=str(tmp_path)):
        given = {}
        monkeypatch.setattr(compile_cache.ms, "set_context", given.update)
        compile_cache.use_cache(root, facts or {}, parameters)
        assert given.get("enable_compile_cache", False) == ("compile_cache_path" in given)
        return given.get("compile_cache_path")
    return call


def test_equal_runs_share_a_folder_whatever_the_order_of_the_options(folder_of):
    first = folder_of({"lr": 0.1, "gamma": 2.0}, [parameter()])
    assert os.path.isdir(first) and first == folder_of({"gamma": 2.0, "lr": 0.1}, [parameter()])


@pytest.mark.parametrize("facts, parameters", [
    ({"gamma": 1.0}, [parameter()]), ({}, [parameter()]), ({"gamma": 2.0}, [parameter(shape=(3, 4))]),
    ({"gamma": 2.0}, [parameter(requires_grad=False)]), ({"gamma": 2.0}, [parameter(dtype="Float16")]),
    ({"gamma": 2.0}, [parameter("v")]), ({"gamma": 2.0}, [parameter()] * 2), ({"gamma": "2.0"}, [parameter()])])
def test_another_option_or_parameter_means_another_folder(folder_of, facts, parameters):
    assert folder_of(facts, parameters) != folder_of({"gamma": 2.0}, [parameter()])


def test_a_changed_source_file_means_another_folder(folder_of, monkeypatch, tmp_path):
    before = folder_of()
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "compile_cache.py").write_text("x = 1\n")
    monkeypatch.setattr(compile_cache, "__file__", str(copy / "compile_cache.py"))
    other = folder_of()
    (copy / "compile_cache.py").write_text("x = 2\n")
    assert len({before, other, folder_of()}) == 3


def test_no_cache_is_asked_for_or_can_be_written(folder_of, tmp_path):
    (tmp_path / "file").write_text("")
    assert folder_of(root="") is None
    assert folder_of(root=str(tmp_path / "file")) is None


def test_the_oldest_folders_go(folder_of, tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, "KEPT", 2)
    folders = [folder_of({"run": number}) for number in range(3)]
    for age, folder in zip((30, 20, 10), folders[1:]):
        os.utime(folder, (age, age))
    last = folder_of({"run": 9})
    assert sorted(os.listdir(tmp_path)) == sorted(map(os.path.basename, (folders[1], last)))
