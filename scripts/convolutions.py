"""Outputs and gradients of some convolutions on a device, for scripts/gpu_check.py to compare with the CPU's.

    python scripts/convolutions.py FILE.npz [--device=GPU]
"""
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.arguments import ArgumentParser
from src.errors import run_main
from src.files import expand_home
from src.machine import process

# name, input channels, output channels, kernel, stride, groups, side
CONVOLUTIONS = (("3x3", 64, 64, 3, 1, 1, 75), ("depthwise", 96, 96, 3, 2, 96, 75), ("7x7", 3, 64, 7, 2, 1, 150))


def main():
    """Reads the command line and computes."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("path", type=expand_home, help=".npz file to write")
    parser.add_argument("--device", choices=("GPU", "CPU"), default="GPU")
    options = parser.parse_args()
    convolve(options.path, options.device)


def convolve(path, device):
    """Writes outputs and gradients of CONVOLUTIONS on a device as .npz."""
    process.prepare(device)
    import mindspore as ms

    from src.machine import distributed
    distributed.start(device)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    rng, results = np.random.default_rng(1), {}
    for name, channels, filters, kernel, stride, groups, side in CONVOLUTIONS:
        images = ms.Tensor(rng.normal(size=(4, channels, side, side)), ms.float32)
        layer = ms.nn.Conv2d(channels, filters, kernel, stride, pad_mode="pad", padding=kernel // 2, group=groups)
        layer.weight.set_data(ms.Tensor(rng.normal(size=layer.weight.shape), ms.float32))
        forward = ms.ops.value_and_grad(lambda x, layer=layer: (layer(x) ** 2).mean(), 0, layer.trainable_params())
        value, (inner, (outer,)) = forward(images)
        results.update({f"{name} {what}": one.asnumpy() for what, one in
                        (("loss", value), ("output", layer(images)), ("input gradient", inner), ("gradient", outer))})
    np.savez(path, **results)


if __name__ == "__main__":
    run_main(main)
