"""The moving average of the weights, by hand."""
import mindspore as ms
import numpy as np
from mindspore import nn

from src.ema import WeightAverage, averaged


class Two(nn.Cell):
    """A weight that is trained and a statistic that is not."""

    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(ms.Tensor([1.0, 2.0], ms.float32), name="weight")
        self.mean = ms.Parameter(ms.Tensor([4.0], ms.float32), name="mean", requires_grad=False)


def test_the_average_follows_faster_at_first(mode):
    network = Two()
    average = WeightAverage(network, 0.15)
    network.weight.set_data(ms.Tensor([2.0, 4.0], ms.float32))
    network.mean.set_data(ms.Tensor([0.0], ms.float32))
    average()  # d = 1 / 10
    assert np.allclose(average.averages[0].asnumpy(), [1.9, 3.8]) and np.allclose(average.averages[1].asnumpy(), 0.4)
    average()  # d = min(.15, 2 / 11)
    assert np.allclose(average.averages[0].asnumpy(), [2 - 0.15 * 0.1, 4 - 0.15 * 0.2])
    assert [parameter.name for parameter in average.averages] == ["ema.weight", "ema.mean"]
    assert average.updates.asnumpy() == 2
    assert not average.trainable_params() or {parameter.name for parameter in average.trainable_params()} == {"weight"}


def test_the_network_takes_the_averages_and_gives_them_back():
    network = Two()
    average = WeightAverage(network, 0.5)
    network.weight.set_data(ms.Tensor([5.0, 5.0], ms.float32))
    with average.in_place():
        assert np.allclose(network.weight.asnumpy(), [1, 2])
    assert np.allclose(network.weight.asnumpy(), 5) and np.allclose(average.averages[0].asnumpy(), [1, 2])


def test_averages_of_a_checkpoint_replace_its_weights():
    values = {"a": 1, "ema.a": 2, "moments.a": 3, "b": 4}
    assert averaged(values) == {"a": 2, "moments.a": 3, "b": 4}
