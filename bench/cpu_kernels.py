"""The train step with the CPU kernels the programs choose and with MindSpore's own choice.

    python bench/cpu_kernels.py [--model=ssd300_mobilenet_v2] [--json=FILE]

Each side runs in a process of its own, as oneDNN reads the setting once: batch 4 at the size of the model, 81 classes,
float32, focal loss, the whole step. The time is the median after the first step, which compiles; of MindSpore's own
choice one step is timed, for a ResNet some minutes long.
"""
import json
import os

import numpy as np
from common import arguments, in_fresh_process, median_seconds, report, row

BATCH = 4


def main():
    """Runs both sides, prints the table."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="ssd300_mobilenet_v2")
    parser.add_argument("--steps", type=int, help="measure this process alone, so many steps, and print its number")
    options = parser.parse_args()
    if options.steps:
        print(json.dumps(measure(options.model, options.steps)))
        return
    here = os.path.abspath(__file__), f"--model={options.model}"
    ours = in_fresh_process(*here, "--steps=9", environment={"ONEDNN_MAX_CPU_ISA": "AVX2"})
    plain = in_fresh_process(*here, "--steps=1", environment={"ONEDNN_MAX_CPU_ISA": ""})
    report([row(f"train step {options.model}, batch {BATCH}, CPU", ours=ours, peer=plain, unit="s",
                compared_with="MindSpore out of the box")], options.json)


def measure(name, steps):
    """Median seconds of the steps after the first."""
    from src.machine import process
    process.prepare("CPU")
    import mindspore as ms

    from src.losses import DetectionLoss, FocalLoss
    from src.models.ssd import build_model
    from src.optim import build_optimizer
    from src.training.step import TrainStep
    ms.set_context(mode=ms.GRAPH_MODE)
    model = build_model(name, 81)
    optimizer = build_optimizer(model.network.trainable_params(), np.full(steps + 1, 1e-4, np.float32))
    step = TrainStep(model, DetectionLoss(FocalLoss(alpha=0.75)), optimizer)
    step.set_train()
    rng, size, anchors = np.random.default_rng(0), model.image_size, len(model.anchors)
    batch = [ms.Tensor(part) for part in (
        rng.integers(0, 256, (BATCH, size, size, 3), np.uint8), (rng.random((BATCH, anchors)) < 0.01).astype(np.int32),
        rng.normal(size=(BATCH, anchors, 4)).astype(np.float32), np.float32(0))]
    return median_seconds(lambda: step(*batch).asnumpy(), steps)


if __name__ == "__main__":
    main()
