"""Networks for inference: BatchNorm computed into the convolution in front of it."""
import numpy as np
from mindspore import Parameter, Tensor, nn

from src.models.layers import BatchNorm


def fold_norms(network: nn.Cell) -> int:
    """Changes the network in place; it must not be trained afterwards. Returns how many norms are gone.

    gamma * (conv(x) - mean) / deviation + beta is a convolution too, with gamma / deviation * weight and a bias. A norm
    is folded where it stands directly behind a convolution among the cells of its parent, which here means that it
    takes that convolution's output and nobody else does. Norms that share one convolution (SharedHead) stay: each would
    need a copy of the weights.
    """
    count = 0
    for _, parent in network.cells_and_names():
        before = None
        for name, cell in list(parent.name_cells().items()):
            if isinstance(before, nn.Conv2d) and isinstance(cell, BatchNorm):
                fold_norm(before, cell)
                remove_cell(parent, name)
                count += 1
            before = cell
    return count


def fold_norm(conv: nn.Conv2d, norm: BatchNorm) -> None:
    """Gives the convolution the weights and the bias with which it computes what both did. In float64, once rounded."""
    gamma, beta, mean, variance = (parameter.asnumpy().astype(np.float64) for parameter in (
        norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance))
    scale = gamma / np.sqrt(variance + norm.eps)                # [C]
    bias = conv.bias.asnumpy() if conv.has_bias else 0.0
    weight = conv.weight.asnumpy() * scale.reshape(-1, 1, 1, 1)
    conv.weight.set_data(Tensor(weight.astype(np.float32)))
    name = conv.weight.name.removesuffix("weight") + "bias"
    conv.bias = Parameter(Tensor((beta + (bias - mean) * scale).astype(np.float32)), name=name)
    conv.has_bias = True


def remove_cell(parent: nn.Cell, name: str) -> None:
    """Puts an Identity where the cell `name` of parent was."""
    if isinstance(parent, nn.SequentialCell):  # keeps a list of its cells beside their names, which are numbers
        parent[int(name)] = nn.Identity()
    else:
        setattr(parent, name, nn.Identity())
