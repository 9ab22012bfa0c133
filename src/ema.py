"""The moving average of the weights."""
import contextlib
from collections.abc import Iterator

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore import dtype as mstype

PREFIX = "ema"

follow = ops.MultitypeFuncGraph("follow")  # a plain function would lose its assignment in a compiled step


@follow.register("Tensor", "Tensor", "Tensor")
def _follow(rest: Tensor, average: Tensor, weight: Tensor):
    return ops.assign_add(average, rest * (weight - average))


class WeightAverage(nn.Cell):
    """Follows all parameters of a network, statistics of BatchNorm too; a call comes after each update.

    average = d * average + (1 - d) * weight with d = min(decay, (1 + t) / (10 + t)) at update t = 0, 1, ..:
    tf.train.ExponentialMovingAverage with num_updates. An average is named "ema." and the name of its parameter.
    """

    def __init__(self, network: nn.Cell, decay: float):
        super().__init__(auto_prefix=False)
        self.decay = decay
        self.weights = ParameterTuple(network.get_parameters())
        self.averages = self.weights.clone(PREFIX, init="same")
        for average in self.averages:
            average.requires_grad = False
        self.updates = Parameter(Tensor(0, mstype.float32), name=f"{PREFIX}_updates", requires_grad=False)
        self.map = ops.HyperMap()

    def construct(self) -> tuple:
        rest = self.next_rest()
        ops.assign_add(self.updates, 1.0)
        return self.map(ops.partial(follow, rest), self.averages, self.weights)

    def next_rest(self) -> Tensor:
        """1 - d of the next update."""
        return 1 - ops.minimum((1 + self.updates) / (10 + self.updates), self.decay)

    def restart(self) -> None:
        """Lets the averages be the weights, as at the first update."""
        for weight, average in zip(self.weights, self.averages):
            average.set_data(Tensor(weight.asnumpy()))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside this context the network computes with the averages."""
        held = [weight.asnumpy().copy() for weight in self.weights]
        try:
            for weight, average in zip(self.weights, self.averages):
                weight.set_data(Tensor(average.asnumpy()))
            yield
        finally:
            for weight, values in zip(self.weights, held):
                weight.set_data(Tensor(values))


def averaged(values: dict) -> dict:
    """{name: array} of a checkpoint with the averages, where it has them, in the place of the weights."""
    kept = {name: value for name, value in values.items() if not name.startswith(f"{PREFIX}.")}
    return {name: values.get(f"{PREFIX}.{name}", value) for name, value in kept.items()}
