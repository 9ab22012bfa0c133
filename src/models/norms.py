"""What the normalisations of a network do in training beside taking the statistics of their own batch."""
from mindspore import nn, ops

from src.errors import OptionError

STATISTICS = (".moving_mean", ".moving_variance")  # endings of the names of what BatchNorm keeps of its batches


def choose_norms(network, kind, world):
    """kind: "own" leaves a network as it is, "frozen" and "sync" are the functions below."""
    if kind == "frozen":
        freeze_norms(network)
    elif kind == "sync" and world > 1:
        synchronise_norms(network, world)


def freeze_norms(network, prefix=""):
    """Normalises with the stored statistics, which stay as they are, and trains neither gamma nor beta.

    prefix: of names of cells, ends at a dot; "" is the whole network. The frozen BatchNorm of detectors with few images
    a batch (https://arxiv.org/abs/1703.06870 section 3.1, torchvision's FrozenBatchNorm2d).
    """
    for name, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d) and f"{name}.".startswith(f"{prefix}." if prefix else ""):
            cell.use_batch_statistics = False
            cell.gamma.requires_grad = cell.beta.requires_grad = False


def synchronise_norms(network, world):
    """Takes the statistics over the batches of all `world` processes, which must have formed their cluster."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d):
            cell.world, cell.all_reduce = world, ops.AllReduce()


def split_names(text):
    """"backbone, neck" -> ["backbone", "neck"]"""
    return [name.strip() for name in text.split(",") if name.strip()]


def freeze(network, prefixes):
    """Takes the parameters whose names start with one of the prefixes out of training, their BatchNorm statistics too.

    prefixes: list such as ["backbone.layer1"]; a prefix ends at a dot. Returns the number of frozen parameters.
    Raises OptionError when a prefix names nothing or nothing is left to train.
    """
    frozen = 0
    for prefix in prefixes:
        inside = [one for one in network.get_parameters() if f"{one.name}.".startswith(f"{prefix}.")]
        if not inside:
            known = sorted({".".join(one.name.split(".")[:2]) for one in network.get_parameters()})
            raise OptionError(f"freeze_layer={prefix}: no parameter starts so; known are {', '.join(known)}")
        for parameter in inside:
            parameter.requires_grad = False
        frozen += len(inside)
        freeze_norms(network, prefix)
    if not network.trainable_params():
        raise OptionError(f"freeze_layer={','.join(prefixes)}: nothing is left to train")
    return frozen
