"""CUDA 11 for MindSpore's GPU back end, from packages alone: finds it and loads it before MindSpore looks for it.

MindSpore 2.10 tries its GPU plugin only when $CUDA_HOME/bin/nvcc names a release from 11.1 on, and finds libraries as
any program does. The packages of requirements-gpu.txt bring no nvcc, and their folders are on no search path. So a
small folder with a stand-in for nvcc serves as CUDA_HOME, and the libraries are loaded by their full path: the loader
then takes them for every library of that name, before any that lies on the plugin's search path (/usr/local/cuda).
Standard library only.
"""
from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable

from src.errors import EnvironmentFault
from src.files import folder_aside, private_folders

# (package, library) in the order in which they need each other: what the plugin links, and what those open later
LIBRARIES = (
    ("cuda-runtime", "libcudart.so.11.0"), ("cuda-nvrtc", "libnvrtc-builtins.so.11.8"),
    ("cuda-nvrtc", "libnvrtc.so.11.2"), ("cublas", "libcublasLt.so.11"), ("cublas", "libcublas.so.11"),
    ("cusparse", "libcusparse.so.11"), ("cusolver", "libcusolver.so.11"), ("cufft", "libcufft.so.10"),
    ("curand", "libcurand.so.10"), ("cudnn", "libcudnn_ops_infer.so.8"), ("cudnn", "libcudnn_ops_train.so.8"),
    ("cudnn", "libcudnn_cnn_infer.so.8"), ("cudnn", "libcudnn_cnn_train.so.8"), ("cudnn", "libcudnn.so.8"))
RELEASE = "11.6"  # selects MindSpore's plugin for 11.6, as 11.7 and 11.8 would
NVCC = f"""#!/bin/sh
# Written by src/machine/cuda.py. No compiler: it only tells MindSpore which of its CUDA plugins to load.
echo "Cuda compilation tools, release {RELEASE}, V{RELEASE}.55"
"""
RUNTIME_NAMES = ("libcudart.so.11.0", f"libcudart.so.{RELEASE}.55")  # MindSpore reads the version out of a file name
MIN_DRIVER = 11000  # CUDA 11.0: later releases of CUDA 11 run on it too
INIT_ERRORS = {-1: "libcuda.so.1 is not a driver", 34: "libcuda.so.1 is the stub of a CUDA toolkit",
               35: "it is too old",
               100: "it sees no card (in a container: was it started with its GPUs? CUDA_VISIBLE_DEVICES?)",
               803: "its library and its kernel module are of different versions"}
INSTALL = "pip install -r requirements-gpu.txt"


def prepare() -> None:
    """Loads CUDA 11 into this process before MindSpore is imported: the user's if complete, else that of the packages.

    Raises EnvironmentFault (exit 4), which names what is missing.
    """
    check_driver()
    libraries, why_not = user_cuda()
    load((libraries or use_packages(why_not)).values())


def use_packages(why_not: str = "") -> dict[str, str]:
    """Sets CUDA_HOME, and LD_LIBRARY_PATH for the programs MindSpore starts -> {library: file} of the packages.

    why_not: why the user's own CUDA cannot be used, "" without one. Raises EnvironmentFault.
    """
    libraries, missing = package_libraries()
    if missing:
        what = f"not complete: no {', '.join(missing)}" if libraries else "not installed"
        what += f" ({why_not})" if why_not else ""
        raise EnvironmentFault(f"--device_target=GPU, but CUDA 11 is {what}; {INSTALL}, or use --device_target=CPU")
    home = make_home(libraries["libcudart.so.11.0"])
    os.environ["CUDA_HOME"] = home
    extend_library_path([os.path.join(home, "lib64"), *map(os.path.dirname, libraries.values())])
    return libraries


def preload_runtime() -> None:
    """Loads the CUDA runtime of the packages, if installed, for this process and those it starts.

    MindSpore 1.10 (docs/legacy.md) links it even on a machine without a card, and looks only where the loader does.
    """
    path = package_libraries()[0].get(LIBRARIES[0][1])
    if path:
        load([path])
        extend_library_path([os.path.dirname(path)])


