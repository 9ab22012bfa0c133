"""The training step as one Cell, and the loop over its steps."""
import contextlib
import itertools
import math
import signal
import time

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

from src import compat
from src.data.ahead import Ahead
from src.errors import ALL, ALONE, ANOTHER, Interrupted, NotFiniteError, SSDError
from src.models.layers import Normalize

NUMBERS = ("loss", "loss_cls", "loss_box", "positives", "own_loss", "finite", "grad_norm", "loss_scale", "stops")
MOST_SKIPPED = 20  # so many overflows in a row are no longer the loss scale's search
GROW_AFTER = 2000        # good steps before a dynamic loss scale doubles (https://arxiv.org/abs/1710.03740 section 3.2)


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


# plain functions would lose their assignments in a compiled step
add_weighted, clear = ops.MultitypeFuncGraph("add_weighted"), ops.MultitypeFuncGraph("clear")


@add_weighted.register("Tensor", "Tensor", "Tensor")
def add_weighted_one(weight, total, gradient):
    """total += weight * gradient, in float32."""
    return ops.assign_add(total, gradient.astype(mstype.float32) * weight)


@clear.register("Tensor")
def clear_one(total):
    """total = 0."""
    return ops.assign(total, ops.zeros_like(total))


@contextlib.contextmanager
def stop_signals():
    """Collects SIGINT and SIGTERM in a list, so that a step ends before the program does; the second ends it at once.

    MindSpore's data engine makes a SIGTERM of SIGINT.
    """
    caught = []

    def catch(number, frame):
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(step, loader, rates, log, meter, start=0, most_steps=0, log_interval=10, image_name=str, save_steps=0,
          save=lambda done: None, after_epoch=lambda epochs, done: False):
    """Runs steps start .. len(rates) - 1 (or most_steps of them at most); step k belongs to epoch k // loader.steps.

    rates: learning rate of every step, as the optimiser has them, for the log. meter: a Meter. image_name(row): how to
    name an image in an error. save(steps_done): keeps the state, of a run that is stopped and within an epoch every
    save_steps steps (0: not).
    after_epoch(epochs_done, steps_done): evaluation and checkpoints; True ends the run. Raises NotFiniteError,
    Interrupted (from the error of the loader, where it came to one of several processes), and what the loader raises.
    """
    total, done, finite = min(len(rates), most_steps or len(rates)), start, []
    with stop_signals() as caught, log.bar(total) as show, contextlib.closing(Ahead(loader, total)) as ahead:
        while done < total:
            epoch, asked = done // loader.steps, time.time()
            for *batch, rows in itertools.islice(ahead.epoch(epoch, done % loader.steps), total - done):
                begun = time.time()
                numbers = run_step(step, batch, bool(caught or ahead.error))
                meter.add(numbers, begun - asked, time.time() - begun)
                finite.append(bool(numbers["finite"]))
                if not math.isfinite(numbers["loss"]) or finite[-MOST_SKIPPED:] == [False] * MOST_SKIPPED:
                    raise NotFiniteError(explain(numbers, done, epoch, lambda: step.rate(rates),
                                                 map(image_name, rows)))
                if done == start:
                    log.say(f"first step took {time.time() - asked:.1f} s (it compiles the graph, or reads it from "
                            "--compile_cache)")
                done += 1
                show(done, f"loss {numbers['loss']:.4f}")
                if done % log_interval == 0 or done == total:
                    row = meter.row(done, epoch + 1, step.rate(rates))
                    log.write(row, "train")
                    log.say(meter.line(row))
                if numbers["stops"]:
                    save(done)
                    raise stopped(done, caught, ahead.error, numbers["stops"] == loader.world) from ahead.error
                if save_steps and done % save_steps == 0 and done % loader.steps and done < total:
                    save(done)
                asked = time.time()
            if not step.dynamic:
                refuse_skipping(finite[-loader.steps:])
            if after_epoch(epoch + 1, done):
                return


def stopped(done, caught, error, everyone):
    """What ends a loop whose state was saved after `done` steps because some process asked for it.

    caught: signals of this process; error: one that this process met, which gets to know that; everyone: all asked.
    """
    saved = "the state was saved, --resume=True goes on from here"
    if isinstance(error, SSDError):
        error.args, error.met_by = (f"{error}; after step {done} {saved}",), ALONE
    if caught or error:
        return Interrupted(f"interrupted after step {done}; {saved}", ALL if everyone else ALONE)
    return Interrupted(f"another process was interrupted or met an error after step {done}; {saved}", ANOTHER)


def run_step(step, batch, stop):
    """One update with the arrays of a batch, cut into the micro-steps of a TrainStep. Returns NUMBERS as a dict."""
    flag = Tensor(float(stop), mstype.float32)
    for part in zip(*(np.split(array, step.micro_steps) for array in batch)):
        numbers = step(*map(Tensor, part), flag)
    return dict(zip(NUMBERS, numbers.asnumpy().tolist()))


def refuse_skipping(finite):
    """Raises NotFiniteError when most of these steps were skipped: a static loss scale will not get better."""
    skipped = finite.count(False)
    if skipped > len(finite) / 2:
        raise NotFiniteError(f"{skipped} of {len(finite)} steps were skipped, their gradients were not finite; lower "
                             "--lr or --loss_scale, or use --dynamic_loss_scale=True")


def explain(numbers, done, epoch, rate, images):
    """The message of a run that diverged; `loss` is a mean over the processes, of which one or more are the cause.

    rate(): learning rate of the step.
    """
    if math.isfinite(numbers["own_loss"]) and not math.isfinite(numbers["loss"]):
        return f"the loss of another process is not finite at step {done + 1}; it names the images"
    return (f"loss is {numbers['own_loss']}, gradient norm {numbers['grad_norm']} at step {done + 1}, "
            f"epoch {epoch + 1}: lr {rate():.3g}, loss scale {numbers['loss_scale']:g}, images {', '.join(images)}; "
            f"usual causes: lr too high (lower --lr, raise --warmup_epochs), no --grad_clip, a loss scale too large "
            f"for float16; the weights before this step are in ckpt/diverged.ckpt")
