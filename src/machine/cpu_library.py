"""Compiles cpu_kernels/ with the compiler of the machine, once for a kind of processor, and opens the library."""
from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from src.errors import EnvironmentFault
from src.files import folder_aside, private_folders

SOURCES = Path(__file__).resolve().parent / "cpu_kernels"
COMPILERS = ("g++", "c++")  # unless CXX names one
# tuned for AMD, g++ 12 takes a product and a sum instead of one instruction for both: a third slower with AVX2
FLAGS = ("-O3", "-march=native", "-mtune=generic", "-fopenmp-simd", "-std=c++17", "-shared", "-fPIC", "-pthread")
PATIENCE = 300  # seconds for the compiler, which takes 5


def open_kernels(threads: int) -> str:
    """The path of the library for ops.Custom, whose kernels will take so many threads. Raises EnvironmentFault."""
    compiler = find_compiler()
    if not compiler:
        raise EnvironmentFault(f"no C++ compiler is installed (looked for {' and '.join(COMPILERS)})")
    problem = ""
    for folder in private_folders("ssd-cpu-kernels"):
        path = os.path.join(folder, f"{digest(compiler)}.so")
        try:
            if not os.path.isfile(path):
                compile_to(path, compiler)
            ctypes.CDLL(path).set_threads(threads)
            return path
        except OSError as error:  # the folder cannot be written, or nothing can be run from it
            problem = str(error)
        except subprocess.SubprocessError as error:
            problem = (getattr(error, "stderr", "") or str(error)).strip().partition("\n")[0]
    raise EnvironmentFault(f"{compiler[0]} did not compile our kernels: {problem}")


def find_compiler() -> list[str]:
    """The words of the command that compiles C++; none without one."""
    return shlex.split(os.environ.get("CXX", "")) or [name for name in COMPILERS if shutil.which(name)][:1]


def digest(compiler: list[str]) -> str:
    """A name for all that the library is made of: the sources, the command, and what the processor can do."""
    parts = [" ".join([*compiler, *FLAGS]).encode(), *(path.read_bytes() for path in sorted(SOURCES.iterdir()))]
    with contextlib.suppress(OSError), open("/proc/cpuinfo", "rb") as file:
        parts += sorted({line for line in file if line.startswith((b"model name", b"flags", b"Features"))})
    return hashlib.sha256(b"\n".join(parts)).hexdigest()[:16]


def compile_to(path: str, compiler: list[str]) -> None:
    """Writes the library; several processes may do so at the same time. Raises OSError and SubprocessError."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with folder_aside(path) as folder:
        aside = os.path.join(folder, "kernels.so")
        subprocess.run([*compiler, *FLAGS, "-o", aside, *map(str, SOURCES.glob("*.cc"))], capture_output=True,
                       text=True, errors="replace", timeout=PATIENCE, check=True)
        os.replace(aside, path)
