"""Compiling our own kernels for CPU, and what happens where that cannot be."""
import os
import stat

import pytest
from mindspore import nn

from src.errors import EnvironmentFault
from src.files import private_folders
from src.machine import cpu_library, process
from src.models.cpu_kernels import try_own_kernels
from src.models.layers import batch_norm, conv_norm


@pytest.fixture
def own_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu_library, "private_folders", lambda name: [str(tmp_path / name)])
    return tmp_path / "ssd-cpu-kernels"


def compiler(tmp_path, monkeypatch, body):
    """Makes CXX a shell script."""
    path = tmp_path / "compiler"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(path))


def test_the_library_is_compiled_once(library, own_folder, monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    path = cpu_library.open_kernels(2)
    assert [path] == [str(file) for file in own_folder.iterdir()]  # nothing is left beside it
    monkeypatch.setattr(cpu_library, "compile_to", None)           # which cannot be called
    assert cpu_library.open_kernels(2) == path


@pytest.mark.parametrize("body, message", [
    ("echo 'kernels: out of luck' >&2; exit 1", "kernels: out of luck"),
    ("for path; do case $last in -o) echo no library > $path;; esac; last=$path; done", "")])
def test_a_compiler_that_fails_is_named(own_folder, monkeypatch, tmp_path, body, message):
    compiler(tmp_path, monkeypatch, body)
    with pytest.raises(EnvironmentFault, match=f"compiler did not compile our kernels: .*{message}"):
        cpu_library.open_kernels(1)


def test_without_a_compiler_training_goes_on_and_says_so(own_folder, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(own_folder))
    said, network = [], conv_norm(4, 4, batch_norm(), groups=4)
    assert try_own_kernels(network, said.append) == ""
    assert said == ["note: no C++ compiler is installed (looked for g++ and c++); training goes on with MindSpore's "
                    "own kernels, which are slower"]
    assert isinstance(network[2], nn.ReLU6)


def test_another_source_compiler_or_processor_is_another_library(monkeypatch, tmp_path):
    before = cpu_library.digest(["g++"])
    assert before == cpu_library.digest(["g++"]) != cpu_library.digest(["g++", "-g"])
    (tmp_path / "norm.cc").write_text("int x;")
    monkeypatch.setattr(cpu_library, "SOURCES", tmp_path)
    assert cpu_library.digest(["g++"]) != before


def test_folders_lie_in_the_environment_and_the_users_cache(monkeypatch):
    monkeypatch.setattr("sys.prefix", "/env")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert private_folders("x") == ["/env/share/x", "/cache/x"]
    monkeypatch.setattr("sys.base_prefix", "/env")
    assert private_folders("x") == ["/cache/x"]


@pytest.mark.parametrize("asked, threads", [("3", 3), ("", None), ("0", None), ("2,1", None)])
def test_threads_are_those_that_were_asked_for(monkeypatch, asked, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.delenv("OMPI_COMM_WORLD_LOCAL_SIZE", raising=False)
    assert process.kernel_threads() == (threads or len(os.sched_getaffinity(0)))
