"""What training leaves as it is in a network, and where its norms take their statistics from."""
from __future__ import annotations

from collections.abc import Sequence

from mindspore import nn, ops

from src.errors import OptionError

FROZEN_NORMS = {"frozen": "", "frozen_backbone": "backbone"}  # kinds of choose_norms -> where norms stay as they are
STATISTICS = (".moving_mean", ".moving_variance")  # endings of the names of what BatchNorm keeps of its batches


def freeze_layers(network: nn.Cell, prefixes: Sequence[str]) -> int:
    """Takes the parameters whose names start with one of the prefixes out of training, their BatchNorm statistics too.

    prefixes: list such as ["backbone.layer1"]; a prefix ends at a dot. Returns the number of frozen parameters.
    Raises OptionError when a prefix names nothing or nothing is left to train.
    """
    frozen = 0
    for prefix in prefixes:
        inside = [parameter for parameter in network.get_parameters() if starts_with(parameter.name, prefix)]
        if not inside:
            known = sorted({".".join(parameter.name.split(".")[:2]) for parameter in network.get_parameters()})
            raise OptionError(f"--freeze_layer={prefix}: no parameter starts so; known are {', '.join(known)}")
        for parameter in inside:
            parameter.requires_grad = False
        frozen += len(inside)
        freeze_norms(network, prefix)
    if not network.trainable_params():
        raise OptionError(f"--freeze_layer={','.join(prefixes)}: nothing is left to train")
    return frozen


def choose_norms(network: nn.Cell, kind: str, world: int) -> None:
    """kind: "own" takes the statistics of each process, "sync" those over all `world` processes.

    A kind of FROZEN_NORMS takes the stored ones: everywhere, or in the backbone, where neck and head are new and have
    none yet.
    """
    if kind in FROZEN_NORMS:
        freeze_norms(network, FROZEN_NORMS[kind])
    elif kind == "sync" and world > 1:
        synchronise_norms(network, world)


def hasten_norms(network: nn.Cell, momentum: float) -> None:
    """Lets the running statistics follow the batches with this momentum, the weight 0..1 of the old value."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d):
            cell.momentum = 1 - momentum  # MindSpore keeps the weight of the new value, here and in its operator
            cell.bn_train = ops.BatchNorm(is_training=True, epsilon=cell.eps, momentum=cell.momentum)


def synchronise_norms(network: nn.Cell, world: int) -> None:
    """Takes the statistics over the batches of all `world` processes, which must have formed their cluster."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d):
            cell.world, cell.all_reduce = world, ops.AllReduce()


def freeze_norms(network: nn.Cell, prefix: str = "") -> None:
    """Normalises with the stored statistics, which stay as they are, and trains neither gamma nor beta.

    prefix: of names of cells, ends at a dot; "" is the entire network. The frozen BatchNorm of detectors with few
    images per batch (https://arxiv.org/abs/1703.06870 section 3.1, torchvision's FrozenBatchNorm2d).
    """
    for name, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d) and (not prefix or starts_with(name, prefix)):
            cell.use_batch_statistics = False
            cell.gamma.requires_grad = cell.beta.requires_grad = False


def starts_with(name: str, prefix: str) -> bool:
    """Whether the dotted name is the prefix or lies below it."""
    return f"{name}.".startswith(f"{prefix}.")
