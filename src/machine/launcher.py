"""The processes of a launcher: they join MindSpore's cluster, and none stays behind when one or the launcher dies.

Standard library and mpi4py: all of it happens before MindSpore is imported.
"""
from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time

from src.errors import EnvironmentFault, RankFault, launched

PR_SET_PDEATHSIG = 1   # of prctl(2): the signal a process gets when its parent dies
GRACE_SECONDS = 15     # to save and end when the launcher has died
POLL_SECONDS = 0.5
# a program that dies with the process that started it
SCHEDULER = (f"import ctypes; ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(signal.SIGKILL)}); "
             "import mindspore as ms; ms.set_device('CPU'); from mindspore.communication import init; init()")


def check_launch(run_distribute: bool, device_num: int) -> None:
    """Raises EnvironmentFault when the options and the launcher do not fit each other."""
    world = launched()
    if run_distribute and not world:
        raise EnvironmentFault("--run_distribute=True, but no launcher started this process; use 'mpirun -n N python "
                               "train.py ...' or 'msrun --worker_num=N --local_worker_num=N --join=True train.py ...'")
    if run_distribute and device_num not in (0, world):
        raise EnvironmentFault(f"--device_num={device_num}, but the launcher started {world} processes; make them "
                               "equal")
    if not run_distribute and world > 1:
        raise EnvironmentFault(f"a launcher started {world} processes without --run_distribute=True: each would train "
                               "alone; add that option, or start one process without the launcher")


def check_devices(device_target: str) -> None:
    """Raises RankFault, on the first process of a host alone, when it has fewer GPUs than processes of the job."""
    if device_target != "GPU":
        return
    needed, found = local_processes(), count_gpus()
    if found is None or found >= needed:
        return
    local_rank = int(os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK") or os.environ.get("DEVICE_ID") or 0)
    error = RankFault if local_rank == 0 else EnvironmentFault
    raise error(f"{socket.gethostname()} has {found} GPU(s) that this job may use, but {needed} processes were started "
                "there; start one process for each GPU, or see CUDA_VISIBLE_DEVICES and nvidia-smi")


def count_gpus() -> int | None:
    """How many GPUs this process may use: by CUDA_VISIBLE_DEVICES, else by nvidia-smi; None when neither says."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        names = [name.strip() for name in listed.split(",") if name.strip()]
        return names.index("-1") if "-1" in names else len(names)  # -1 hides itself and the rest
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())


def join(device_target: str) -> None:
    """Prepares a process of a launcher. The scheduler that msrun starts beside the workers never returns from here."""
    os.environ.setdefault("MS_NODE_TIMEOUT", "15")  # seconds without a heartbeat until the scheduler ends the job
    # seconds in which a process may compile or convert while others wait in an all-reduce of CPUs
    os.environ.setdefault("MS_CPU_COMM_OP_TIMEOUT", "3600")
    os.environ["LOCAL_WORLD_SIZE"] = str(local_processes())
    options = msrun_options()
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        sys.exit(keep_scheduler(os.getppid()))
    check_devices(device_target)
    if options is None or options.join:  # without --join msrun ends at once, and the workers stay
        watch_launcher(os.getppid())
    if device_target == "CPU" and "OMPI_COMM_WORLD_SIZE" in os.environ:
        join_from_mpi()


def local_processes() -> int:
    """How many processes the launcher started on this host, 1 without one.

    mpirun says so, msrun only on its command line; join() has kept the number in LOCAL_WORLD_SIZE.
    """
    stored = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE")
    options = None if stored else msrun_options()
    if options:
        return options.local_worker_num
    return int(stored or os.environ.get("MS_WORKER_NUM") or 1)


def msrun_options(parent: int | None = None) -> argparse.Namespace | None:
    """join and local_worker_num of the msrun that started this process (parent), None without one or if it ended."""
    words = read_words(parent or os.getppid(), "cmdline")
    names = [os.path.basename(word) for word in words[:2]]
    if "msrun" not in names:
        return None
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--join", type=lambda text: text == "True", default=False)
    parser.add_argument("--local_worker_num", type=int, default=8)
    return parser.parse_known_args(words[names.index("msrun") + 1:])[0]


def read_words(process: int, name: str) -> list[str]:
    """The words of /proc/PROCESS/cmdline or environ; none when the process is gone, a zombie, or another user's."""
    try:
        with open(f"/proc/{process}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read().split("\0")[:-1]
    except OSError:
        return []


# --- the death of the launcher

def watch_launcher(launcher: int) -> None:
    """When the launcher dies, this process saves and ends as at SIGTERM, and after GRACE_SECONDS it is killed.

    The kernel reports the death at once, by SIGUSR1, which means the same when a user or a batch system sends it. A
    forked process does the killing: one that compiles, or waits for a peer that is gone, cannot kill itself.
    """
    def stop(number: int, frame: object) -> None:
        if os.getppid() != launcher:  # nobody reads any longer, and a broken pipe would end the program before it saves
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGUSR1, stop)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGUSR1))
    worker = os.getpid()
    if os.fork() == 0:
        try:
            guard(worker, launcher)
        finally:
            os._exit(0)


