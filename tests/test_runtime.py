"""What is prepared before MindSpore is imported."""
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from programs import ROOT, started, until

from src.errors import EnvironmentFault, RankFault
from src.machine import launcher, process


def no_address(name):
    raise socket.gaierror(-2, "Name or service not known")


@pytest.mark.parametrize("one_host, address", [(True, "127.0.0.1"), (False, "")])
def test_a_host_without_an_address(one_host, address, monkeypatch):
    monkeypatch.setattr(socket, "gethostbyname", no_address)
    assert launcher.free_address(one_host)[0] == address


@pytest.mark.parametrize("variables, expected", [
    ({}, 8), ({"LOCAL_WORLD_SIZE": "2", "MS_WORKER_NUM": "8"}, 4),
    ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "MS_WORKER_NUM": "8"}, 2), ({"MS_WORKER_NUM": "3"}, 2),
    ({"OMPI_COMM_WORLD_LOCAL_SIZE": "16"}, 1)])
def test_processes_of_one_machine_share_its_cores(monkeypatch, variables, expected):
    for name in ("OMPI_COMM_WORLD_LOCAL_SIZE", "MS_WORKER_NUM", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(process.os, "sched_getaffinity", lambda process: set(range(8)))
    assert process.loader_threads() == expected


def test_an_error_of_mindspore_as_one_line():
    from src.machine.distributed import plain  # imports MindSpore
    rule = "-" * 52
    text = f"\n{rule}\n- Cuda error:\n{rule}\nno device-side\n  here\n\n{rule}\n- C++ Call Stack: (For)\n{rule}\na.cc:1"
    assert plain(RuntimeError(text)) == "no device-side here"


# --- devices

@pytest.mark.parametrize("variables, count", [
    ({"CUDA_VISIBLE_DEVICES": "0,1"}, 2), ({"CUDA_VISIBLE_DEVICES": ""}, 0), ({"CUDA_VISIBLE_DEVICES": "GPU-ab, 1"}, 2),
    ({"CUDA_VISIBLE_DEVICES": "1,-1,2"}, 1), ({}, 4)])
def test_gpus_are_counted(monkeypatch, tmp_path, variables, count):
    fake_smi(monkeypatch, tmp_path, 4)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launcher.count_gpus() == count


def fake_smi(monkeypatch, tmp_path, count):
    """An nvidia-smi that lists so many GPUs, alone on the path."""
    lines = "\n".join(f"echo 'GPU {number}: NVIDIA H200 (UUID: GPU-{number})'" for number in range(count))
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{lines}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize("local_rank, error", [("0", RankFault), ("1", EnvironmentFault)])
def test_more_processes_than_gpus(monkeypatch, tmp_path, local_rank, error):
    fake_smi(monkeypatch, tmp_path, 2)
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", local_rank)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    launcher.check_devices("GPU")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    launcher.check_devices("CPU")
    with pytest.raises(error, match="has 2 GPU.* but 3 processes") as caught:
        launcher.check_devices("GPU")
    assert type(caught.value) is error  # one process of a host tells it


def test_no_gpu_is_counted_without_nvidia_smi(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert launcher.count_gpus() is None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    launcher.check_devices("GPU")  # MindSpore has the last word


# --- launchers

def test_what_msrun_was_asked_is_read_from_its_command_line(tmp_path):
    (tmp_path / "msrun").write_text("import time; time.sleep(60)")
    options = ["--worker_num=8", "--local_worker_num", "3", "--join=True", "train.py"]
    with started(sys.executable, str(tmp_path / "msrun"), *options) as msrun:
        until(lambda: launcher.read_words(msrun.pid, "cmdline"))  # empty while the kernel starts the program
        options = launcher.msrun_options(msrun.pid)
    assert (options.join, options.local_worker_num) == (True, 3)
    assert launcher.msrun_options() is None


def test_a_port_is_taken_only_while_somebody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert launcher.port_taken("127.0.0.1", port)
    assert not launcher.port_taken("127.0.0.1", port)


WORKER = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from src.machine import launcher
launcher.GRACE_SECONDS, launcher.POLL_SECONDS = {grace}, 0.1
signal.signal(signal.SIGTERM, {handler})
launcher.watch_launcher(os.getppid())
print(os.getpid(), flush=True)
time.sleep(600)
"""


HEEDS = "lambda *_: (open({told!r}, 'w').close(), os._exit(0))"


@pytest.mark.parametrize("handler, grace", [(HEEDS, 600), ("signal.SIG_IGN", 1)])
def test_a_worker_ends_with_its_launcher(tmp_path, handler, grace):
    """One that does not heed SIGTERM is killed after the time of grace."""
    told = tmp_path / "told"
    worker = WORKER.format(root=ROOT, grace=grace, handler=handler.format(told=str(told)))
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    with started(sys.executable, "-c", code) as parent:
        worker = int(parent.stdout.readline())
        assert launcher.parent_of(worker) == parent.pid
        begun = time.monotonic()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        until(lambda: not launcher.parent_of(worker))
    assert told.exists() == (handler == HEEDS)
    assert told.exists() or time.monotonic() - begun > grace


def test_the_scheduler_ends_with_the_last_worker(monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    scheduler = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(launcher, "start_scheduler", lambda: scheduler)
    monkeypatch.setenv("MS_SCHED_HOST", "127.0.0.1")
    monkeypatch.setenv("MS_SCHED_PORT", port)
    worker = subprocess.Popen(["/bin/sleep", "60"], env={**os.environ, "MS_ROLE": "MS_WORKER"})

    def find(find=launcher.find_workers):
        found = find()
        if found:
            worker.kill()
        return found
    monkeypatch.setattr(launcher, "find_workers", find)
    assert launcher.keep_scheduler(os.getpid()) == 0
    assert worker.poll() is not None or launcher.parent_of(worker.pid) == 0
    worker.wait()
    assert scheduler.wait() == -signal.SIGKILL
