"""Builds the optimiser from parameters and plain numbers."""
from mindspore import nn, ops


class Nesterov(nn.Optimizer):
    """moment = momentum * moment + gradient, parameter -= lr * (gradient + momentum * moment): PyTorch's formula.

    MindSpore's Momentum takes use_nesterov too, and on CPU computes plain momentum with it (2.10). nesterov=False is
    plain momentum. factors: of lr, a float for each parameter.
    """

    def __init__(self, groups, lr, momentum, factors, nesterov=True):
        super().__init__(lr, groups)
        self.momentum, self.ahead, self.factors = momentum, nesterov, factors
        self.moments = self._parameters.clone("moments", init="zeros")
        self.map = ops.HyperMap()

    def construct(self, gradients):
        gradients, rate = self.decay_weight(gradients), self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        update = ops.partial(momentum_step, self.momentum, self.ahead, rate)
        return self.map(update, self.factors, self._parameters, self.moments, gradients)


class RMSProp(nn.Optimizer):
    """step = momentum * step + lr * gradient / sqrt(mean of squared gradients + epsilon), the mean starting at 0.

    Paddle's formula and numbers. MindSpore's own RMSProp starts the mean at 1 and on CPU adds epsilon outside the root
    (2.10), which makes the first updates of small gradients a thousand times larger. factors: of lr, a float for each
    parameter.
    """

    def __init__(self, groups, lr, momentum, factors, decay=0.95, epsilon=1e-6):
        super().__init__(lr, groups)
        self.decay, self.epsilon, self.momentum, self.factors = decay, epsilon, momentum, factors
        self.mean_square = self._parameters.clone("mean_square", init="zeros")
        self.moments = self._parameters.clone("moments", init="zeros")
        self.map = ops.HyperMap()

    def construct(self, gradients):
        gradients, rate = self.decay_weight(gradients), self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        update = ops.partial(rmsprop_step, self.decay, self.epsilon, self.momentum, rate)
        return self.map(update, self.factors, self._parameters, self.mean_square, self.moments, gradients)


# plain functions would lose their assignments in a compiled step
momentum_step = ops.MultitypeFuncGraph("momentum_step")
rmsprop_step = ops.MultitypeFuncGraph("rmsprop_step")


@momentum_step.register("Number", "Bool", "Tensor", "Number", "Tensor", "Tensor", "Tensor")
def momentum_one(momentum, ahead, rate, factor, parameter, moment, gradient):
    """Updates one parameter and its moment."""
    new = momentum * moment + gradient
    step = gradient + momentum * new if ahead else new
    return ops.assign(moment, new), ops.assign(parameter, parameter - rate * factor * step)


@rmsprop_step.register("Number", "Number", "Number", "Tensor", "Number", "Tensor", "Tensor", "Tensor", "Tensor")
def rmsprop_one(decay, epsilon, momentum, rate, factor, parameter, mean_square, moment, gradient):
    """Updates one parameter and its two means."""
    square = decay * mean_square + (1 - decay) * ops.square(gradient)
    step = momentum * moment + rate * factor * gradient / ops.sqrt(square + epsilon)
    return ops.assign(mean_square, square), ops.assign(moment, step), ops.assign(parameter, parameter - step)


NORMS, BIASES = (".gamma", ".beta"), (".bias",)
# endings of the names of parameters without weight decay
DECAY_EXCLUDED = {"norm": NORMS, "norm_bias": (*NORMS, *BIASES), "none": (), "body": ()}


def build_optimizer(parameters, lr, kind="momentum", momentum=0.9, weight_decay=0.0, exclude="norm", body_lr=1.0):
    """Optimiser over named parameters.

    lr: [steps] float32, read by the optimiser's own global_step. kind: momentum, nesterov (both as PyTorch's SGD) or
    rmsprop. exclude: which parameters are not decayed, of DECAY_EXCLUDED: those of norms (model zoo), of norms and
    biases (NVIDIA), none (MLPerf, caffe), all of the body (Paddle: backbone and neck). body_lr: factor of lr for the
    convolutions of the body (Paddle: .1).
    """
    parameters = list(parameters)
    groups = {True: [], False: []}
    for one in parameters:
        body = not one.name.startswith("head.")
        groups[not one.name.endswith(DECAY_EXCLUDED[exclude]) and not (exclude == "body" and body)].append(one)
    # no "lr" in a group: MindSpore would then look up the rate for every parameter, and compile for minutes
    rows = [{"params": members, "weight_decay": weight_decay if decayed else 0.0}
            for decayed, members in groups.items() if members] + [{"order_params": parameters}]
    if kind == "momentum" and body_lr == 1.0:
        return nn.Momentum(rows, lr.tolist(), momentum)
    factors = tuple(1.0 if one.name.startswith("head.") or one.name.endswith(NORMS) else body_lr for one in parameters)
    if kind == "rmsprop":
        return RMSProp(rows, lr.tolist(), momentum, factors)
    return Nesterov(rows, lr.tolist(), momentum, factors, kind == "nesterov")


