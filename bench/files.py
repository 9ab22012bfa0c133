"""Exported files side by side: size, and milliseconds a picture of drawn pixels.

    python bench/files.py ssd.onnx ssd_fp16.onnx ssd_int8.onnx [--repeats=20] [--rounds=3] [--json=FILE]

Files for one picture or for any number; the programs' own kernels for MindIR (src/machine/process.py). In every round
each file runs in a process of its own, for the threads of one would disturb the next. The shortest time and the median
of all calls: where other programs run, the shortest says more.
"""
import json
import os
import statistics
import time

import numpy as np
from common import arguments, commit, in_fresh_process, machine


def main():
    """Measures every file in every round."""
    parser = arguments(__doc__)
    parser.add_argument("paths", nargs="+", type=os.path.expanduser)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="measure in this process and print the milliseconds")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measure(options.paths[0], options.repeats)))
        return
    times = {path: [] for path in options.paths}
    for _ in range(options.rounds):
        for path, taken in times.items():
            taken += in_fresh_process(os.path.abspath(__file__), path, "--alone", f"--repeats={options.repeats}")
    print(f"{machine()}, {time.strftime('%Y-%m-%d')}, commit {commit()}")
    rows = [{"name": path, "megabytes": os.path.getsize(path) / 1e6, "least_ms": min(taken),
             "median_ms": statistics.median(taken)} for path, taken in times.items()]
    for row in rows:
        print("{name}: {megabytes:.1f} MB, shortest {least_ms:.1f} ms, median {median_ms:.1f} ms".format(**row))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


def measure(path, repeats):
    """Milliseconds of each call, after two that are not counted: they compile and allocate."""
    from src.machine import process
    process.prepare()
    from src.inference.predictor import load_exported
    predict, times = load_exported(path, 1), []
    size = predict.image_size
    picture = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    for _ in range(repeats + 2):
        start = time.perf_counter()
        predict(picture)
        times.append(1000 * (time.perf_counter() - start))
    return times[2:]


if __name__ == "__main__":
    main()
