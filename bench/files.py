"""Exported files side by side: size, and milliseconds a picture of drawn pixels, the files called in turn.

    python bench/files.py ssd.onnx ssd_fp16.onnx ssd_int8.onnx [--repeats=30]

Files for one picture or for any number; the programs' own kernels for MindIR (src/runtime.py). The least time and the
median of each: where other programs run, the least says more.
"""
import os
import statistics
import time

import numpy as np
from common import arguments, commit, machine


def main():
    """Loads all files, then calls each once in every round."""
    parser = arguments(__doc__)
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    from src import runtime
    runtime.prepare()
    from src.predictor import load_exported
    predictors = {path: load_exported(path, 1) for path in options.paths}
    times = {path: [] for path in options.paths}
    rng = np.random.default_rng(0)
    for turn in range(options.repeats + 2):
        for path, predict in predictors.items():
            picture = rng.integers(0, 256, (1, predict.image_size, predict.image_size, 3), np.uint8)
            start = time.perf_counter()
            predict(picture)
            if turn >= 2:  # the first calls compile and allocate
                times[path].append(1000 * (time.perf_counter() - start))
    print(f"{machine()}, {time.strftime('%Y-%m-%d')}, commit {commit()}")
    for path, taken in times.items():
        print(f"{path}: {os.path.getsize(path) / 1e6:.1f} MB, least {min(taken):.1f} ms, median "
              f"{statistics.median(taken):.1f} ms")


if __name__ == "__main__":
    main()
