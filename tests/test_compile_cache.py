"""Which folder holds the graphs of a run: another one as soon as anything differs that a graph is made of."""
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from programs import ROOT

from src.machine import compile_cache


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


def test_all_sources_count():
    assert Path(compile_cache.__file__).parents[1] == Path(ROOT, "src")


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


def test_the_oldest_runs_go(folder_of, tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, "KEPT", 2)
    runs = [os.path.dirname(folder_of({"run": number})) for number in range(3)]
    for age, folder in zip((30, 20, 10), runs[1:]):
        os.utime(folder, (age, age))
    last = os.path.dirname(folder_of({"run": 9}))
    assert sorted(os.listdir(tmp_path / compile_cache.OWN)) == sorted(map(os.path.basename, (runs[1], last)))


def test_nothing_goes_that_is_not_ours(folder_of, tmp_path, monkeypatch):
    """Folders and files of other programs, as in --compile_cache=/tmp, and whatever lies in our own folder."""
    monkeypatch.setattr(compile_cache, "KEPT", 1)
    elsewhere = tmp_path / "elsewhere"
    own = tmp_path / "cache" / compile_cache.OWN
    mine = [tmp_path / "cache" / name for name in ("photos", "0123456789abcdef", ".hidden")] + [
        own / name for name in ("notes", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0")] + [elsewhere]
    for folder in mine:
        folder.mkdir(parents=True)
        (folder / "kept").touch()
    (own / ("f" * 16)).touch()  # a file
    (own / ("e" * 16)).symlink_to(elsewhere)
    for path in (*mine, own / ("f" * 16)):
        os.utime(path, (1, 1))
    before = set((tmp_path / "cache").rglob("*"))
    runs = [folder_of({"run": number}, root=str(tmp_path / "cache")) for number in range(4)]
    assert before <= set((tmp_path / "cache").rglob("*")) and (elsewhere / "kept").exists()
    assert [os.path.isdir(folder) for folder in runs] == [False, False, False, True]


def test_the_processes_of_a_run_count_as_one(folder_of, tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, "KEPT", 2)
    monkeypatch.setattr(compile_cache.GlobalComm, "INITED", True)
    folders = []
    for number in range(8):
        monkeypatch.setattr(compile_cache, "get_rank", lambda number=number: number)
        folders.append(folder_of({"processes": 8}))
    assert len(set(folders)) == 8 and all(map(os.path.isdir, folders))
    assert len(os.listdir(tmp_path / compile_cache.OWN)) == 1


def test_a_name_that_is_no_text_does_not_stop_it(folder_of):
    assert folder_of({"coco_root": "caf\udce9"}) != folder_of({"coco_root": "caf\udce8"})


def test_a_changed_source_is_noticed_in_a_folder_whose_name_is_a_pattern(folder_of, monkeypatch, tmp_path):
    copy = tmp_path / "copy[1]"
    copy.mkdir()
    monkeypatch.setattr(compile_cache, "__file__", str(copy / "compile_cache.py"))
    (copy / "compile_cache.py").write_text("x = 1\n")
    before = folder_of()
    (copy / "compile_cache.py").write_text("x = 2\n")
    assert folder_of() != before
