"""Counts every network once and writes src/models/facts.json: for --model=auto and the pages of costs and models.

    python scripts/model_facts.py                            all networks, about a minute
    python scripts/model_facts.py --model=ssd300_resnet50    one, the others stay as they are

Run it when a network was added or changed, then scripts/recipe_costs.py and scripts/model_cards.py. Counted with the
classes of the model's recipes: the 20 of VOC where they say so, else the 80 of COCO.
"""
from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from src.arguments import ArgumentParser
from src.errors import OptionError, run_main
from src.files import write_atomic
from src.machine import process
from src.models.facts import FACTS_PATH, read_facts

if TYPE_CHECKING:
    from mindspore import Tensor, nn

VOC_CLASSES, COCO_CLASSES = 21, 81  # with the background
OF_VOC = ("ssd300_mobilenet_v1", "ssd300_vgg16_voc", "ssd512_vgg16_voc")  # their published recipes train on VOC


def main() -> None:
    """Counts the networks asked for and writes the file."""
    process.prepare()
    from src.models.ssd import BUILDERS
    parser = ArgumentParser(__doc__)
    parser.add_argument("--model", choices=tuple(BUILDERS), help="count this one only")
    chosen = parser.parse_args().model
    known = read_facts() if os.path.exists(FACTS_PATH) else {}
    facts = {}
    for name in BUILDERS:
        if name in known and chosen not in (None, name):
            facts[name] = known[name]
        elif chosen in (None, name):
            facts[name] = count(name)
            print(f"{name}: {facts[name]['parameters']:,} parameters", flush=True)
    rows = [f'"{name}": {json.dumps(values)}' for name, values in facts.items()]
    write_atomic(FACTS_PATH, ("{\n" + ",\n".join(rows) + "\n}\n").encode())


def count(name: str) -> dict:
    """What the pages say of one network: counts of an image, of the published size."""
    from mindspore import nn
    from model_info import count_macs, count_values

    from src.models.ssd import build_model
    model = build_model(name, VOC_CLASSES if name in OF_VOC else COCO_CLASSES)
    levels = [[side, len(shapes)] for _, side, shapes in model.levels()]
    return {"image_size": model.image_size, "classes": model.num_classes, "anchors": len(model.anchors),
            "levels": levels,  # cells a side, anchors a cell
            "parameters": count_values(model.network.trainable_params()),
            "macs": sum(count_macs(model.network, model.image_size).values()),
            "activations": count_activations(model.network, model.image_size),
            "other_sizes": takes_other_sizes(name, model.image_size), "score": model.score,
            "batch_norm": any(isinstance(cell, nn.BatchNorm2d) for _, cell in model.network.cells_and_names())}


def takes_other_sizes(name: str, image_size: int) -> bool:
    """Whether a network can be built for a larger image."""
    from src.models.ssd import BUILDERS
    try:
        BUILDERS[name](2, image_size + 128)  # 128: the largest stride of the pyramids
    except OptionError:
        return False
    return True


def count_activations(network: nn.Cell, image_size: int) -> int:
    """Numbers that the layers of a network put out for one image: what the backward pass may need to keep.

    Counted are the outputs of convolutions, norms, activations and poolings. Sums and resizing between layers are left
    out; a framework that computes an activation in place, or again, keeps fewer.
    """
    import mindspore as ms
    ms.set_context(mode=ms.PYNATIVE_MODE)  # hooks do not run in a compiled graph
    sizes, hooks = [], []

    def note(cell: nn.Cell, inputs: tuple, output: Tensor) -> None:
        sizes.append(output.size)

    for _, cell in network.cells_and_names():
        if not list(cell.cells()) and not hasattr(cell, "cell_list"):
            hooks.append(cell.register_forward_hook(note))
    network.set_train(False)
    network(ms.ops.zeros((1, 3, image_size, image_size), ms.float32))
    for hook in hooks:
        hook.remove()
    return sum(sizes)


if __name__ == "__main__":
    run_main(main)