def extend_library_path(folders: list[str]) -> None:
    """Puts folders in front of LD_LIBRARY_PATH, for the programs that MindSpore starts."""
    earlier = [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    os.environ["LD_LIBRARY_PATH"] = ":".join(dict.fromkeys([*folders, *earlier]))


def installed(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def open_driver() -> ctypes.CDLL | None:
    """The driver's library, which is not started by that; None on a machine without."""
    with contextlib.suppress(OSError):
        return ctypes.CDLL("libcuda.so.1")
    return None


def find_driver() -> ctypes.CDLL:
    """The driver's library. Raises EnvironmentFault on a machine without."""
    driver = open_driver()
    if driver is None:
        raise EnvironmentFault("--device_target=GPU, but this machine has no NVIDIA driver (libcuda.so.1 not found); "
                               "install one or use --device_target=CPU")
    return driver


def check_driver() -> str:
    """Starts the driver -> the release of CUDA it supports, "12.4". Raises EnvironmentFault."""
    # MindSpore sets this too, but after the driver has read it: kernels compiled for a new card are kept up to 4 GB
    os.environ.setdefault("CUDA_CACHE_MAXSIZE", "4000000000")
    driver = find_driver()
    version, count, code = ctypes.c_int(), ctypes.c_int(), -1
    with contextlib.suppress(AttributeError):  # a library without these functions is not a driver
        code = (driver.cuInit(0) or driver.cuDriverGetVersion(ctypes.byref(version))
                or driver.cuDeviceGetCount(ctypes.byref(count)))
    release = f"{version.value // 1000}.{version.value % 1000 // 10}"
    if code:
        reason = INIT_ERRORS.get(code, f"it answers with error {code}")
    elif version.value < MIN_DRIVER:
        reason = f"it is made for CUDA {release} at most"
    elif not count.value:
        reason = INIT_ERRORS[100]
    else:
        return release
    raise EnvironmentFault(f"--device_target=GPU, but the NVIDIA driver cannot be used: {reason}; CUDA 11 needs a card "
                           "and driver 450.80 or newer ('nvidia-smi' shows both), or use --device_target=CPU")


def user_cuda() -> tuple[dict[str, str] | None, str]:
    """The CUDA 11 that the user's CUDA_HOME names: {library: file} or None, and why not ("" without a CUDA_HOME).

    It needs an nvcc of release 11.1 to 11.8 and every library, there or where the loader finds it.
    """
    home = os.environ.get("CUDA_HOME", "")
    if not home:
        return None, ""
    release = nvcc_release(home)
    if not re.fullmatch(r"11\.[1-8]", release):
        what = f"nvcc of release {release}, not 11.x" if release else "no bin/nvcc that names one"
        return None, f"CUDA_HOME={home} has {what}"
    folders = [os.path.join(home, "lib64"), os.path.join(home, "lib"), "/usr/local/cuda/lib64",
               *os.environ.get("LD_LIBRARY_PATH", "").split(":")]
    known, found = system_libraries(), {}
    for _, name in LIBRARIES:
        if name.startswith("libnvrtc-builtins"):  # named by the release, and found by the library it belongs to
            continue
        if name.startswith("libnvrtc.") and release == "11.1":
            name = "libnvrtc.so.11.1"
        found[name] = first_file(folders, name) or known.get(name)
    missing = [name for name, file in found.items() if not file]
    return (None, f"CUDA_HOME={home} has no {', '.join(missing)}") if missing else (found, "")


def nvcc_release(home: str) -> str:
    """The release that home/bin/nvcc names, as "11.8"; "" when it cannot be run."""
    releases = re.findall(r"release (\d+\.\d+)", output_of(os.path.join(home, "bin", "nvcc"), "--version"))
    return releases[0] if releases else ""


def system_libraries() -> dict[str, str]:
    """{name: path} of the libraries that the loader finds by itself."""
    lines = re.findall(r"^\s*(\S+) \(.*x86-64.*=> (\S+)", output_of("/sbin/ldconfig", "-p"), re.MULTILINE)
    return dict(reversed(lines))  # of two with one name the first counts


def output_of(*command: str) -> str:
    """What a command prints, "" when it cannot be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def package_libraries(path: list[str] | None = None) -> tuple[dict[str, str], list[str]]:
    """{library: file} of requirements-gpu.txt in path (None: sys.path), and the missing ones with their packages."""
    found = {}
    for package, name in LIBRARIES:
        folders = [os.path.join(folder, "nvidia", package.replace("-", "_"), "lib") for folder in path or sys.path]
        found[name] = first_file(folders, name)
    missing = [f"{name} (nvidia-{package}-cu11)" for package, name in LIBRARIES if not found[name]]
    return {name: file for name, file in found.items() if file}, missing


def first_file(folders: list[str], name: str) -> str | None:
    """The first of folders/name that is a file, or None."""
    paths = [os.path.join(folder, name) for folder in folders if folder]
    return next(filter(os.path.isfile, paths), None)


def make_home(runtime: str) -> str:
    """A folder that serves as CUDA_HOME for a CUDA runtime library; processes may make it at the same time.

    It lies in one of private_folders(). Raises EnvironmentFault when none can be written.
    """
    name = f"mindspore-cuda-{hashlib.sha256(runtime.encode()).hexdigest()[:8]}"
    places = private_folders(name)
    for home in places:
        with contextlib.suppress(OSError):
            fill_home(home, runtime)
        if nvcc_release(home) == RELEASE:  # on a disk mounted without exec it cannot be run
            return home
    raise EnvironmentFault("--device_target=GPU needs a folder for a small program, but none can be written and run in "
                           f"{' or '.join(map(os.path.dirname, places))}; set XDG_CACHE_HOME to one where both work")


def fill_home(home: str, runtime: str) -> None:
    """Writes what is missing or damaged in a folder of make_home."""
    def write_nvcc(path: str) -> None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(NVCC)
        os.chmod(path, 0o755)

    for name in RUNTIME_NAMES:
        link = os.path.join(home, "lib64", name)
        if not os.path.islink(link) or os.readlink(link) != runtime:
            put(link, lambda path: os.symlink(runtime, path))
    if nvcc_release(home) != RELEASE:
        put(os.path.join(home, "bin", "nvcc"), write_nvcc)


def put(path: str, write: Callable[[str], None]) -> None:
    """Calls write with a path beside this one, then renames what it wrote."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with folder_aside(path) as folder:
        aside = os.path.join(folder, "aside")
        write(aside)
        os.replace(aside, path)


def load(files: Iterable[str]) -> None:
    """Loads libraries into this process. Raises EnvironmentFault naming the one that cannot be loaded."""
    for file in files:
        try:
            ctypes.CDLL(file)
        except OSError as error:
            raise EnvironmentFault(f"--device_target=GPU, but a library of CUDA 11 cannot be loaded: {error}; do other "
                                   f"nvidia packages stand in its place? In a new environment: {INSTALL}") from error
