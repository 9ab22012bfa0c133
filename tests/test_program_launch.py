"""Several processes, and the launch scripts."""
import os
import signal
import socket
import subprocess
import sys
import time
import uuid

import psutil
import pytest
from programs import MPIRUN, ROOT, environment, free_port, left_behind, marked, read_rows, run, run_differing, succeed

# --- several processes

@pytest.mark.long
@pytest.mark.parametrize("launcher", ["mpirun", "msrun"])
def test_two_processes_make_one_run(place, tmp_path, launcher):
    mark, folder, logs = uuid.uuid4().hex, tmp_path / "run", tmp_path / "logs"
    start = {"mpirun": [*MPIRUN, sys.executable],
             "msrun": ["msrun", "--worker_num=2", "--local_worker_num=2", "--join=True", f"--log_dir={logs}",
                       f"--master_port={free_port()}"]}
    done = run(place, *start[launcher], os.path.join(ROOT, "train.py"), *place.data, "--run_distribute=True",
               "--device_num=2", "--batch_size=2", "--epoch_size=1", f"--output_path={folder}", SSD_TEST_MARK=mark)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    facts, *rows = read_rows(folder)
    assert facts["processes"] == 2 and facts["batch"] == 4
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6]
    assert [row["step"] for row in rows if "AP" in row] == [6]
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert sorted(os.listdir(folder / "ckpt")) == ["best.ckpt", "epoch_0001.ckpt", "last.ckpt"]
    assert left_behind(mark) == []


@pytest.mark.long
def test_a_process_that_dies_takes_the_others_along(place, tmp_path):
    mark = uuid.uuid4().hex
    done = run(place, *MPIRUN, sys.executable, os.path.join(ROOT, "train.py"), *place.data, "--run_distribute=True",
               "--coco_root=missing", f"--output_path={tmp_path / 'run'}", SSD_TEST_MARK=mark)
    assert done.returncode == 3 and done.stderr.count("coco_root 'missing' is not a folder") == 1
    assert "Traceback" not in done.stderr
    assert left_behind(mark) == []


@pytest.mark.long
@pytest.mark.parametrize("count", [3, 8])
def test_more_processes_train_together(place, tmp_path, count):
    mark, folder = uuid.uuid4().hex, tmp_path / "run"
    done = run(place, *MPIRUN[:-1], count, sys.executable, os.path.join(ROOT, "train.py"), *place.data,
               "--run_distribute=True", "--batch_size=1", "--epoch_size=1", "--log_interval=1",
               f"--output_path={folder}", SSD_TEST_MARK=mark)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    facts, *rows = read_rows(folder)
    assert facts["processes"] == facts["batch"] == count
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 24 // count + 1))
    assert len([row for row in rows if "AP" in row]) == 1 and left_behind(mark) == []


# --- something dies

FAULTY = """
import os, sys
sys.path.insert(0, {root!r})
import src.training.meter, train
from src.errors import run_main

add = src.training.meter.Meter.add

def fail(self, numbers, **times):
    add(self, numbers, **times)
    if os.environ["MS_NODE_ID"] == "1" and len(self.state.unlogged) == 1 and self.timed > 12:
        raise {error}("injected")

src.training.meter.Meter.add = fail
run_main(train.main)
"""


def begin(place, tmp_path, launcher, program):
    """A long run of two processes, one image each, when its second epoch has begun -> (launcher's process, mark)."""
    mark, port = uuid.uuid4().hex, free_port()
    start = {"mpirun": [*MPIRUN, sys.executable],
             "msrun": ["msrun", "--worker_num=2", "--local_worker_num=2", "--join=True", f"--master_port={port}",
                       f"--log_dir={tmp_path / 'logs'}"]}[launcher]
    options = ["--run_distribute=True", "--batch_size=1", "--epoch_size=400", "--run_eval=False",
               f"--output_path={tmp_path / 'run'}"]
    with open(tmp_path / "out.txt", "w", encoding="utf-8") as file:
        process = subprocess.Popen([*start, program, *place.data, *options], cwd=place.folder, stdout=file, stderr=file,
                                   env=environment(SSD_TEST_MARK=mark), start_new_session=True)
    wait_until(lambda: process.poll() is not None or "step 14/" in (tmp_path / "out.txt").read_text())
    return process, mark


