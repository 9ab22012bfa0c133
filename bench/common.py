"""What the measurements share: facts about the machine, medians, the table and the JSON."""
import json
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)  # `src`, however a measurement is started
from src.arguments import ArgumentParser  # noqa: E402  (found by the line above)


def arguments(doc):
    """A parser that knows --json; the help is the module's docstring."""
    parser = ArgumentParser(doc)
    parser.add_argument("--json", type=os.path.expanduser, help="also write the rows to this file")
    return parser


def row(name, *, ours, peer, unit, compared_with, limit=None, better="lower"):
    """One line of a table. ratio: how many times better ours is than the peer; better: which values are.

    ours: None where it was not run. A ratio to 0 is None too.
    """
    above, below = (peer, ours) if better == "lower" else (ours, peer)
    ratio = above / below if above is not None and below else None
    return {"name": name, "ours": ours, "peer": peer, "compared_with": compared_with, "ratio": ratio, "limit": limit,
            "unit": unit, "machine": machine(), "date": time.strftime("%Y-%m-%d"), "commit": commit()}


def report(rows, path=None):
    """Prints the rows and writes them to path."""
    print(f"{machine()}, {time.strftime('%Y-%m-%d')}, commit {commit()}")
    width = max(len(line["name"]) for line in rows)
    for line in rows:
        name, limit = line["name"].ljust(width), line["limit"]
        limit = "" if limit is None else f", limit {limit:.4g}"
        ours = "-" if line["ours"] is None else f"{line['ours']:.4g} {line['unit']}".rstrip()
        ratio = "" if line["ratio"] is None else f": {line['ratio']:.2f} times"
        print(f"{name}  ours {ours}, {line['compared_with']} {line['peer']:.4g}{limit}{ratio}")
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


def median_seconds(call, repeats=5, warm=1):
    """Median seconds of a call, after `warm` calls that are not counted."""
    for _ in range(warm):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def in_fresh_process(path, *extra, environment=None):
    """Runs a measurement's own file again with further arguments -> the JSON of its last line of output."""
    done = subprocess.run([sys.executable, path, *extra], capture_output=True, text=True, check=False,
                          env={**os.environ, **(environment or {})})
    if done.returncode:
        sys.exit(f"error: {os.path.basename(path)} {' '.join(extra)} failed\n{(done.stdout + done.stderr)[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def machine():
    """Processor and cores."""
    name = "unknown processor"
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), name)
    return f"{len(os.sched_getaffinity(0))} cores of {name}"


def commit():
    """The commit of the source tree, with + when files differ from it."""
    git = ["git", "-C", ROOT]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "src"], capture_output=True, text=True, check=False)
    return (head.stdout.strip() or "unknown") + ("+" if changed.stdout.strip() else "")
