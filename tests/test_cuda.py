"""CUDA 11 for MindSpore: which one is taken, what is prepared, what is said where something is missing (fakes)."""
import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from programs import ROOT

from src.errors import EnvironmentFault
from src.machine import cuda

NAMES = [name for _, name in cuda.LIBRARIES]
MAKE = "import sys; from src.machine import cuda; sys.prefix, runtime = sys.argv[1:3]; print(cuda.make_home(runtime))"


def write_files(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("")


def write_packages(site):
    for package, name in cuda.LIBRARIES:
        write_files(site / "nvidia" / package.replace("-", "_") / "lib", [name])


def write_toolkit(home, release, names):
    """A toolkit as NVIDIA installs it."""
    write_files(home / "lib64", names)
    (home / "bin").mkdir()
    (home / "bin" / "nvcc").write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.89'\n")
    (home / "bin" / "nvcc").chmod(0o755)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with a driver and an empty environment at tmp_path/venv; `loaded` collects what would be loaded."""
    loaded = []
    for name in ("CUDA_HOME", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setattr(cuda, "check_driver", lambda: "12.4")
    monkeypatch.setattr(cuda, "system_libraries", dict)
    monkeypatch.setattr(cuda, "load", loaded.extend)
    return SimpleNamespace(path=tmp_path, site=tmp_path / "site", home=tmp_path / "cuda", loaded=loaded)


def test_the_list_of_packages_brings_every_library():
    with open(os.path.join(ROOT, "requirements-gpu.txt"), encoding="utf-8") as file:
        lines = [line for line in file.read().splitlines() if not line.startswith("#")]
    assert lines[0] == "-r requirements.txt"
    assert {line.split("==")[0] for line in lines[1:]} == {f"nvidia-{package}-cu11" for package, _ in cuda.LIBRARIES}


# --- which CUDA is taken

def test_the_packages_serve(machine, monkeypatch):
    write_packages(machine.site)
    write_files(machine.site / "nvidia/cu13/lib", ["libcurand.so.10"])  # of CUDA 13, the same name
    monkeypatch.setenv("LD_LIBRARY_PATH", "/first:/second")
    cuda.prepare()
    assert [os.path.basename(file) for file in machine.loaded] == NAMES and "cu13" not in str(machine.loaded)
    home = os.environ["CUDA_HOME"]
    assert home.startswith(f"{machine.path}/venv/") and cuda.nvcc_release(home) == "11.6"
    folders = os.environ["LD_LIBRARY_PATH"].split(":")
    assert folders[0] == f"{home}/lib64" and folders[-2:] == ["/first", "/second"] and len(folders) == 11
    assert os.path.samefile(f"{home}/lib64/libcudart.so.11.6.55",
                            machine.site / "nvidia/cuda_runtime/lib/libcudart.so.11.0")


def test_the_packages_serve_a_second_process_of_ours(machine):
    write_packages(machine.site)
    cuda.prepare()
    before = dict(os.environ)
    cuda.prepare()
    assert dict(os.environ) == before and len(machine.loaded) == 2 * len(NAMES) - 1


@pytest.mark.parametrize("release, nvrtc", [("11.1", "libnvrtc.so.11.1"), ("11.8", "libnvrtc.so.11.2")])
def test_a_whole_cuda_of_the_user_is_left_alone(machine, monkeypatch, release, nvrtc):
    write_packages(machine.site)
    names = [name for name in NAMES if "nvrtc" not in name and "cudnn" not in name]
    write_toolkit(machine.home, release, [*names, nvrtc])
    write_files(machine.path / "cudnn", [name for name in NAMES if "cudnn" in name])
    monkeypatch.setenv("CUDA_HOME", str(machine.home))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(machine.path / "cudnn"))
    before = dict(os.environ)
    cuda.prepare()
    assert dict(os.environ) == before and not (machine.path / "venv").exists()
    assert str(machine.home / "lib64" / nvrtc) in machine.loaded and not any("site" in file for file in machine.loaded)


@pytest.mark.parametrize("release, lacking", [("12.4", None), ("11.0", None), ("11.8", "libcudnn.so.8"), ("", None)])
def test_the_packages_stand_in_for_a_cuda_that_cannot_serve(machine, monkeypatch, release, lacking):
    write_packages(machine.site)
    write_toolkit(machine.home, release, [name for name in NAMES if name != lacking])
    monkeypatch.setenv("CUDA_HOME", str(machine.home))
    cuda.prepare()
    assert os.environ["CUDA_HOME"].startswith(str(machine.path / "venv"))
    assert all(file.startswith(str(machine.site)) for file in machine.loaded)


def test_the_runtime_alone_for_mindspore_1_10(machine, monkeypatch):
    cuda.preload_runtime()  # without packages nothing to load
    assert machine.loaded == [] and "LD_LIBRARY_PATH" not in os.environ
    write_packages(machine.site)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/first")
    cuda.preload_runtime()
    folder = str(machine.site / "nvidia" / "cuda_runtime" / "lib")
    assert machine.loaded == [os.path.join(folder, "libcudart.so.11.0")]
    assert os.environ["LD_LIBRARY_PATH"] == f"{folder}:/first" and "CUDA_HOME" not in os.environ


# --- what is missing

@pytest.mark.parametrize("release, lacking, words", [
    (None, None, "CUDA 11 is not installed; pip install -r requirements-gpu.txt"),
    ("12.4", None, "not installed (CUDA_HOME={home} has nvcc of release 12.4, not 11.x)"),
    ("", None, "(CUDA_HOME={home} has no bin/nvcc that names one)"),
    ("11.6", "libcublas.so.11", "(CUDA_HOME={home} has no libcublas.so.11)")])
def test_without_packages_the_message_names_what_is_missing(machine, monkeypatch, release, lacking, words):
    if release is not None:
        write_toolkit(machine.home, release, [name for name in NAMES if name != lacking])
        monkeypatch.setenv("CUDA_HOME", str(machine.home))
    with pytest.raises(EnvironmentFault) as raised:
        cuda.prepare()
    assert words.format(home=machine.home) in str(raised.value) and "\n" not in str(raised.value)
    assert "pip install -r requirements-gpu.txt" in str(raised.value) and machine.loaded == []


def test_a_package_of_another_release_is_named(machine):
    write_packages(machine.site)
    os.rename(machine.site / "nvidia/cudnn/lib/libcudnn.so.8", machine.site / "nvidia/cudnn/lib/libcudnn.so.9")
    with pytest.raises(EnvironmentFault, match=r"no libcudnn\.so\.8 \(nvidia-cudnn-cu11\);.*requirements-gpu"):
        cuda.prepare()


def test_a_library_that_cannot_be_loaded(tmp_path):
    write_files(tmp_path, ["libcublas.so.11"])
    with pytest.raises(EnvironmentFault, match=r"cannot be loaded: .*libcublas\.so\.11: file too short"):
        cuda.load([str(tmp_path / "libcublas.so.11")])


# --- the driver

class Driver:
    """Answers as libcuda.so.1 does: code of cuInit, release of CUDA, number of cards."""

    def __init__(self, code=0, version=12040, count=1):
        self.code, self.version, self.count = code, version, count

    def cuInit(self, flags):  # noqa: N802
        return self.code

    def cuDriverGetVersion(self, reference):  # noqa: N802
        reference._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, reference):  # noqa: N802
        reference._obj.value = self.count
        return 0


@pytest.mark.parametrize("driver, words", [
    (Driver(100), "sees no card"), (Driver(count=0), "sees no card"), (Driver(35), "too old"), (Driver(804), "804"),
    (Driver(version=10020), "CUDA 10.2 at most"), (object(), "libcuda.so.1 is not a driver")])
def test_a_driver_that_cannot_be_used(monkeypatch, driver, words):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    with pytest.raises(EnvironmentFault, match="device_target=GPU, but the NVIDIA driver cannot be used: .*") as raised:
        cuda.check_driver()
    assert words in str(raised.value) and "--device_target=CPU" in str(raised.value)


def test_a_driver_says_its_release(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(version=11080))
    assert cuda.check_driver() == "11.8"


# --- the folder that serves as CUDA_HOME

def test_processes_make_it_at_the_same_time(tmp_path):
    write_files(tmp_path, ["libcudart.so.11.0"])
    command = [sys.executable, "-c", MAKE, str(tmp_path / "venv"), str(tmp_path / "libcudart.so.11.0")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                cwd=ROOT) for _ in range(8)]
    said = [process.communicate(timeout=60) for process in started]
    assert len(set(said)) == 1 and said[0][1] == "", said
    home = said[0][0].strip()
    assert home.startswith(f"{tmp_path}/venv/share/")
    assert sorted(os.listdir(f"{home}/lib64")) == ["libcudart.so.11.0", "libcudart.so.11.6.55"]
    assert os.listdir(f"{home}/bin") == ["nvcc"]


def test_a_damaged_one_is_mended(machine):
    home = cuda.make_home("runtime")
    with open(f"{home}/bin/nvcc", "w", encoding="utf-8") as file:
        file.write("#!/bin/sh\necho")
    os.remove(f"{home}/lib64/libcudart.so.11.6.55")
    os.symlink("elsewhere", f"{home}/lib64/libcudart.so.11.6.55")
    assert cuda.make_home("runtime") == home and cuda.nvcc_release(home) == "11.6"
    assert os.readlink(f"{home}/lib64/libcudart.so.11.6.55") == "runtime"


def test_each_environment_has_its_own(machine, monkeypatch):
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)  # no virtual environment: the cache of the user
    assert cuda.make_home("one") != cuda.make_home("other")
    assert len(os.listdir(machine.path / "cache")) == 2


@pytest.mark.parametrize("cache", [True, False])
def test_an_environment_that_cannot_be_written(machine, monkeypatch, cache):
    write_files(machine.path, ["venv"])  # a file where a folder should be: no right of root's helps
    if cache:
        assert cuda.make_home("runtime").startswith(str(machine.path / "cache"))
        return
    write_files(machine.path, ["cache"])
    with pytest.raises(EnvironmentFault, match="XDG_CACHE_HOME"):
        cuda.make_home("runtime")
