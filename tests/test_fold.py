"""BatchNorm folded into convolutions: the same numbers from fewer operators."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from test_models import small

from src.models.fold import fold_norms
from src.models.layers import BatchNorm, batch_norm, conv_norm
from src.models.ssd import BUILDERS


def shared_norms(name):
    """Those of a SharedHead: four convolutions for five levels, in two towers or in one."""
    return 20 if "fpnlite" in name else 40 if "fpn" in name else 0


def draw(network):
    """Gives all parameters drawn values that keep the size of a signal; none is left at its start."""
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():
        if parameter.ndim == 4:
            value = rng.normal(0, (2 / np.prod(parameter.shape[1:])) ** 0.5, parameter.shape)
        else:
            kind = parameter.name.split(".")[-1]
            value = rng.uniform(0.8, 1.2, parameter.shape) if kind in ("gamma", "moving_variance") else \
                rng.normal(0, 0.1, parameter.shape)
        parameter.set_data(ms.Tensor(value.astype(np.float32)))


def norms(network):
    return [cell for _, cell in network.cells_and_names() if isinstance(cell, BatchNorm)]


@pytest.fixture(autouse=True)
def pynative():
    """Quicker than compiling each network twice."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=ms.GRAPH_MODE)


@pytest.mark.parametrize("name", BUILDERS)
def test_outputs_stay(name):
    model = small(name, 3)
    network, size, before = model.network.set_train(False), model.image_size, len(norms(model.network))
    if not before:
        assert "vgg" in name and fold_norms(network) == 0
        return
    draw(network)
    image = ms.Tensor(np.random.default_rng(1).normal(0, 1, (1, 3, size, size)).astype(np.float32))
    expected = [output.asnumpy() for output in network(image)]
    assert fold_norms(network) == before - len(norms(network))
    assert len(norms(network)) == shared_norms(name)
    for before, other in zip(expected, network(image)):
        assert np.isfinite(before).all() and before.std() > 0
        assert np.abs(before - other.asnumpy()).max() < 1e-4 * np.abs(before).max()


def test_by_hand():
    block = conv_norm(1, 1, batch_norm(eps=0.0), kernel_size=1, activation=None).set_train(False)
    values = {"0.weight": 3.0, "1.gamma": 8.0, "1.beta": 5.0, "1.moving_mean": 7.0, "1.moving_variance": 16.0}
    for parameter in block.get_parameters():
        parameter.set_data(ms.Tensor(np.full(parameter.shape, values[parameter.name], np.float32)))
    assert fold_norms(block) == 1 and fold_norms(block) == 0
    # (3 x - 7) / 4 * 8 + 5
    assert block[0].weight.asnumpy().item() == 6 and block[0].bias.asnumpy().item() == -9
    assert block(ms.ops.ones((1, 1, 1, 1), ms.float32)).asnumpy().item() == -3
    assert [parameter.name for parameter in block.get_parameters()] == ["0.weight", "0.bias"]


def test_only_a_norm_directly_behind_a_convolution():
    block = nn.SequentialCell(nn.Conv2d(1, 1, 1), nn.ReLU(), BatchNorm(1), BatchNorm(1))
    assert fold_norms(block) == 0 and len(norms(block)) == 2
