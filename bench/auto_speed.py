"""How fast a core trains the networks that --model=auto compares: what goes into SPEEDS of src/training/auto.py.

    OMP_NUM_THREADS=1 taskset -c 0 python bench/auto_speed.py [--steps=5] [--json=FILE]

A step of config/auto.yaml on random images, each network in a fresh process: the median after the first step, which
compiles. `ours` is how many numbers the layers put out in a second, the peer what SPEEDS says. Nothing else may run:
MindSpore's threads wait by spinning, so beside other programs neither the clock nor CPU time says anything.
"""
import json
import os

import numpy as np
from common import arguments, in_fresh_process, median_seconds, report, row

SIZES = {"ssd300_mobilenet_v2_tf": 300, "ssd_mobilenet_v2_fpnlite": 320}  # pixels


def main():
    """Measures all networks in turn."""
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--side", help="measure one network alone, and print its numbers")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, SIZES[options.side], options.steps)))
        return
    rows = []
    for name, size in SIZES.items():
        found = in_fresh_process(os.path.abspath(__file__), f"--side={name}", f"--steps={options.steps}")
        rows.append(row(f"{name} at {size} pixels, {found['seconds']:.3f} s an image", ours=found["speed"],
                        peer=found["assumed"], unit="numbers/s", compared_with="SPEEDS", better="higher"))
    report(rows, options.json)


def measure(name, size, steps):
    """Seconds an image, numbers a second, and those that --model=auto assumes."""
    from src.machine import process
    process.prepare("CPU")
    from src.config import AUTO_PATH, read_options
    from src.models.facts import read_facts
    from src.training import build
    from src.training.auto import SPEEDS, outputs_of
    from src.training.log import RunLog
    from src.training.step import run_step
    options = read_options([f"--config_path={AUTO_PATH}", f"--model={name}", f"--image_size={size}"])
    log, batch = RunLog(first=False), options.batch_size
    model, _ = build.build_training_model(options, ["object"], log=log, world=1)
    kernels = build.choose_kernels(options, model, log)
    if not kernels:
        raise SystemExit("error: no kernels")
    step = build.build_step(options, model, np.full(steps + 1, options.lr, np.float32), world=1, kernels=kernels)
    step.set_train()
    rng, anchors = np.random.default_rng(0), len(model.anchors)
    parts = [rng.integers(0, 256, (batch, size, size, 3), np.uint8),
             (rng.random((batch, anchors)) < 0.01).astype(np.int32),  # one anchor in a hundred has an object
             rng.normal(size=(batch, anchors, 4)).astype(np.float32)]
    seconds = median_seconds(lambda: run_step(step, parts, stop=False), steps) / batch
    return {"seconds": seconds, "speed": outputs_of(read_facts()[name], size) / seconds, "assumed": SPEEDS["CPU"]}


if __name__ == "__main__":
    main()
