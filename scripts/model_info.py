"""Sizes of the models: parameters, multiply-accumulates, anchors.

    python scripts/model_info.py                            a table of all models
    python scripts/model_info.py --model=ssd300_resnet50    one, level by level

--classes=voc, --image_size and --width change what is counted, --freeze_layer what counts as trained; without
--classes there are the 80 of COCO. GMACs are thousand millions of multiply-accumulates of the convolutions on one
image: other tools print FLOPs, which are twice as many, or call MACs FLOPs.
"""
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.anchors import split_levels
from src.classes import COCO_CLASSES
from src.config import read_options
from src.errors import run_main
from src.machine import process
from src.text import split_names

PARTS = ("backbone", "neck", "head")


def main():
    """Reads the options, prints a table of all models or one model in detail."""
    options = read_options(sys.argv[1:], "scripts/model_info.py", doc=__doc__, strict=True)
    process.prepare()
    from src.models.freeze import freeze_layers
    from src.models.ssd import BUILDERS, build_model

    classes = len(options.classes or COCO_CLASSES) + 1
    single = "model" in options.typed or options.config_path
    if not single:
        print(f"{classes} classes with the background; GMACs are multiply-accumulates, not FLOPs\n")
        print(f"{'model':<26}{'input':>6}{'anchors':>9}{'parameters':>13}{'trained':>13}{'GMACs':>9}")
    for name in [options.model] if single else BUILDERS:
        model = build_model(name, classes, image_size=options.image_size, width=options.width)
        parameters = count_values(model.network.trainable_params())
        freeze_layers(model.network, split_names(options.freeze_layer))
        trained = count_values(model.network.trainable_params())
        macs = count_macs(model.network, model.image_size)
        if single:
            print(describe(model, parameters, trained, macs))
        else:
            print(f"{name:<26}{model.image_size:>6}{len(model.anchors):>9,}{parameters:>13,}{trained:>13,}"
                  f"{sum(macs.values()) / 1e9:>9.3f}", flush=True)


def count_values(parameters):
    """Numbers in a list of parameters."""
    return sum(one.size for one in parameters)


def count_macs(network, image_size):
    """Multiply-accumulates of the convolutions on one image, counted while it runs -> {part of the network: count}.

    An output value of a convolution takes (input channels / groups) * kernel height * kernel width of them. Biases,
    norms and activations are left out, as in the published counts. A shared convolution counts at every call.
    """
    import mindspore as ms
    from mindspore import nn
    ms.set_context(mode=ms.PYNATIVE_MODE)  # hooks do not run in a compiled graph
    macs, hooks = dict.fromkeys(PARTS, 0), []

    def counter(part):
        def count(cell, inputs, output):
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


def describe(model, parameters, trained, macs):
    """One model as text."""
    gmacs = {part: count / 1e9 for part, count in macs.items()}
    others = count_values(model.network.get_parameters()) - parameters
    lines = [f"{model.name}: {model.image_size} x {model.image_size}, {model.num_classes} classes with the background, "
             f"{model.score} scores",
             f"  parameters  {parameters:,}, {trained:,} of them trained; {others:,} running statistics beside them",
             f"  GMACs       {sum(gmacs.values()):.3f} ("
             + ", ".join(f"{part} {count:.3f}" for part, count in gmacs.items())
             + "): multiply-accumulates an image, not FLOPs",
             f"  anchors     {len(model.anchors):,}",
             "  cells      a cell  anchors  width x height in pixels"]
    for _, side, shapes in split_levels(model.anchors):
        sizes = "  ".join(f"{w:.0f}x{h:.0f}" for w, h in shapes * model.image_size)
        lines.append(f"  {f'{side} x {side}':<10} {len(shapes):>6} {side * side * len(shapes):>8,}  {sizes}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
