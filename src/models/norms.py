"""What the normalisations of a network do in training beside taking the statistics of their own batch."""
from mindspore import nn, ops

from src.models.freeze import freeze_norms

STATISTICS = (".moving_mean", ".moving_variance")  # endings of the names of what BatchNorm keeps of its batches


def choose_norms(network: nn.Cell, kind: str, world: int) -> None:
    """kind: "own" takes the statistics of each process, "sync" those over all `world` processes, "frozen" none."""
    if kind == "frozen":
        freeze_norms(network)
    elif kind == "sync" and world > 1:
        synchronise_norms(network, world)


def synchronise_norms(network: nn.Cell, world: int) -> None:
    """Takes the statistics over the batches of all `world` processes, which must have formed their cluster."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d):
            cell.world, cell.all_reduce = world, ops.AllReduce()
