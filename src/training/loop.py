"""The training step as one Cell, and the loop over its steps."""
import contextlib
import itertools
import math
import signal
import time

from src.data.prefetch import Prefetcher
from src.errors import ALL, ALONE, ANOTHER, Interrupted, NotFiniteError, SSDError
from src.training.step import run_step

MOST_SKIPPED = 20  # so many overflows in a row are no longer the loss scale's search


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
    with stop_signals() as caught, log.bar(total) as show, contextlib.closing(Prefetcher(loader, total)) as ahead:
        while done < total:
            epoch, asked = done // loader.steps, time.time()
            for *batch, rows in itertools.islice(ahead.epoch(epoch, done % loader.steps), total - done):
                begun = time.time()
                numbers = run_step(step, batch, stop=bool(caught or ahead.error))
                meter.add(numbers, begun - asked, time.time() - begun)
                finite.append(bool(numbers["finite"]))
                if not math.isfinite(numbers["loss"]) or finite[-MOST_SKIPPED:] == [False] * MOST_SKIPPED:
                    raise NotFiniteError(explain(numbers, done, epoch, lambda: step.last_rate(rates),
                                                 map(image_name, rows)))
                if done == start:
                    log.say(f"first step took {time.time() - asked:.1f} s (it compiles the graph, or reads it from "
                            "--compile_cache)")
                done += 1
                show(done, f"loss {numbers['loss']:.4f}")
                if done % log_interval == 0 or done == total:
                    row = meter.row(done, epoch + 1, step.last_rate(rates))
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
