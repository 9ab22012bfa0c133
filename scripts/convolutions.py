"""Outputs and gradients of some convolutions on a device, for scripts/gpu_check.py to compare with the CPU's.

    python scripts/convolutions.py FILE.npz [--device=GPU]
"""
import os
import sys
from typing import NamedTuple

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.arguments import ArgumentParser
from src.errors import run_main
from src.files import expand_home
from src.machine import process


class Convolution(NamedTuple):
    """A layer to try."""
    name: str
    inputs: int   # channels
    outputs: int  # channels
    kernel: int   # side in pixels
    stride: int
    groups: int
    side: int     # of the images in pixels


CONVOLUTIONS = (Convolution("3x3", 64, 64, 3, 1, 1, 75), Convolution("depthwise", 96, 96, 3, 2, 96, 75),
                Convolution("7x7", 3, 64, 7, 2, 1, 150))


def main() -> None:
    """Reads the command line and computes."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("path", type=expand_home, help=".npz file to write")
    parser.add_argument("--device", choices=("GPU", "CPU"), default="GPU")
    options = parser.parse_args()
    convolve(options.path, options.device)


def convolve(path: str, device: str) -> None:
    """Writes outputs and gradients of CONVOLUTIONS on a device as .npz."""
    process.prepare(device)
    import mindspore as ms

    from src.machine import distributed
    distributed.start(device)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    rng, results = np.random.default_rng(1), {}
    for name, inputs, outputs, kernel, stride, groups, side in CONVOLUTIONS:
        images = ms.Tensor(rng.normal(size=(4, inputs, side, side)), ms.float32)
        layer = ms.nn.Conv2d(inputs, outputs, kernel, stride, pad_mode="pad", padding=kernel // 2, group=groups)
        layer.weight.set_data(ms.Tensor(rng.normal(size=layer.weight.shape), ms.float32))
        forward = ms.ops.value_and_grad(lambda x, layer=layer: (layer(x) ** 2).mean(), 0, layer.trainable_params())
        loss, (input_gradient, (gradient,)) = forward(images)
        found = {"loss": loss, "output": layer(images), "input gradient": input_gradient, "gradient": gradient}
        results.update({f"{name} {what}": tensor.asnumpy() for what, tensor in found.items()})
    np.savez(path, **results)


if __name__ == "__main__":
    run_main(main)
