"""What a program and all processes that it has started hold, seen from outside: memory, files, threads."""
import os
import re
import subprocess
from collections import Counter

import psutil

SHARED = re.compile(r"\S+ \S+ \S+ \S+ \S+ +(/dev/shm/\S+)")  # a line of /proc/PID/maps


def tree_of(pid):
    """The processes of a program that live: itself and all that it has started."""
    try:
        program = psutil.Process(pid)
        return [program, *program.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def measure_tree(pid):
    """A dict of sums over the processes of a program, {} when it has ended.

    pss, rss: bytes of memory; a page that several processes share counts in equal parts in pss, in full in rss. own:
    those of rss that are not of files, which the kernel may drop. files: descriptors; shared: files of /dev/shm in the
    memory of one of them; cpu: seconds so far.
    """
    names = ("pss", "rss", "own", "files", "threads", "processes", "shared", "cpu")
    total, shared = dict.fromkeys(names, 0), set()
    for process in tree_of(pid):
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            memory, times = process.memory_full_info(), process.cpu_times()
            state = read_status(process.pid)
            found = {"pss": memory.pss, "rss": memory.rss, "own": state["RssAnon"] + state["RssShmem"],
                     "files": process.num_fds(), "threads": process.num_threads(), "processes": 1,
                     "cpu": times.user + times.system + times.children_user + times.children_system}
            shared |= shared_files(process.pid)
        except (psutil.Error, OSError):  # it has just ended
            continue
        for name, value in found.items():
            total[name] += value
    total["shared"] = len(shared)
    return total if total["processes"] else {}


def read_status(pid):
    """The sizes in /proc/PID/status in bytes, by name; none of a process that has just ended."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        found = (re.fullmatch(r"(\w+):\s+(\d+) kB\n", line) for line in file)
        return Counter({line[1]: int(line[2]) * 1024 for line in found if line})


def shared_files(pid):
    """The files of /dev/shm in the memory of a process."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
        return {found[1] for line in file if (found := SHARED.match(line))}


def highest_memory(pid):
    """The most memory that one process of a program has held so far, in bytes (VmHWM), 0 when it has ended."""
    most = 0
    for process in tree_of(pid):
        try:
            most = max(most, read_status(process.pid)["VmHWM"])
        except OSError:
            continue
    return most


def stop_tree(program, number, patience):
    """Sends a signal to a program, waits for its end, at most `patience` seconds, then kills it -> its exit code."""
    left = tree_of(program.pid)
    program.send_signal(number)
    try:
        return program.wait(patience)
    except subprocess.TimeoutExpired:
        for process in left:
            if process.is_running():
                process.kill()
        return program.wait()


def size_of(folder):
    """Bytes of all files in a folder."""
    return sum(os.path.getsize(os.path.join(place, name)) for place, _, names in os.walk(folder) for name in names)
