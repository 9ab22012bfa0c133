"""The training step as one Cell."""
from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

from src.ema import WeightAverage
from src.machine import compat
from src.models.cpu_kernels import FusedNormalize
from src.models.layers import Normalize
from src.models.ssd import Model
from src.training.fused_update import FusedUpdate, SquaredSum

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

    An update with a gradient that is not finite is skipped, but its step counts for the learning rates: step k has the
    k-th. With `dynamic` the loss scale then halves, and it doubles after GROW_AFTER good steps. Gradients are averaged
    over processes, unscaled, then clipped, before weight decay as in the published recipe: first to the global L2 norm
    grad_clip, then each number to +-grad_clip_value (0: not). global_positives: the loss is divided by the positives of
    its own batch, and the step corrects that to those of all processes and micro-steps. micro_steps: calls to one
    update; the others add up their gradients and return zeros. average: follows the updates. kernels: the library of
    the network's own ones (models/cpu_kernels.py), "" without.
    """

    def __init__(self, model: Model, loss: nn.Cell, optimizer: nn.Optimizer, *, loss_scale: float = 1.0,
                 dynamic: bool = False, grad_clip: float = 0.0, grad_clip_value: float = 0.0, world: int = 1,
                 global_positives: bool = True, micro_steps: int = 1, average: WeightAverage | None = None,
                 kernels: str = ""):
        super().__init__(auto_prefix=False)
        self.network, self.loss, self.optimizer, self.average = model.network, loss, optimizer, average
        normalize = Normalize(model.mean, model.std)
        self.normalize = FusedNormalize(kernels, normalize) if kernels else normalize
        self.dynamic, self.grad_clip, self.grad_clip_value = dynamic, grad_clip, grad_clip_value
        self.world, self.global_positives, self.micro_steps = world, global_positives, micro_steps
        self.loss_scale = Parameter(Tensor(loss_scale, mstype.float32), name="loss_scale", requires_grad=False)
        self.good_steps = Parameter(Tensor(0, mstype.int32), name="good_steps", requires_grad=False)
        self.gradients = ops.value_and_grad(self.scaled_loss, None, optimizer.parameters, has_aux=True)
        self.map = ops.HyperMap()
        self.squared_sum = SquaredSum(kernels) if kernels else None
        self.fused = FusedUpdate(kernels, optimizer, average, limit=grad_clip_value) if kernels else None
        self.reduce = nn.DistributedGradReducer(optimizer.parameters, mean=True) if world > 1 else None
        self.all_reduce = ops.AllReduce() if world > 1 else None
        if micro_steps > 1:
            self.sums = optimizer.parameters.clone("micro_sum", init="zeros")
            self.part_sums = Parameter(Tensor([0.0] * 4, mstype.float32), name="micro_parts", requires_grad=False)
            self.calls = Parameter(Tensor(0, mstype.int32), name="micro_calls", requires_grad=False)

    @property
    def compile_phase(self) -> str:
        """The name of the compiled graph, which MindSpore gives to all cells inside at each call.

        Once is enough; it would take 5 % of a step of a small network.
        """
        return self._compile_phase

    @compile_phase.setter
    def compile_phase(self, name: str) -> None:
        if name != self._compile_phase:
            nn.Cell.compile_phase.fset(self, name)

    def start_at(self, step: int) -> None:
        """Makes this the next step of the optimiser, which looks up its learning rate by that number."""
        # only before the first step: once a graph has run, set_data does not reach so small a parameter
        self.optimizer.global_step.set_data(Tensor([step], mstype.int32))

    def set_rate(self, rate: float) -> None:
        """Gives the next step its learning rate, where the optimiser was built with a single one."""
        ops.assign(self.optimizer.learning_rate, Tensor(rate, mstype.float32))

    def last_rate(self, rates: np.ndarray) -> float:
        """The learning rate of the last step by the optimiser's own count. rates: what the optimiser was built with."""
        if not self.optimizer.dynamic_lr:
            return float(self.optimizer.learning_rate.asnumpy())
        return float(rates[int(self.optimizer.global_step.asnumpy()[0]) - 1])

    def construct(self, images: Tensor, labels: Tensor, targets: Tensor, stop: Tensor) -> Tensor:
        (_, parts), gradients = self.gradients(self.normalize(images), labels, targets)  # parts [4], as of scaled_loss
        if self.micro_steps == 1:
            return self.update(gradients, parts, stop)
        weight = ops.maximum(parts[3:], 1.0) if self.global_positives else ops.ones((1,), mstype.float32)  # [1]
        self.map(ops.partial(add_weighted, weight), self.sums, gradients)
        ops.assign_add(self.part_sums, ops.concat((parts[:3] * weight, parts[3:])))
        ops.assign_add(self.calls, 1)
        numbers = ops.zeros((len(NUMBERS),), mstype.float32)
        if self.calls >= self.micro_steps:
            numbers = self.update_from_sums(stop)
        return numbers

    def scaled_loss(self, images: Tensor, labels: Tensor, targets: Tensor) -> tuple:
        """The loss of normalised images times the loss scale, and [4]: loss, its two parts, positives, all unscaled."""
        logits, deltas = self.network(images)  # [B, A, C], [B, A, 4]
        loss, classification, box, positives = self.loss(logits, deltas, labels, targets)  # scalars
        share = self.share_of_positives(ops.stop_gradient(positives))
        parts = ops.stack((loss * share, classification * share, box * share, positives))
        return loss * share * self.loss_scale, parts

    def share_of_positives(self, positives: Tensor) -> Tensor | float:
        """The factor of this process in the mean over the processes: its positives by their mean."""
        if not self.global_positives or self.world == 1 or self.micro_steps > 1:
            return 1.0
        return ops.maximum(positives, 1.0) * self.world / ops.maximum(self.all_reduce(positives), 1.0)

    def update_from_sums(self, stop: Tensor) -> Tensor:
        """The update of all micro-steps since the last one -> NUMBERS."""
        unit = compat.full((1,), 1.0 / self.micro_steps, dtype=mstype.float32)
        if self.global_positives:
            positives = self.part_sums[3:]  # [1]
            if self.world > 1:
                positives = self.all_reduce(positives) / self.world
            unit = 1.0 / ops.maximum(positives, 1.0 / self.world)
        parts = ops.concat((self.part_sums[:3] * unit, self.part_sums[3:]))
        numbers = self.update(self.map(ops.partial(multiply, unit), self.sums), parts, stop)
        self.map(clear, self.sums)
        ops.assign(self.part_sums, ops.zeros_like(self.part_sums))
        ops.assign(self.calls, ops.zeros_like(self.calls))
        return numbers

    def update(self, gradients: tuple, parts: Tensor, stop: Tensor) -> Tensor:
        """Averages, checks and clips gradients that are still scaled, and moves the weights -> NUMBERS."""
        if self.reduce is not None:
            gradients = self.reduce(gradients)
        scale = self.loss_scale * 1.0
        norm = ops.sqrt(self.sum_squares(gradients)) / scale
        finite = ops.isfinite(norm)
        factor = 1.0 / scale
        if self.grad_clip > 0:
            factor = factor * self.grad_clip / ops.maximum(norm, self.grad_clip)
        if self.fused is not None:
            self.fused(gradients, factor, finite)
        else:
            # one pass for unscaling and clipping: each pass costs seconds of compiling
            gradients = self.map(ops.partial(multiply, factor), gradients)
            if self.grad_clip_value > 0:
                gradients = self.map(ops.partial(clamp, self.grad_clip_value), gradients)
            # here and not in a method of its own, behind which MindSpore would find part_sums cleared
            if finite:
                self.optimizer(gradients)
                if self.average is not None:
                    self.average()
            ops.assign_add(self.optimizer.global_step, (1 - finite.astype(mstype.int32)).reshape((1,)))
        if self.dynamic:
            self.adjust_scale(finite)
        shared = ops.concat((parts, stop.reshape((1,))))  # [5]
        if self.all_reduce is not None:
            shared = self.all_reduce(shared)
        own = ops.stack((parts[0], finite.astype(mstype.float32), norm, scale))  # [4]
        return ops.concat((shared[:4] / self.world, own, shared[4:]))  # [9]

    def sum_squares(self, gradients: tuple) -> Tensor:
        """Sum of the squares of all gradients as a float32 scalar."""
        return ops.addn(self.map(squared_sum, gradients)) if self.squared_sum is None else self.squared_sum(gradients)

    def adjust_scale(self, finite: Tensor) -> Tensor:
        """Halves the loss scale after an overflow, doubles it after GROW_AFTER steps without one."""
        good = ops.select(finite, self.good_steps + 1, ops.zeros_like(self.good_steps))
        grow = good >= GROW_AFTER
        smaller = ops.maximum(self.loss_scale / 2, ops.ones((), mstype.float32))
        scale = ops.select(finite, ops.select(grow, self.loss_scale * 2, self.loss_scale * 1.0), smaller)
        ops.assign(self.loss_scale, scale)
        return ops.assign(self.good_steps, ops.select(grow, ops.zeros_like(good), good))


