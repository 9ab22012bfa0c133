"""Sizes of the models: parameters, multiply-accumulates, anchors.

    python scripts/model_info.py                            a table of all models
    python scripts/model_info.py --model=ssd300_resnet50    one, level by level

--classes=voc, --image_size and --width change what is counted, --freeze_layer what counts as trained, --anchors=FILE
the anchors of one model; without --classes there are the 80 of COCO. GMACs are billions of multiply-accumulates of the
convolutions on one image: other tools print FLOPs, which are twice as many, or call MACs FLOPs.
"""
from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.classes import COCO_CLASSES
from src.config import read_options
from src.errors import OptionError, run_main
from src.machine import process
from src.text import split_names

if TYPE_CHECKING:
    import mindspore as ms
    from mindspore import Parameter, nn

    from src.models.ssd import Model

PARTS = ("backbone", "neck", "head")


class Sizes(NamedTuple):
    """What is counted of a model."""
    parameters: int          # numbers that can be trained
    trained: int             # those that freeze_layer leaves
    macs: dict[str, int]     # multiply-accumulates by part of the network


def main() -> None:
    """Reads the options, prints a table of all models or one model in detail."""
    options = read_options(sys.argv[1:], "scripts/model_info.py", doc=__doc__, strict=True)
    process.prepare()
    from src.models.ssd import BUILDERS, build_model
    from src.training.anchors import with_file

    classes = len(options.classes or COCO_CLASSES) + 1
    if "model" in options.typed or options.config_path:
        model = build_model(options.model, classes, image_size=options.image_size, width=options.width)
        if options.anchors not in ("", "auto"):
            model = with_file(model, options.anchors)
        print(describe_model(model, measure(model, options.freeze_layer)))
        if options.anchors == "auto":
            print("  --anchors=auto changes these sizes in training, to fit its boxes")
        return
    if options.anchors:
        raise OptionError(f"--anchors={options.anchors} is for one model; add --model=NAME")
    print(f"{classes} classes with the background; GMACs are multiply-accumulates, not FLOPs\n")
    print(f"{'model':<26}{'input':>6}{'anchors':>9}{'parameters':>13}{'trained':>13}{'GMACs':>9}")
    for name in BUILDERS:
        model = build_model(name, classes, image_size=options.image_size, width=options.width)
        sizes = measure(model, options.freeze_layer)
        print(f"{name:<26}{model.image_size:>6}{len(model.anchors):>9,}{sizes.parameters:>13,}{sizes.trained:>13,}"
              f"{sum(sizes.macs.values()) / 1e9:>9.3f}", flush=True)


def measure(model: Model, freeze_layer: str) -> Sizes:
    """Counts parameters and multiply-accumulates of a model; freezes layers of it."""
    from src.models.freeze import freeze_layers

    parameters = count_values(model.network.trainable_params())
    freeze_layers(model.network, split_names(freeze_layer))
    trained = count_values(model.network.trainable_params())
    return Sizes(parameters, trained, count_macs(model.network, model.image_size))


def count_values(parameters: Iterable[Parameter]) -> int:
    """Numbers in some parameters."""
    return sum(parameter.size for parameter in parameters)


def count_macs(network: nn.Cell, image_size: int) -> dict[str, int]:
    """Multiply-accumulates of the convolutions on one image, counted while it runs: {part of the network: count}.

    An output value of a convolution takes (input channels / groups) * kernel height * kernel width of them. Biases,
    norms and activations are left out, as in the published counts. A shared convolution counts at every call.
    """
    import mindspore as ms
    from mindspore import nn
    ms.set_context(mode=ms.PYNATIVE_MODE)  # hooks do not run in a compiled graph
    macs, hooks = dict.fromkeys(PARTS, 0), []

    def counter(part: str) -> Callable:
        def count(cell: nn.Conv2d, inputs: tuple, output: ms.Tensor) -> None:
            macs[part] += output.size * (cell.in_channels // cell.group) * int(np.prod(cell.kernel_size))
        return count

    for name, cell in network.cells_and_names():
        if isinstance(cell, nn.Conv2d):
            hooks.append(cell.register_forward_hook(counter(name.split(".")[0])))
    network.set_train(False)
    network(ms.ops.zeros((1, 3, image_size, image_size), ms.float32))
    for hook in hooks:
        hook.remove()
    return macs


def describe_model(model: Model, sizes: Sizes) -> str:
    """One model as text."""
    others = count_values(model.network.get_parameters()) - sizes.parameters
    parts = ", ".join(f"{part} {count / 1e9:.3f}" for part, count in sizes.macs.items())
    lines = [
        f"{model.name}: {model.image_size} x {model.image_size}, {model.num_classes} classes with the background, "
        f"{model.score} scores",
        f"  parameters  {sizes.parameters:,}, {sizes.trained:,} of them trained; {others:,} running statistics more",
        f"  GMACs       {sum(sizes.macs.values()) / 1e9:.3f} ({parts}): multiply-accumulates an image, not FLOPs",
        f"  anchors     {len(model.anchors):,}",
        "  cells      a cell  anchors  width x height in pixels"]
    for _, side, shapes in model.levels():
        cells, count = f"{side} x {side}", side * side * len(shapes)
        pixels = "  ".join(f"{width:.0f}x{height:.0f}" for width, height in shapes * model.image_size)
        lines.append(f"  {cells:<10} {len(shapes):>6} {count:>8,}  {pixels}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
