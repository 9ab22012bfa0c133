"""What float16 cannot hold: sums of squares and small limits are computed in float32, in training and in files."""
import mindspore as ms
import numpy as np
import onnx
import pytest
from mindspore import nn

from src.export.onnx_graph import run_graph
from src.export.quantize import to_float16
from src.models.layers import L2Norm, UpsampleTwice
from src.models.precision import mixed_precision
from src.models.ssd import Model

LENGTHS = {12.0: 20 / 512 ** 0.5, 0.0: 0.0, 300.0: 20 / 512 ** 0.5, 1e-6: 20 / 512 ** 0.5}  # of equal channels


class Wrapped(nn.Cell):
    """A network around the norm, as amp takes it, and the sum of what comes out."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def construct(self, x):
        return self.network(x).astype(ms.float32).sum()


def cast(network, level):
    """The network as amp_level says."""
    return mixed_precision(Model(name="any", network=network, anchors=None, image_size=8, num_classes=2), level).network


@pytest.mark.parametrize("level", ["O0", "O2", "O3"])
@pytest.mark.parametrize("value", LENGTHS)
def test_lengths_in_float16(mode, level, value):
    network = cast(nn.SequentialCell(nn.Identity(), L2Norm(512)), level)
    x = ms.Tensor(np.full((1, 512, 2, 1), value, np.float16))
    y = network(x).asnumpy()
    assert y.ravel() == pytest.approx(np.full(1024, LENGTHS[value]), rel=2e-3)
    gradient = ms.grad(Wrapped(network))(x).asnumpy()
    assert np.isfinite(gradient).all()
    weights = ms.grad(Wrapped(network), None, network.trainable_params())(x)
    assert weights[0].asnumpy() == pytest.approx(np.full(512, 2 * LENGTHS[value] / 20), rel=2e-3)


def test_lengths_by_hand(mode):
    x = np.zeros((1, 4, 1, 3), np.float32)
    x[0, :, 0, 0] = 3, 0, 4, 0     # length 5
    x[0, :, 0, 1] = 1e15, 0, 0, 0  # the square of which float32 holds
    norm = L2Norm(4, scale=2.0)
    assert np.allclose(norm(ms.Tensor(x)).asnumpy()[0, :, 0].T, [[1.2, 0, 1.6, 0], [2, 0, 0, 0], [0, 0, 0, 0]])

    def first(values):
        return norm(values)[:, 0].sum()
    # d (2 a / length) / da = 2 / 5 - 2 a a / 125, / dc = -2 a c / 125; of no length: as of length 1
    gradient = ms.grad(first)(ms.Tensor(x)).asnumpy()[0, :, 0].T
    assert np.allclose(gradient, [[0.256, 0, -0.192, 0], [0, 0, 0, 0], [2, 0, 0, 0]], atol=1e-6)


def test_a_float16_file_keeps_lengths_in_float32(tmp_path):
    network = nn.SequentialCell(nn.Conv2d(3, 512, 1, weight_init="ones"), L2Norm(512))
    network.set_train(False)
    x = np.full((1, 3, 1, 3), (4.0, 0.0, 100.0), np.float32)  # 12, 0 and 300 after the convolution
    ms.onnx.export(network, ms.Tensor(x), file_name=str(tmp_path / "n.onnx"), input_names=["images"])
    graph = onnx.load(tmp_path / "n.onnx")
    for model in (graph, to_float16(graph, 1)):
        found = run_graph(model, x)[0]
        assert np.allclose(found[0, :, 0], [20 / 512 ** 0.5, 0, 20 / 512 ** 0.5], rtol=2e-3)


def test_upsampling_of_large_values_in_float16(mode):
    x = ms.Tensor(np.array([[[[6e4, 5e4]] * 2]], np.float16))  # their sum is more than 65504
    assert UpsampleTwice()(x).asnumpy()[0, 0].tolist() == [[60000, 54976, 49984, 49984]] * 4