def wait_until(true, seconds=300):
    end = time.time() + seconds
    while not true() and time.time() < end:
        time.sleep(0.1)


def rank_process(mark, rank):
    """The process of a rank: of its pair, which has the same variables, the one that is not the other's child."""
    for one in marked(mark):
        variables = one.environ()
        if str(rank) == variables.get("OMPI_COMM_WORLD_RANK", variables.get("MS_NODE_ID")) and "python" in one.name():
            parent = psutil.Process(one.ppid()).environ()
            if "OMPI_COMM_WORLD_RANK" not in parent and "MS_NODE_ID" not in parent:
                return one
    raise AssertionError(f"no rank {rank}")


# what, its exit code under mpirun, under msrun, whether the state is saved at that step
FAULTS = {"kill -9 of rank 0": (137, 1, False), "kill -9 of rank 1": (137, 1, False),
          "an exception in rank 1": (1, 1, False), "an exception of memory in rank 1": (4, 1, False),
          "SIGINT to rank 1": (130, 1, True),
          "SIGTERM to rank 0": (130, 1, True), "kill -9 of the launcher": (-9, -9, True),
          "SIGINT to the launcher": (1, 0, False), "SIGTERM to the launcher": (1, -15, True),
          "SIGUSR1 to the launcher": (130, -10, True)}


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("launcher", ["mpirun", "msrun"])
def test_what_dies_takes_all_along_and_leaves_a_checkpoint(place, tmp_path, launcher, fault):
    program = os.path.join(ROOT, "train.py")
    if "exception" in fault:
        program = tmp_path / "faulty.py"
        program.write_text(FAULTY.format(root=ROOT, error="MemoryError" if "memory" in fault else "ValueError"))
    process, mark = begin(place, tmp_path, launcher, program)
    begun = time.time()
    number = {"kill -9": signal.SIGKILL, "SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGUSR1": signal.SIGUSR1}
    sent = next((value for name, value in number.items() if fault.startswith(name)), None)
    if fault.endswith("launcher"):
        process.send_signal(sent)
    elif sent:
        rank_process(mark, fault[-1]).send_signal(sent)
    code = process.wait(60)
    assert left_behind(mark, 30) == []
    seconds = time.time() - begun
    print(f"{launcher}, {fault}: exit {code}, {seconds:.0f} s")
    from src.weights import checkpoint
    steps = checkpoint.load(str(tmp_path / "run" / "ckpt" / "last.ckpt"))[1]["steps_done"]
    output = (tmp_path / "out.txt").read_text()
    *codes, saved = FAULTS[fault]
    assert code == codes[launcher == "msrun"], output
    assert seconds < 30 and steps >= 12
    if launcher == "mpirun" and code == 1 and fault.endswith("launcher"):
        return  # mpirun kills its ranks a moment after it told them to end: some have saved by then, some have not
    # an epoch has 12 steps
    assert steps >= 14 if saved else steps % 12 == 0, (steps, output)


# --- checks before training

@pytest.mark.long
def test_processes_with_other_options_are_refused(place, tmp_path):
    mark = uuid.uuid4().hex
    done = run_differing(place, tmp_path / "run", "--lr=0.07", mark=mark, others=2)
    assert done.returncode == 2 and done.stderr.count("error: ") == 1 and not (tmp_path / "run").exists()
    assert "error: --lr is 0.07 on rank 1, but 0.05 on rank 0" in done.stderr and left_behind(mark) == []


@pytest.mark.long
def test_a_port_that_is_taken_is_told(place, tmp_path):
    mark = uuid.uuid4().hex
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = run(place, "msrun", "--worker_num=2", "--local_worker_num=2", "--join=True", f"--master_port={port}",
                   f"--log_dir={tmp_path}", os.path.join(ROOT, "train.py"), *place.data, "--run_distribute=True",
                   f"--output_path={tmp_path / 'run'}", SSD_TEST_MARK=mark)
    assert done.returncode == 1 and left_behind(mark) == []
    assert f"error: port {port} of 127.0.0.1 is taken by another program" in done.stderr


