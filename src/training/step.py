"""The training step as one Cell."""
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

from src.machine import compat
from src.models.layers import Normalize

NUMBERS = ("loss", "loss_cls", "loss_box", "positives", "own_loss", "finite", "grad_norm", "loss_scale", "stops")
GROW_AFTER = 2000        # good steps before a dynamic loss scale doubles (https://arxiv.org/abs/1710.03740 section 3.2)
# plain functions would lose their assignments in a compiled step
add_weighted, clear = ops.MultitypeFuncGraph("add_weighted"), ops.MultitypeFuncGraph("clear")


class TrainStep(nn.Cell):
    """One step: normalise, forward, loss, gradients, all-reduce, unscale, check, clip, update.

    images [B, S, S, 3] uint8, labels [B, A] int32, targets [B, A, 4] float32, stop: float32 scalar, 1 asks all
    processes to stop -> [9] float32, NUMBERS: loss, its two parts and the positives (means over the processes), the
    loss of this process, 1 when gradients were finite, their L2 norm before clipping, the loss scale, how many
    processes ask to stop.
    An update with a gradient that is not finite is left out, but its step counts for the learning rates: that of step k
    is the k-th, and a run reaches the last one. With `dynamic` the loss scale halves then and doubles
    after GROW_AFTER good steps. Gradients are averaged over processes, unscaled, then clipped to the global L2 norm
    `grad_clip` (0: not), before weight decay: the order of the published recipe; then each number to
    +-grad_clip_value (0: not).
    weigh: the loss was divided by the positives of its batch (at least 1), and shall count as if it had been divided by
    those of all processes and micro-steps. micro_steps: an update follows every so many calls, the others only add
    their gradients up and return zeros. average: an ema.WeightAverage that follows the updates, or None.
    """

    def __init__(self, model, loss, optimizer, loss_scale=1.0, dynamic=False, grad_clip=0.0, world=1, weigh=True,
                 micro_steps=1, grad_clip_value=0.0, average=None):
        super().__init__(auto_prefix=False)
        self.network, self.loss, self.optimizer, self.average = model.network, loss, optimizer, average
        self.normalize = Normalize(model.mean, model.std)
        self.dynamic, self.world, self.weigh, self.micro_steps = dynamic, world, weigh, micro_steps
        self.grad_clip, self.grad_clip_value = grad_clip, grad_clip_value
        self.loss_scale = Parameter(Tensor(loss_scale, mstype.float32), name="loss_scale", requires_grad=False)
        self.good_steps = Parameter(Tensor(0, mstype.int32), name="good_steps", requires_grad=False)
        self.gradients = ops.value_and_grad(self.scaled_loss, None, optimizer.parameters, has_aux=True)
        self.map = ops.HyperMap()
        self.reduce = nn.DistributedGradReducer(optimizer.parameters, mean=True) if world > 1 else None
        self.all_reduce = ops.AllReduce() if world > 1 else None
        if micro_steps > 1:
            self.sums = optimizer.parameters.clone("micro_sum", init="zeros")
            self.part_sums = Parameter(Tensor([0.0] * 4, mstype.float32), name="micro_parts", requires_grad=False)
            self.calls = Parameter(Tensor(0, mstype.int32), name="micro_calls", requires_grad=False)

    def start_at(self, step):
        """Makes the step with this number the next one for the optimiser, which takes its learning rate from that.

        Before the first step alone: once a graph has run, set_data no longer reaches so small a parameter.
        """
        self.optimizer.global_step.set_data(Tensor([step], mstype.int32))

    def rate(self, rates):
        """The learning rate of the last step by the optimiser's own count. rates: what the optimiser was built with."""
        return float(rates[int(self.optimizer.global_step.asnumpy()[0]) - 1])

    def scaled_loss(self, images, labels, targets):
        """The loss times the loss scale, and its parts as they are."""
        logits, deltas = self.network(self.normalize(images))
        loss, classification, box, count = self.loss(logits, deltas, labels, targets)
        share = self.share(ops.stop_gradient(count))
        parts = ops.stack((loss * share, classification * share, box * share, count))
        return loss * share * self.loss_scale, parts

    def share(self, count):
        """What the mean over the processes has to count this one with: its positives by the mean of theirs."""
        if not self.weigh or self.world == 1 or self.micro_steps > 1:
            return 1.0
        return ops.maximum(count, 1.0) * self.world / ops.maximum(self.all_reduce(count), 1.0)

    def construct(self, images, labels, targets, stop):
        (_, parts), gradients = self.gradients(images, labels, targets)
        if self.micro_steps == 1:
            return self.update(gradients, parts, stop)
        weight = ops.maximum(parts[3:], 1.0) if self.weigh else ops.ones((1,), mstype.float32)
        self.map(ops.partial(add_weighted, weight), self.sums, gradients)
        ops.assign_add(self.part_sums, ops.concat((parts[:3] * weight, parts[3:])))
        ops.assign_add(self.calls, 1)
        numbers = ops.zeros((len(NUMBERS),), mstype.float32)
        if self.calls >= self.micro_steps:
            numbers = self.update_from_sums(stop)
        return numbers

    def update_from_sums(self, stop):
        """The update of all micro-steps since the last one."""
        unit = compat.full((1,), 1.0 / self.micro_steps, dtype=mstype.float32)
        if self.weigh:
            positives = self.part_sums[3:]
            unit = 1.0 / ops.maximum(positives if self.world == 1 else self.all_reduce(positives) / self.world,
                                     1.0 / self.world)
        parts = ops.concat((self.part_sums[:3] * unit, self.part_sums[3:]))
        numbers = self.update(self.map(ops.partial(multiply, unit), self.sums), parts, stop)
        self.map(clear, self.sums)
        ops.assign(self.part_sums, ops.zeros_like(self.part_sums))
        ops.assign(self.calls, ops.zeros_like(self.calls))
        return numbers

    def update(self, gradients, parts, stop):
        """Averages, checks and clips gradients that are still scaled, and moves the weights. Returns NUMBERS."""
        if self.reduce is not None:
            gradients = self.reduce(gradients)
        scale = self.loss_scale * 1.0
        # One pass for norm and check, one for unscaling and clipping: each pass costs seconds of compiling.
        norm = ops.sqrt(ops.addn(self.map(squared_sum, gradients))) / scale
        finite = ops.isfinite(norm)
        factor = 1.0 / scale
        if self.grad_clip > 0:
            factor = factor * self.grad_clip / ops.maximum(norm, self.grad_clip)
        gradients = self.map(ops.partial(multiply, factor), gradients)
        if self.grad_clip_value > 0:
            gradients = self.map(ops.partial(clamp, self.grad_clip_value), gradients)
        if finite:
            self.optimizer(gradients)
            if self.average is not None:
                self.average()
        ops.assign_add(self.optimizer.global_step, (1 - finite.astype(mstype.int32)).reshape((1,)))
        if self.dynamic:
            self.adjust_scale(finite)
        shared = ops.concat((parts, stop.reshape((1,))))
        if self.all_reduce is not None:
            shared = self.all_reduce(shared)
        state = ops.stack((parts[0], finite.astype(mstype.float32), norm, scale))
        return ops.concat((shared[:4] / self.world, state, shared[4:]))

    def adjust_scale(self, finite):
        """Halves the loss scale after an overflow, doubles it after GROW_AFTER steps without one."""
        good = ops.select(finite, self.good_steps + 1, ops.zeros_like(self.good_steps))
        grow = good >= GROW_AFTER
        smaller = ops.maximum(self.loss_scale / 2, ops.ones((), mstype.float32))
        scale = ops.select(finite, ops.select(grow, self.loss_scale * 2, self.loss_scale * 1.0), smaller)
        ops.assign(self.loss_scale, scale)
        return ops.assign(self.good_steps, ops.select(grow, ops.zeros_like(good), good))


def squared_sum(gradient):
    """Sum of squares as a float32 scalar."""
    return ops.square(gradient.astype(mstype.float32)).sum()


def multiply(factor, gradient):
    """gradient * factor in the type of the gradient."""
    return gradient * factor.astype(gradient.dtype)


def clamp(limit, gradient):
    """Each number of a gradient within +-limit."""
    return compat.clamp(gradient, -limit, limit)


@add_weighted.register("Tensor", "Tensor", "Tensor")
def add_weighted_one(weight, total, gradient):
    """total += weight * gradient, in float32."""
    return ops.assign_add(total, gradient.astype(mstype.float32) * weight)


@clear.register("Tensor")
def clear_one(total):
    """total = 0."""
    return ops.assign(total, ops.zeros_like(total))


def run_step(step, batch, stop):
    """One update with the arrays of a batch, cut into the micro-steps of a TrainStep. Returns NUMBERS as a dict."""
    flag = Tensor(float(stop), mstype.float32)
    for part in zip(*(np.split(array, step.micro_steps) for array in batch)):
        numbers = step(*map(Tensor, part), flag)
    return dict(zip(NUMBERS, numbers.asnumpy().tolist()))