def squared_sum(gradient: Tensor) -> Tensor:
    """Sum of squares as a float32 scalar."""
    return ops.square(gradient.astype(mstype.float32)).sum()


def multiply(factor: Tensor, gradient: Tensor) -> Tensor:
    """gradient * factor in the type of the gradient."""
    return gradient * factor.astype(gradient.dtype)


def clamp(limit: float, gradient: Tensor) -> Tensor:
    """Each number of a gradient within +-limit."""
    return compat.clamp(gradient, -limit, limit)


@add_weighted.register("Tensor", "Tensor", "Tensor")
def add_weighted_tensor(weight: Tensor, total: Tensor, gradient: Tensor) -> Tensor:
    """total += weight * gradient, in float32."""
    return ops.assign_add(total, gradient.astype(mstype.float32) * weight)


@clear.register("Tensor")
def clear_tensor(total: Tensor) -> Tensor:
    """total = 0."""
    return ops.assign(total, ops.zeros_like(total))


def run_step(step: TrainStep, batch: list[np.ndarray], *, stop: bool) -> dict[str, float]:
    """One update with a batch (images, labels, targets), cut into the micro-steps of the TrainStep -> NUMBERS."""
    flag = Tensor(float(stop), mstype.float32)
    for part in zip(*(np.split(array, step.micro_steps) for array in batch)):
        numbers = step(*map(Tensor, part), flag)
    return dict(zip(NUMBERS, numbers.asnumpy().tolist()))
