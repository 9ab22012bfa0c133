"""The training step as one Cell, and the loop over its steps."""
import contextlib
import itertools
import math
import signal
import time

from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

from src.errors import Interrupted, NotFiniteError
from src.meter import Meter
from src.models.layers import Normalize

NUMBERS = ("loss", "loss_cls", "loss_box", "positives", "own_loss", "finite", "grad_norm", "loss_scale", "stops")
MOST_SKIPPED_STEPS = 20  # so many overflows in a row are no longer the loss scale's search
GROW_AFTER = 2000        # good steps before a dynamic loss scale doubles (https://arxiv.org/abs/1710.03740 section 3.2)


class TrainStep(nn.Cell):
    """One step: normalise, forward, loss, gradients, all-reduce, unscale, check, clip, update.

    images [B, S, S, 3] uint8, labels [B, A] int32, targets [B, A, 4] float32, stop: float32 scalar, 1 asks all
    processes to stop -> [9] float32, NUMBERS: loss, its two parts and the positives (means over the processes), the
    loss of this process, 1 when gradients were finite, their L2 norm before clipping, the loss scale, how many
    processes ask to stop.
    An update with a gradient that is not finite is left out. With `dynamic` the loss scale halves then and doubles
    after GROW_AFTER good steps. Gradients are averaged over processes, unscaled, then clipped to the global L2 norm
    `grad_clip` (0: not), before weight decay: the order of the published recipe.
    """

    def __init__(self, model, loss, optimizer, loss_scale=1.0, dynamic=False, grad_clip=0.0, world=1):
        super().__init__(auto_prefix=False)
        self.network, self.loss, self.optimizer = model.network, loss, optimizer
        self.normalize = Normalize(model.mean, model.std)
        self.dynamic, self.grad_clip, self.world = dynamic, grad_clip, world
        self.loss_scale = Parameter(Tensor(loss_scale, mstype.float32), name="loss_scale", requires_grad=False)
        self.good_steps = Parameter(Tensor(0, mstype.int32), name="good_steps", requires_grad=False)
        self.gradients = ops.value_and_grad(self.scaled_loss, None, optimizer.parameters, has_aux=True)
        self.map = ops.HyperMap()
        self.reduce = nn.DistributedGradReducer(optimizer.parameters, mean=True) if world > 1 else None
        self.all_reduce = ops.AllReduce() if world > 1 else None

    def scaled_loss(self, images, labels, targets):
        """The loss times the loss scale, and its parts as they are."""
        logits, deltas = self.network(self.normalize(images))
        loss, classification, box, count = self.loss(logits, deltas, labels, targets)
        return loss * self.loss_scale, ops.stack((loss, classification, box, count))

    def construct(self, images, labels, targets, stop):
        (_, parts), gradients = self.gradients(images, labels, targets)
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
        if finite:
            self.optimizer(gradients)
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
        ops.assign(self.good_steps, ops.select(grow, ops.zeros_like(good), good))


def squared_sum(gradient):
    """Sum of squares as a float32 scalar."""
    return ops.square(gradient.astype(mstype.float32)).sum()


def multiply(factor, gradient):
    """gradient * factor in the type of the gradient."""
    return gradient * factor.astype(gradient.dtype)


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


def train(step, loader, rates, log, start=0, most_steps=0, log_interval=10, image_name=str, after_epoch=None,
          save=None):
    """Runs steps start .. len(rates) - 1 (or most_steps of them at most); step k belongs to epoch k // loader.steps.

    rates: learning rate of every step, for the log. image_name(row): how to name an image in an error.
    after_epoch(epochs_done, steps_done): evaluation and checkpoints. save(steps_done): keeps the state of a run that is
    stopped. Raises NotFiniteError, Interrupted.
    """
    total = min(len(rates), most_steps or len(rates))
    meter, done, finite = Meter(total, loader.batch_size * loader.world), start, []
    with stop_signals() as caught:
        while done < total:
            epoch, asked = done // loader.steps, time.time()
            for *batch, rows in itertools.islice(loader.epoch(epoch, done % loader.steps), total - done):
                begun = time.time()
                flag = Tensor(float(len(caught) > 0), mstype.float32)
                numbers = dict(zip(NUMBERS, step(*map(Tensor, batch), flag).asnumpy().tolist()))
                meter.add(numbers, begun - asked, time.time() - begun)
                finite.append(bool(numbers["finite"]))
                stuck = finite[-MOST_SKIPPED_STEPS:] == [False] * MOST_SKIPPED_STEPS
                if stuck or not math.isfinite(numbers["own_loss"]):
                    raise NotFiniteError(explain(numbers, done, epoch, rates[done], map(image_name, rows)))
                if done == start:
                    log.say(f"first step took {time.time() - asked:.1f} s (it compiles the graph, or reads it from "
                            "--compile_cache)")
                done += 1
                if done % log_interval == 0 or done == total:
                    row = meter.row(done, epoch + 1, float(rates[done - 1]))
                    log.write(row, "train")
                    log.say(meter.line(row))
                if numbers["stops"]:
                    save(done)
                    raise Interrupted(f"{'' if caught else 'another process was '}interrupted after step {done}; "
                                      f"the state was saved, --resume=True goes on from here")
                asked = time.time()
            if not step.dynamic:
                refuse_skipping(finite[-loader.steps:])
            if after_epoch:
                after_epoch(epoch + 1, done)


def refuse_skipping(finite):
    """Raises NotFiniteError when most of these steps were skipped: a static loss scale will not get better."""
    skipped = finite.count(False)
    if skipped > len(finite) / 2:
        raise NotFiniteError(f"{skipped} of {len(finite)} steps were skipped, their gradients were not finite; lower "
                             "--lr or --loss_scale, or use --dynamic_loss_scale=True")


def explain(numbers, done, epoch, rate, images):
    """The message of a run that diverged."""
    return (f"loss is {numbers['own_loss']}, gradient norm {numbers['grad_norm']} at step {done + 1}, "
            f"epoch {epoch + 1}: lr {rate:.3g}, loss scale {numbers['loss_scale']:g}, images {', '.join(images)}; "
            f"usual causes: lr too high (lower --lr, raise --warmup_epochs), no --grad_clip, a loss scale too large "
            f"for float16; the weights before this step are in ckpt/diverged.ckpt")
