"""The update of all parameters on CPU by our own kernels (machine/cpu_kernels/update.cc), in the place of thousands of
operators of MindSpore, each of which takes longer to start than to compute."""
from __future__ import annotations

import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.ops import signature

from src.ema import WeightAverage
from src.optim import SGD, RMSProp


class FusedUpdate(nn.Cell):
    """What an optimiser of optim.py and a WeightAverage do after a backward pass, in float32.

    Parameters, moments, averages and counters are theirs and stay so. library: path of the compiled kernels. limit:
    largest number of a gradient, 0 for none.
    """

    def __init__(self, library: str, optimizer: nn.Optimizer, average: WeightAverage | None, *, limit: float = 0.0):
        super().__init__(auto_prefix=False)
        self.optimizer, self.average = optimizer, average
        count, rule = len(optimizer.parameters), [limit or np.inf]
        if isinstance(optimizer, RMSProp):
            kind, rule = "rmsprop", [*rule, optimizer.decay, 1 - optimizer.decay, optimizer.epsilon]
            state = *optimizer.parameters, *optimizer.moments, *optimizer.mean_square
        else:
            kind, rule = "sgd", [*rule, float(isinstance(optimizer, SGD) and optimizer.nesterov)]
            state = *optimizer.parameters, *optimizer.moments
        self.state = ParameterTuple(state)
        decays = [float(decay) if used else 0.0 for decay, used in zip(optimizer.weight_decay, optimizer.decay_flags)]
        self.rule = Tensor(rule, mstype.float32)
        self.table = Tensor([getattr(optimizer, "factors", (1.0,) * count), decays], mstype.float32)
        self.kernel = in_place(library, kind, reads=3 + count, writes=len(state))
        if average is not None:
            count = len(average.weights)
            self.follow = in_place(library, "follow", reads=1 + count, writes=count)

    def construct(self, gradients: tuple, factor: Tensor, finite: Tensor) -> None:
        """Updates with factor * gradients, or only counts the step where finite is False."""
        done, rate = finite.astype(mstype.float32), self.optimizer.get_lr()
        now = ops.stack((rate, factor, done, done * self.optimizer.momentum))
        ops.assign_add(self.optimizer.global_step, 1)
        self.kernel(now, self.rule, self.table, *gradients, *self.state)
        if self.average is not None:
            rest = self.average.next_rest()
            self.follow((rest * done).reshape((1,)), *self.average.weights, *self.average.averages)
            ops.assign_add(self.average.updates, done)


def in_place(library: str, kind: str, *, reads: int, writes: int) -> ops.Custom:
    """The kernel of that name, which reads its first inputs and changes the others."""
    kernel = ops.Custom(f"{library}:{kind}", (1,), mstype.float32, "aot")
    kernel.set_signatures(tuple(signature.make_sig(f"x{place}", signature.sig_rw.RW_WRITE if place >= reads else
                                                   signature.sig_rw.RW_READ) for place in range(reads + writes)))
    return kernel.add_prim_attr("side_effect_mem", True)


class SquaredSum(nn.Cell):
    """The sum of the squares of all numbers in tensors, as a scalar."""

    def __init__(self, library: str):
        super().__init__()
        self.kernel = ops.Custom(f"{library}:squared_sum", (1,), mstype.float32, "aot")

    def construct(self, tensors: tuple) -> Tensor:
        return self.kernel(*tensors).reshape(())