# --- launch scripts

@pytest.mark.parametrize("count", ["0", "two", "-1", "1.5"])
def test_the_number_of_devices_is_checked(place, count):
    done = run(place, "run_distribute_train_gpu.sh", count, 1, 0.01, "coco", place.recipe)
    assert done.returncode == 2 and done.stderr == f"error: DEVICE_NUM '{count}' must be a whole number above 0\n"


def test_a_missing_hostfile(place):
    done = run(place, "run_distribute_train_gpu.sh", 2, 1, 0.01, "coco", place.recipe, HOSTFILE="missing")
    assert done.returncode == 2 and done.stderr == "error: HOSTFILE 'missing' is not a file\n"


@pytest.mark.long
def test_the_slurm_script_trains(place, tmp_path):
    folder = tmp_path / "run"
    done = run(place, "slurm_train.sh", 1, 0.01, "coco", place.recipe, "--device_target=CPU", "--batch_size=2",
               f"--coco_root={place.coco}", f"--output_path={folder}", SLURM_NTASKS="2", SSD_ROOT=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_rows(folder)[0]["processes"] == 2


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_the_distributed_script_saves_at_a_signal(place, tmp_path, number):
    mark, folder = uuid.uuid4().hex, tmp_path / "run"
    with open(tmp_path / "out.txt", "w", encoding="utf-8") as file:
        script = subprocess.Popen(["bash", os.path.join(ROOT, "scripts/run_distribute_train_gpu.sh"), "2", "400",
                                   "0.01", "coco", place.recipe, f"--coco_root={place.coco}", "--device_target=CPU",
                                   "--batch_size=1", "--run_eval=False", f"--output_path={folder}"], stdout=file,
                                  stderr=file, cwd=place.folder, env=environment(SSD_TEST_MARK=mark))
    wait_until(lambda: script.poll() is not None or "step 4/" in (tmp_path / "out.txt").read_text())
    script.send_signal(number)
    text = (tmp_path / "out.txt").read_text()
    assert script.wait(60) == 130 and left_behind(mark) == [], text
    assert (folder / "ckpt" / "last.ckpt").exists()
    assert "error: interrupted after step" in (folder / "ranks" / "rank_0.log").read_text()


@pytest.mark.long
def test_scripts_train_evaluate_and_export(place, trained):
    folder = place.folder / "scripted"
    text = succeed(place, "run_standalone_train_gpu.sh", 0, 1, 0.01, "coco", place.recipe, trained.last, 0,
                   "--device_target=CPU", f"--coco_root={place.coco}", f"--output_path={folder}")
    assert f"weights from {trained.last.name} (ours)" in text
    assert [row["step"] for row in read_rows(folder) if "loss" in row] == [2, 4, 6]
    best = folder / "ckpt" / "best.ckpt"
    text = succeed(place, "run_eval_gpu.sh", "coco", best, 0, place.recipe, f"--coco_root={place.coco}",
                   "--device_target=CPU")
    assert (folder / "eval" / "metrics.json").exists() and "AP50" in text
    text = succeed(place, "run_export.sh", best, "MINDIR", folder / "ssd")
    assert "compared with the network" in text and (folder / "ssd.mindir").exists()


@pytest.mark.long
def test_the_distributed_script_trains(place, trained, tmp_path):
    mark, folder = uuid.uuid4().hex, tmp_path / "run"
    done = run(place, "run_distribute_train_gpu.sh", 2, 2, 0.01, "coco", place.recipe, trained.last, 1,
               "--device_target=CPU", f"--coco_root={place.coco}", f"--output_path={folder}", "--batch_size=2",
               SSD_TEST_MARK=mark)
    assert done.returncode == 0, done.stdout + done.stderr
    # the first epoch counts as done by the checkpoint
    assert [row["step"] for row in read_rows(folder) if "loss" in row] == [8, 10, 12] and left_behind(mark) == []