def guard(worker: int, launcher: int) -> None:
    """Waits for the end of the worker, its parent; ends it when its launcher is gone."""
    os.setsid()  # a signal to the process group must not end the guard before its worker
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    gone = None
    while os.getppid() == worker:
        if gone is None and parent_of(worker) != launcher:
            gone = time.monotonic()
            end_tail()
        if gone is not None and time.monotonic() - gone > GRACE_SECONDS:
            os.kill(worker, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def parent_of(process: int) -> int:
    """The id of the parent of a process, 0 when it is gone or a zombie."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except OSError:
        return 0
    return 0 if state == "Z" else int(parent)


def end_tail() -> None:
    """Ends the 'tail -f' with which msrun shows the log of this process: it outlives a killed msrun."""
    for process in processes():
        words = read_words(process, "cmdline")
        if words[:2] == ["/usr/bin/tail", "-f"]:
            with contextlib.suppress(OSError):
                shown = os.stat(os.path.join(os.readlink(f"/proc/{process}/cwd"), words[2]))
                if os.path.samestat(shown, os.fstat(1)):
                    os.kill(process, signal.SIGTERM)


def processes() -> list[int]:
    """The ids of all processes of this host."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


# --- the scheduler

def keep_scheduler(launcher: int) -> int:
    """Runs MindSpore's scheduler in its own process while msrun has workers on this host -> its exit code.

    Alone it would wait half a minute for workers that were killed, and msrun would wait for it.
    """
    if port_taken(os.environ["MS_SCHED_HOST"], int(os.environ["MS_SCHED_PORT"])):
        return refuse_port(launcher)
    scheduler, workers = start_scheduler(), set()
    try:
        while scheduler.poll() is None:
            workers = workers or find_workers()
            time.sleep(POLL_SECONDS)
            left = {worker for worker in workers if parent_of(worker)}
            if workers and not left:
                return 0
            workers = left
    finally:
        scheduler.kill()
    return scheduler.returncode


def start_scheduler() -> subprocess.Popen:
    """Starts MindSpore's scheduler for the cluster that the environment describes."""
    return subprocess.Popen([sys.executable, "-c", SCHEDULER], env={**os.environ, "MS_ROLE": "MS_SCHED"},
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def find_workers() -> set[int]:
    """The ids of the processes on this host that work under this scheduler."""
    marks = {"MS_ROLE=MS_WORKER", f"MS_SCHED_PORT={os.environ['MS_SCHED_PORT']}"}
    return {process for process in processes() if marks <= set(read_words(process, "environ"))
            and read_words(process, "cmdline")[:1] != ["/usr/bin/tail"]}


def port_taken(host: str, port: int) -> bool:
    """Whether another program listens at a port of this host."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a server that has ended counts for a while
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def refuse_port(launcher: int) -> int:
    """Says on msrun's terminal that its port is taken; ends its workers, which would join another one. Exit code."""
    text = (f"error: port {os.environ['MS_SCHED_PORT']} of {os.environ['MS_SCHED_HOST']} is taken by another program; "
            "choose another one: msrun --master_port=N")
    print(text, flush=True)  # to scheduler.log
    with contextlib.suppress(OSError):  # stderr may be a socket; the log has the text
        with open(f"/proc/{launcher}/fd/2", "w", encoding="utf-8") as terminal:
            print(text, file=terminal, flush=True)
    ended, waited = set(), 0.0
    while waited < (2 if ended else GRACE_SECONDS):  # the workers are started one after another
        for worker in find_workers() - ended:
            if parent_of(worker) == launcher:  # the other workers at this port are another user's
                os.kill(worker, signal.SIGKILL)
                ended.add(worker)
        time.sleep(POLL_SECONDS / 5)
        waited += POLL_SECONDS / 5
    return EnvironmentFault.exit_code


# --- mpirun

def join_from_mpi() -> None:
    """Turns a process of mpirun into a worker of MindSpore's own cluster, which unlike its MPI back end runs on CPU.

    mpi4py gives rank and size and spreads the address; rank 0 starts the scheduler. The launcher's variables are
    removed before MindSpore sees them and tries its own MPI.
    """
    from mpi4py import MPI  # here, because it starts MPI
    world = MPI.COMM_WORLD
    rank, size = world.Get_rank(), world.Get_size()
    one_host = len(set(world.allgather(socket.gethostname()))) == 1
    host, port = world.bcast(free_address(one_host) if rank == 0 else None)
    if not host:
        raise EnvironmentFault("the host of rank 0 has no address; add its name to /etc/hosts on all machines")
    MPI.Finalize()  # now, because a worker leaves without it, see errors.leave
    for name in [name for name in os.environ if name.startswith(("OMPI_", "PMIX_", "PMI_"))]:
        del os.environ[name]
    os.environ.update(MS_WORKER_NUM=str(size), MS_SCHED_HOST=host, MS_SCHED_PORT=str(port))
    if rank == 0:
        start_scheduler()
    os.environ.update(MS_ROLE="MS_WORKER", MS_NODE_ID=str(rank))


def free_address(one_host: bool) -> tuple[str, int]:
    """An address and a free TCP port at which other processes reach this one; "" where the host has no address."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    try:
        return "127.0.0.1" if one_host else socket.gethostbyname(socket.gethostname()), port
    except OSError:
        return "", port
