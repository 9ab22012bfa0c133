"""The CPU train step of SSD300-ResNet50 against PyTorch.

    python bench/train_step.py [--batch_sizes=4,8] [--steps=5] [--json=FILE]         needs requirements-bench.txt

The whole step on 300 pixels and 81 classes in float32: normalisation, forward, multibox loss, backward, momentum SGD
with weight decay. Same layers and loss on both sides (bench/torch_peer.py; parameters are counted and must be equal).
Every side runs in a fresh process; the time is the median after the first step, which in MindSpore compiles.
"""
import json
import os

import numpy as np
from common import arguments, in_fresh_process, median_seconds, report, row

LR, MOMENTUM, DECAY = 1e-3, 0.9, 5e-4


def main():
    """Runs all sides in turn."""
    parser = arguments(__doc__)
    parser.add_argument("--batch_sizes", default="4,8")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--side", help="measure one side alone and print its number")
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    if options.side:
        print(json.dumps({"ours": ours, "pytorch": pytorch}[options.side](options.batch, options.steps)))
        return
    rows = []
    for batch in options.batch_sizes.split(","):
        here = os.path.abspath(__file__), f"--batch={batch}"
        mine = in_fresh_process(*here, "--side=ours", f"--steps={options.steps}")
        peer = in_fresh_process(*here, "--side=pytorch", f"--steps={options.steps}")
        if mine["parameters"] != peer["parameters"]:
            raise SystemExit(f"error: {mine['parameters']} parameters against {peer['parameters']}")
        name = f"train step ssd300_resnet50, batch {batch}, CPU"
        rows.append(row(name, ours=mine["seconds"], peer=peer["seconds"], unit="s", compared_with="PyTorch"))
    report(rows, options.json)


def batch_of(size):
    """Random images uint8, labels with one positive in a hundred, targets."""
    rng = np.random.default_rng(0)
    return (rng.integers(0, 256, (size, 300, 300, 3), np.uint8), (rng.random((size, 8732)) < 0.01).astype(np.int32),
            rng.normal(size=(size, 8732, 4)).astype(np.float32))


def ours(size, steps):
    """The TrainStep of train.py."""
    from src.machine import process
    process.prepare("CPU")
    import mindspore as ms

    from src.losses import DetectionLoss, MultiBoxLoss
    from src.models.ssd import build_model
    from src.optim import build_optimizer
    from src.training.step import TrainStep
    ms.set_context(mode=ms.GRAPH_MODE)
    model = build_model("ssd300_resnet50", 81)
    parameters = model.network.trainable_params()
    optimizer = build_optimizer(parameters, np.full(steps + 1, LR, np.float32), kind="momentum", momentum=MOMENTUM,
                                weight_decay=DECAY, decay_exclude="none")
    step = TrainStep(model, DetectionLoss(MultiBoxLoss()), optimizer)
    step.set_train()
    batch = [ms.Tensor(part) for part in (*batch_of(size), np.float32(0))]
    seconds = median_seconds(lambda: step(*batch).asnumpy(), steps)
    return {"seconds": seconds, "parameters": sum(parameter.size for parameter in parameters)}


def pytorch(size, steps):
    """The same in PyTorch, eager, as its users train on CPU."""
    import torch
    from torch_peer import SSD300, loss
    network = SSD300().train()
    optimizer = torch.optim.SGD(network.parameters(), LR, MOMENTUM, weight_decay=DECAY)
    images, labels, targets = map(torch.from_numpy, batch_of(size))
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
