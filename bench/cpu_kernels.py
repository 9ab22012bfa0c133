"""The train step of SSD300-MobileNetV2 with the CPU kernels the programs choose and with MindSpore's own choice.

    python bench/cpu_kernels.py [--json=FILE]

Each side runs in a process of its own, as oneDNN reads the setting once: batch 4 at 300 pixels, 81 classes, float32,
the whole step (forward, loss, backward, update). The time is the median after the first step, which compiles.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BATCH = 4


def main():
    """Runs both sides, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="also write the rows to this file")
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.steps:
        print(json.dumps(measure(arguments.steps)))
        return
    ours = run({"ONEDNN_MAX_CPU_ISA": "AVX2"}, steps=9)
    plain = run({"ONEDNN_MAX_CPU_ISA": ""}, steps=2)
    row = {"name": "train step ssd300_mobilenet_v2, batch 4, CPU", "ours": ours, "peer": plain, "ratio": plain / ours,
           "limit": None, "unit": "s", "date": time.strftime("%Y-%m-%d"), "commit": commit(),
           "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}
    print(f"{row['name']} ({row['machine']}, {row['date']}, {row['commit']})")
    print(f"  as the programs set it (AVX2)   {ours:8.2f} s")
    print(f"  MindSpore 2.10 out of the box   {plain:8.2f} s\n  ratio                           {row['ratio']:8.1f}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump([row], file, indent=1)


def run(environment, steps):
    """Median seconds a step, measured in a fresh process."""
    done = subprocess.run([sys.executable, os.path.abspath(__file__), f"--steps={steps}"], capture_output=True,
                          text=True, check=True, env={**os.environ, **environment})
    return json.loads(done.stdout.splitlines()[-1])


def measure(steps):
    """Median seconds of the steps after the first."""
    sys.path.insert(0, ROOT)
    import mindspore as ms
    import numpy as np

    from src.engine import TrainStep
    from src.losses import DetectionLoss, FocalLoss
    from src.models.ssd import build_model
    from src.optim import build_optimizer
    ms.set_context(mode=ms.GRAPH_MODE)
    model = build_model("ssd300_mobilenet_v2", 81)
    optimizer = build_optimizer(model.network.trainable_params(), np.full(steps + 1, 1e-4, np.float32),
                                weight_decay=1.5e-4)
    step = TrainStep(model, DetectionLoss(FocalLoss(alpha=0.75)), optimizer)
    step.set_train()
    rng = np.random.default_rng(0)
    anchors = len(model.anchors)
    batch = [ms.Tensor(rng.integers(0, 256, (BATCH, 300, 300, 3), np.uint8)),
             ms.Tensor((rng.random((BATCH, anchors)) < 0.01).astype(np.int32)),
             ms.Tensor(rng.normal(size=(BATCH, anchors, 4)).astype(np.float32)), ms.Tensor(0.0, ms.float32)]
    times = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        step(*batch).asnumpy()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def commit():
    """The commit of the source tree."""
    return subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True,
                          check=False).stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
