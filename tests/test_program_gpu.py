"""--device_target=GPU with the packages of requirements-gpu.txt, as far as a machine without a card goes.

A driver that claims a card and can do nothing is compiled here: MindSpore's plugin then loads with all its libraries
and fails at its first call, which is what the programs must say.
"""
import os
import re
import shutil
import subprocess
import sys

import pytest
from programs import MPIRUN, ROOT, environment, run, succeed

from src.machine import cuda

has_packages = not cuda.package_libraries()[1]
compiler = shutil.which("cc") or shutil.which("gcc")
needs_packages = pytest.mark.skipif(not has_packages, reason="needs requirements-gpu.txt")
needs_both = pytest.mark.skipif(not (has_packages and compiler), reason="needs requirements-gpu.txt and a C compiler")
# the functions that the plugin links, and those of the check before it
STUB = """
int cuDeviceGetAttribute(void) { return 999; }
int cuGetErrorName(void) { return 999; }
int cuLaunchKernel(void) { return 999; }
int cuModuleGetFunction(void) { return 999; }
int cuModuleLoadDataEx(void) { return 999; }
int cuModuleUnload(void) { return 999; }
int cuStreamSynchronize(void) { return 999; }
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
"""
PLUGIN = """
from src.machine import process
process.prepare("GPU")
import mindspore as ms
ms.set_device("GPU")
try:
    (ms.Tensor([1.0]) + 1).asnumpy()
except RuntimeError as error:
    print("fails:", error)
for line in open("/proc/self/maps"):
    print(line.split()[-1])
"""


def build_driver(folder, init):
    """A folder with a libcuda.so.1 whose cuInit returns init."""
    folder.mkdir()
    (folder / "stub.c").write_text(STUB)
    subprocess.run([compiler, "-shared", "-fPIC", f"-DINIT={init}", "-Wl,-soname,libcuda.so.1", "-o",
                    str(folder / "libcuda.so.1"), str(folder / "stub.c")], check=True)
    return str(folder)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """LD_LIBRARY_PATH for a driver that starts and then can do nothing."""
    return build_driver(tmp_path_factory.mktemp("driver") / "lib", 0)


def one_line(done, words):
    assert done.returncode == 4 and "Traceback" not in done.stderr, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if "error: " in line or "[ERROR]" in line]
    assert len(errors) == 1 and re.match(f"error: --device_target=GPU.*{words}", errors[0]), done.stderr


@needs_packages
@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="this machine has an NVIDIA driver")
@pytest.mark.parametrize("program", ["train.py", "eval.py", "export.py", "predict.py"])
def test_no_driver_is_told_at_once(place, program):
    done = run(place, program, "--device_target=GPU", "--checkpoint_file_path=x.ckpt",
               f"--source={place.coco}")
    one_line(done, "no NVIDIA driver")
    assert done.stderr.count("\n") == 1 and done.stdout == ""


@needs_packages
def test_the_doctor_says_where_each_library_is(place):
    text = succeed(place, "scripts/doctor.py", CUDA_HOME="/nowhere")
    for name, file in cuda.package_libraries()[0].items():
        assert re.search(rf"ok +{re.escape(name)} +{re.escape(file)}\n", text), text
    assert re.search(r"ok +CUDA 11 +of requirements-gpu.txt, because CUDA_HOME=/nowhere has no bin/nvcc", text)
    assert re.search(r"ok +libmindspore_gpu.so.11.6 +finds all its libraries", text)


@needs_both
@pytest.mark.long
def test_the_doctor_tries_a_convolution(place, driver):
    text = succeed(place, "scripts/doctor.py", LD_LIBRARY_PATH=driver, CUDA_HOME="")
    assert re.search(r"ok +NVIDIA driver +for CUDA up to 12.4", text)
    assert re.search(r"ok +libmindspore_gpu.so.11.6 +finds all its libraries\n", text)
    assert re.search(r"-- +convolution on GPU .*installed CUDA driver", text) and "docs/gpu.md" in text


@needs_both
@pytest.mark.long
def test_the_plugin_loads_with_the_packages_alone(driver, tmp_path):
    done = subprocess.run([sys.executable, "-c", PLUGIN], cwd=ROOT, capture_output=True, text=True, timeout=120,
                          env=environment(LD_LIBRARY_PATH=driver, CUDA_HOME=""), check=False)
    assert re.search("fails:.*installed CUDA driver", done.stdout, re.DOTALL), done.stdout + done.stderr
    mapped = set(done.stdout.splitlines())
    assert any(path.endswith("/libmindspore_gpu.so.11.6") for path in mapped)
    # every library of CUDA comes from its package, whatever else this machine has
    assert set(cuda.package_libraries()[0].values()) <= mapped
    names = "lib(cudart|cublas|cudnn|curand|cufft|cusolver|cusparse|nvrtc)[^/]*$"
    assert all("/nvidia/" in path for path in mapped if re.search(names, path)), mapped


@needs_both
@pytest.mark.long
@pytest.mark.parametrize("launcher", ["", "mpirun"])
def test_a_driver_that_fails_later_is_told_in_one_line(place, driver, tmp_path, launcher):
    start = [*MPIRUN, sys.executable] if launcher else [sys.executable]
    done = run(place, *start, os.path.join(ROOT, "train.py"), *place.data, "--device_target=GPU",
               f"--run_distribute={bool(launcher)}", f"--output_path={tmp_path / 'run'}",
               f"--mindrecord_dir={tmp_path}", LD_LIBRARY_PATH=driver, CUDA_HOME="")
    one_line(done, "installed CUDA driver.*scripts/doctor.py")
    assert not (tmp_path / "run").exists() and os.listdir(tmp_path) == []  # nothing slow came first


@needs_both
@pytest.mark.long
def test_a_driver_that_is_too_old(place, tmp_path):
    folder = build_driver(tmp_path / "lib", 35)
    one_line(run(place, "train.py", "--device_target=GPU", LD_LIBRARY_PATH=folder), "the NVIDIA driver .* too old")
