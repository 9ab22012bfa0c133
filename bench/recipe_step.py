"""The CPU train step of a recipe as train.py builds it, with our own kernels and with MindSpore's alone.

    python bench/recipe_step.py [--recipe=config/ssd_mobilenet_v2_fpnlite_finetune.yaml] [--steps=7] [--json=FILE]

Everything that the recipe says of network, loss, optimiser and average, on random images and weights with 3 classes:
steps of fine-tuning freeze layers and norms, which bench/train_step.py has not. Every side runs in a fresh process.
Two rows, medians after two steps: wall time, and CPU time of all threads, which another program on the same cores
disturbs less. OMP_NUM_THREADS says how many threads the kernels take.
"""
import json
import os
import statistics
import time

import numpy as np
from common import ROOT, arguments, in_fresh_process, report, row


def main():
    """Runs both sides in turn."""
    parser = arguments(__doc__)
    parser.add_argument("--recipe", default=os.path.join(ROOT, "config/ssd_mobilenet_v2_fpnlite_finetune.yaml"))
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--side", help="measure one side alone, own or plain, and print its numbers")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.recipe, options.steps, options.side)))
        return
    own, plain = (in_fresh_process(os.path.abspath(__file__), f"--recipe={options.recipe}", f"--steps={options.steps}",
                                   f"--side={side}") for side in ("own", "plain"))
    what = f"train step of {os.path.basename(options.recipe)}"
    report([row(f"{what}, {kind}", ours=own[kind], peer=plain[kind], unit="s", compared_with="--cpu_kernels=plain")
            for kind in ("wall time", "CPU time")], options.json)


def measure(recipe, steps, side):
    """Median seconds of a step, by the clock and of the processor."""
    from src.config import read_options
    options = read_options([f"--config_path={recipe}", "--device_target=CPU", f"--cpu_kernels={side}",
                            "--amp_level=O0"], "train.py", doc=__doc__)
    from src.machine import process
    process.prepare("CPU")
    import mindspore as ms
    ms.set_context(mode=ms.GRAPH_MODE)
    step, batch = build(options)
    seconds, processor = [], []
    for _ in range(steps + 2):
        began = time.perf_counter(), time.process_time()
        step(*batch).asnumpy()
        seconds.append(time.perf_counter() - began[0])
        processor.append(time.process_time() - began[1])
    return {"wall time": statistics.median(seconds[2:]), "CPU time": statistics.median(processor[2:]),
            "first": seconds[0]}


def build(options):
    """The TrainStep and a batch of random images, labels with one positive in a hundred, and targets."""
    import mindspore as ms
    from easydict import EasyDict

    from src.training import build as parts
    log = EasyDict(say=print)
    untrained = EasyDict({**options, "pre_trained": ""})
    model, _ = parts.build_training_model(untrained, ["a", "b", "c"], log=log, world=1)
    library = parts.choose_kernels(options, model, log)
    if options.cpu_kernels == "own" and not library:
        raise SystemExit("error: no kernels")
    step = parts.build_step(options, model, np.full(1000, options.lr_init, np.float32), world=1, kernels=library)
    step.set_train()
    rng, size, anchors = np.random.default_rng(0), model.image_size, len(model.anchors)
    batch = (rng.integers(0, 256, (options.batch_size, size, size, 3), np.uint8),
             (rng.random((options.batch_size, anchors)) < 0.01).astype(np.int32),
             rng.normal(size=(options.batch_size, anchors, 4)).astype(np.float32), np.float32(0))
    return step, [ms.Tensor(part) for part in batch]


if __name__ == "__main__":
    main()
