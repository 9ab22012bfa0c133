"""Prepares the process before MindSpore is imported: processor kernels, memory, launcher (launcher), CUDA (cuda)."""
from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

from src.machine import cuda, launcher
from src.machine.stop_signals import STOPS, interrupt

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def prepare(device_target: str = "CPU", run_distribute: bool = False, device_num: int = 0) -> None:
    """Sets the environment MindSpore reads at import; must run first. Raises EnvironmentFault (exit 4).

    ONEDNN_MAX_CPU_ISA=AVX2: on processors with AVX-512, MindSpore 2.10 picks oneDNN's reference convolution, several
    times slower than the AVX2 kernel (bench/cpu_kernels.py). A value the user has set is kept.
    """
    if "mindspore" in sys.modules:
        raise RuntimeError("process.prepare() must run before mindspore is imported")
    # MindSpore's data engine answers Ctrl-C by sending SIGTERM to its own process, which would end without a message
    if threading.current_thread() is threading.main_thread():  # another one cannot: a server may load a model there
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and shells start programs in the background
                signal.signal(number, interrupt)
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's threads spin on the loader's cores for 3x3 matrices
    if "GLOG_v" not in os.environ:  # MindSpore's own log: errors only, and of its data engine only fatal ones
        os.environ.update(GLOG_v="3", MS_SUBMODULE_LOG_v="{MD:4}")
    keep_freed_memory()
    if device_target == "GPU":
        cuda.find_driver()
    launcher.check_launch(run_distribute, device_num)
    if run_distribute:
        launcher.join(device_target)  # forks, so before CUDA
    if device_target == "GPU":
        cuda.prepare()
    elif cuda.installed("mindspore-gpu"):  # MindSpore 1.10
        cuda.preload_runtime()


def loader_threads() -> int:
    """Cores this process may use, shared with the others that the launcher started on this host."""
    return max(len(os.sched_getaffinity(0)) // launcher.local_processes(), 1)


def kernel_threads() -> int:
    """Threads of a kernel of our own: OMP_NUM_THREADS as for others, else as many as the loader has."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) else loader_threads()


def keep_freed_memory() -> None:
    """Makes glibc's malloc keep freed memory: images come and go by the megabyte, and each time the kernel would clear
    the pages again, under a lock of the whole process."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the largest value it takes
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
