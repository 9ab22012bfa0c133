"""Prepares the process before MindSpore is imported: processor kernels, CUDA, the cluster of a CPU run under mpirun."""
import ctypes
import os
import signal
import socket
import subprocess
import sys

from src import cuda
from src.errors import EnvironmentFault

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
SCHEDULER = "import mindspore as ms; ms.set_device('CPU'); from mindspore.communication import init; init()"


def prepare(device_target="CPU", run_distribute=False, device_num=0):
    """Sets the environment MindSpore reads at import; must run first. Raises EnvironmentFault (exit 4).

    ONEDNN_MAX_CPU_ISA=AVX2: on processors with AVX-512, MindSpore 2.10 picks oneDNN's reference convolution, several
    times slower than the AVX2 kernel (bench/cpu_kernels.py). A value the user has set is kept.
    """
    if "mindspore" in sys.modules:
        raise RuntimeError("runtime.prepare() must run before mindspore is imported")
    # MindSpore's data engine answers Ctrl-C by sending SIGTERM to its own process, which would end it without a word
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's threads spin on the loader's cores for 3x3 matrices
    if "GLOG_v" not in os.environ:  # MindSpore's own log: errors only, and of its data engine those end as ours
        os.environ.update(GLOG_v="3", MS_SUBMODULE_LOG_v="{MD:4}")
    keep_freed_memory()
    if device_target == "GPU":
        cuda.prepare()
    world = int(os.environ.get("OMPI_COMM_WORLD_SIZE") or os.environ.get("MS_WORKER_NUM") or 0)  # 0: no launcher
    if run_distribute and not world:
        raise EnvironmentFault("run_distribute=True, but no launcher started this process; use 'mpirun -n N python "
                               "train.py ...' or 'msrun --worker_num=N --local_worker_num=N --join=True train.py ...'")
    if run_distribute and device_num not in (0, world):
        raise EnvironmentFault(f"device_num={device_num}, but the launcher started {world} processes; make them equal")
    if not run_distribute and (world or 1) > 1:
        raise EnvironmentFault(f"a launcher started {world} processes without --run_distribute=True: each trains alone")
    if run_distribute and device_target == "CPU" and "OMPI_COMM_WORLD_SIZE" in os.environ:
        join_cluster_from_mpi()


def loader_threads():
    """Cores this process may use, shared with the others of the launcher (of mpirun: with those on this machine)."""
    processes = int(os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") or os.environ.get("MS_WORKER_NUM") or 1)
    return max(len(os.sched_getaffinity(0)) // processes, 1)


def keep_freed_memory():
    """Makes malloc of glibc keep freed memory: images come and go by the megabyte, and each time the kernel would clear
    its pages anew, under a lock of the whole process."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most it takes
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)


def join_cluster_from_mpi():
    """Turns a process of mpirun into a worker of MindSpore's own cluster, which unlike its MPI back end runs on CPU.

    mpi4py tells rank and size and spreads the address; rank 0 starts the scheduler. The launcher's variables go away
    before MindSpore sees them and tries its own MPI. When the last rank is gone the scheduler ends by itself.
    """
    from mpi4py import MPI  # here, because it starts MPI
    world = MPI.COMM_WORLD
    rank, size = world.Get_rank(), world.Get_size()
    one_host = len(set(world.allgather(socket.gethostname()))) == 1
    host, port = world.bcast(free_address(one_host) if rank == 0 else None)
    if not host:
        raise EnvironmentFault("the host of rank 0 has no address; add its name to /etc/hosts on all machines")
    for name in [name for name in os.environ if name.startswith(("OMPI_", "PMIX_", "PMI_"))]:
        del os.environ[name]
    os.environ.update(MS_WORKER_NUM=str(size), MS_SCHED_HOST=host, MS_SCHED_PORT=str(port))
    if rank == 0:
        subprocess.Popen([sys.executable, "-c", SCHEDULER], env={**os.environ, "MS_ROLE": "MS_SCHED"},
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ.update(MS_ROLE="MS_WORKER", MS_NODE_ID=str(rank))


def free_address(one_host):
    """A host name and a free TCP port at which other processes reach this one; "" where the host has no address."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    try:
        return "127.0.0.1" if one_host else socket.gethostbyname(socket.gethostname()), port
    except OSError:
        return "", port
