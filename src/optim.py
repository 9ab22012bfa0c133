"""Optimisers over named parameters, with the formulas of PyTorch and Paddle."""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

NORM_PARAMETERS = (".gamma", ".beta")
# endings of the names of parameters without weight decay
DECAY_EXCLUDED = {"norm": NORM_PARAMETERS, "norm_bias": (*NORM_PARAMETERS, ".bias"), "none": ()}


def build_optimizer(parameters: Iterable[Parameter], lr: np.ndarray, *, kind: str = "momentum", momentum: float = 0.9,
                    weight_decay: float = 0.0, decay_exclude: str = "norm", body_lr: float = 1.0) -> nn.Optimizer:
    """Optimiser of the parameters.

    lr: [steps] float32, read by the optimiser's own global_step; or [], one rate until it is assigned another. kind:
    momentum, nesterov (both as PyTorch's SGD) or rmsprop. decay_exclude: which parameters have no weight decay: "norm"
    those of norms (model zoo), "norm_bias" those of norms and biases (NVIDIA), "none" none (MLPerf, caffe), "body" all
    of backbone and neck (Paddle). body_lr: factor of lr for the convolutions of the body (Paddle: 0.1).
    """
    parameters = list(parameters)
    groups, factors = {False: [], True: []}, []  # by whether they are exempt from weight decay
    for parameter in parameters:
        name, body = parameter.name, not parameter.name.startswith("head.")
        exempt = body if decay_exclude == "body" else name.endswith(DECAY_EXCLUDED[decay_exclude])
        groups[exempt].append(parameter)
        factors.append(body_lr if body and not name.endswith(NORM_PARAMETERS) else 1.0)
    # no "lr" in a group: MindSpore would then look up the rate for every parameter, and compile for minutes
    rows = [{"params": members, "weight_decay": 0.0 if exempt else weight_decay}
            for exempt, members in groups.items() if members]
    rows.append({"order_params": parameters})
    if kind == "momentum" and body_lr == 1.0:
        return nn.Momentum(rows, lr.tolist(), momentum)
    if kind == "rmsprop":
        return RMSProp(rows, lr.tolist(), momentum=momentum, factors=tuple(factors))
    return SGD(rows, lr.tolist(), momentum=momentum, factors=tuple(factors), nesterov=kind == "nesterov")


class SGD(nn.Optimizer):
    """moment = momentum * moment + gradient; parameter -= lr * (gradient + momentum * moment): PyTorch's SGD.

    nesterov=False: parameter -= lr * moment. factors: of lr, a float for each parameter. MindSpore's Momentum takes
    use_nesterov too, but computes plain momentum with it on CPU (2.10).
    """

    def __init__(self, groups: list[dict], lr: list[float], *, momentum: float, factors: tuple[float, ...],
                 nesterov: bool):
        super().__init__(lr, groups)
        self.momentum, self.factors, self.nesterov = momentum, factors, nesterov
        self.moments = self._parameters.clone("moments", init="zeros")
        self.map = ops.HyperMap()

    def construct(self, gradients: tuple) -> tuple:
        gradients, rate = self.decay_weight(gradients), self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        update = ops.partial(sgd_step, self.momentum, self.nesterov, rate)
        return self.map(update, self.factors, self._parameters, self.moments, gradients)


class RMSProp(nn.Optimizer):
    """step = momentum * step + lr * gradient / sqrt(mean of squared gradients + epsilon); the mean starts at 0.

    Paddle's formula and numbers. factors: of lr, a float for each parameter. MindSpore's own RMSProp starts the mean at
    1 and adds epsilon outside the root on CPU (2.10): its first updates of small gradients are 1000 times larger.
    """
    decay, epsilon = 0.95, 1e-6

    def __init__(self, groups: list[dict], lr: list[float], *, momentum: float, factors: tuple[float, ...]):
        super().__init__(lr, groups)
        self.momentum, self.factors = momentum, factors
        self.mean_square = self._parameters.clone("mean_square", init="zeros")
        self.moments = self._parameters.clone("moments", init="zeros")
        self.map = ops.HyperMap()

    def construct(self, gradients: tuple) -> tuple:
        gradients, rate = self.decay_weight(gradients), self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        update = ops.partial(rmsprop_step, self.decay, self.epsilon, self.momentum, rate)
        return self.map(update, self.factors, self._parameters, self.mean_square, self.moments, gradients)


# HyperMap calls these by place, once for each parameter. Plain functions would lose their assignments when compiled.
sgd_step = ops.MultitypeFuncGraph("sgd_step")
rmsprop_step = ops.MultitypeFuncGraph("rmsprop_step")


@sgd_step.register("Number", "Bool", "Tensor", "Number", "Tensor", "Tensor", "Tensor")
def _sgd_step(momentum: float, nesterov: bool, rate: Tensor, factor: float, parameter: Tensor, moment: Tensor,
              gradient: Tensor):
    new_moment = momentum * moment + gradient
    step = gradient + momentum * new_moment if nesterov else new_moment
    return ops.assign(moment, new_moment), ops.assign(parameter, parameter - rate * factor * step)


@rmsprop_step.register("Number", "Number", "Number", "Tensor", "Number", "Tensor", "Tensor", "Tensor", "Tensor")
def _rmsprop_step(decay: float, epsilon: float, momentum: float, rate: Tensor, factor: float, parameter: Tensor,
                  mean_square: Tensor, moment: Tensor, gradient: Tensor):
    square = decay * mean_square + (1 - decay) * ops.square(gradient)
    step = momentum * moment + rate * factor * gradient / ops.sqrt(square + epsilon)
    return ops.assign(mean_square, square), ops.assign(moment, step), ops.assign(parameter, parameter - step)
