"""The CPU train step against PyTorch, with our own kernels and with MindSpore's alone.

    python bench/train_step.py [--models=ssd300_resnet50,ssd300_mobilenet_v2,demo] [--batch_sizes=4,8] [--steps=5]
        [--json=FILE]                                                              needs requirements-bench.txt

The whole step in float32 with 81 classes: normalisation, forward, multibox loss, backward, momentum SGD with weight
decay. Same layers and loss on both sides (bench/torch_peer.py; parameters are counted and must be equal). `demo` is
the network of config/demo.yaml, half as wide, at 96 pixels. Every side runs in a fresh process; the time is the median
after the first step, which in MindSpore compiles. OMP_NUM_THREADS says how many threads both sides take.
"""
import json
import os
from typing import NamedTuple

import numpy as np
from common import arguments, in_fresh_process, median_seconds, report, row

LR, MOMENTUM, DECAY = 1e-3, 0.9, 5e-4


class Case(NamedTuple):
    """A network that is measured."""
    model: str         # of src/models/ssd.py
    size: int          # of the images, pixels
    anchors: int
    width: float = 1.0


CASES = {"ssd300_resnet50": Case("ssd300_resnet50", 300, 8732),
         "ssd300_mobilenet_v2": Case("ssd300_mobilenet_v2", 300, 1917),
         "demo": Case("ssd300_mobilenet_v2", 96, 204, 0.5)}


def main():
    """Runs all sides in turn."""
    parser = arguments(__doc__)
    parser.add_argument("--models", default=",".join(CASES))
    parser.add_argument("--batch_sizes", default="4,8")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--side", help="measure one side alone, own, plain or pytorch, and print its number")
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    if options.side:
        case, measure = CASES[options.models], pytorch if options.side == "pytorch" else ours
        print(json.dumps(measure(case, options.batch, steps=options.steps, kernels=options.side)))
        return
    rows = []
    for name in options.models.split(","):
        for batch in options.batch_sizes.split(","):
            rows += compare(name, batch, options.steps)
    report(rows, options.json)


def compare(name, batch, steps):
    """The rows of one network and batch size."""
    own, plain, peer = (in_fresh_process(os.path.abspath(__file__), f"--models={name}", f"--batch={batch}",
                                         f"--steps={steps}", f"--side={side}") for side in ("own", "plain", "pytorch"))
    if own["parameters"] != peer["parameters"]:
        raise SystemExit(f"error: {own['parameters']} parameters against {peer['parameters']}")
    what = f"train step {name}, batch {batch}, CPU"
    return [row(f"{what}{note}", ours=side["seconds"], peer=peer["seconds"], unit="s", compared_with="PyTorch")
            for note, side in (("", own), (", --cpu_kernels=plain", plain))]


def batch_of(case, size):
    """Random images uint8, labels with one positive in a hundred, targets."""
    rng = np.random.default_rng(0)
    return (rng.integers(0, 256, (size, case.size, case.size, 3), np.uint8),
            (rng.random((size, case.anchors)) < 0.01).astype(np.int32),
            rng.normal(size=(size, case.anchors, 4)).astype(np.float32))


def ours(case, size, *, steps, kernels):
    """The TrainStep of train.py."""
    from src.machine import process
    process.prepare("CPU")
    import mindspore as ms

    from src.losses import DetectionLoss, MultiBoxLoss
    from src.models.cpu_kernels import try_own_kernels
    from src.models.ssd import build_model
    from src.optim import build_optimizer
    from src.training.fused_loss import use_own_losses
    from src.training.step import TrainStep
    ms.set_context(mode=ms.GRAPH_MODE)
    model = build_model(case.model, 81, image_size=case.size, width=case.width)
    library = try_own_kernels(model.network, print) if kernels == "own" else ""
    if kernels == "own" and not library:
        raise SystemExit("error: no kernels")
    parameters = model.network.trainable_params()
    optimizer = build_optimizer(parameters, np.full(steps + 1, LR, np.float32), kind="momentum", momentum=MOMENTUM,
                                weight_decay=DECAY, decay_exclude="none")
    loss = DetectionLoss(MultiBoxLoss())
    if library:
        use_own_losses(loss, library)
    step = TrainStep(model, loss, optimizer, kernels=library)
    step.set_train()
    batch = [ms.Tensor(part) for part in (*batch_of(case, size), np.float32(0))]
    seconds = median_seconds(lambda: step(*batch).asnumpy(), steps)
    return {"seconds": seconds, "parameters": sum(parameter.size for parameter in parameters)}


def pytorch(case, size, *, steps, kernels):
    """The same in PyTorch, eager, as its users train on CPU. kernels: its own."""
    import torch
    from torch_peer import SSD300, MobileSSD, loss
    network = (SSD300() if case.model == "ssd300_resnet50" else MobileSSD(width=case.width)).train()
    optimizer = torch.optim.SGD(network.parameters(), LR, MOMENTUM, weight_decay=DECAY)
    images, labels, targets = map(torch.from_numpy, batch_of(case, size))
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])

    def step():
        optimizer.zero_grad()
        value = loss(*network(((images - mean) / std).permute(0, 3, 1, 2)), labels.long(), targets)
        value.backward()
        optimizer.step()
        return value.item()

    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"seconds": median_seconds(step, steps), "parameters": parameters}


if __name__ == "__main__":
    main()
