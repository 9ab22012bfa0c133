"""What --resume goes on from: the newest checkpoint, checked before any data is converted, and put into the step."""
import os
from typing import NamedTuple

from src.ema import PREFIX
from src.errors import OptionError
from src.machine.distributed import check_equal, digest_of
from src.models.ssd import published_size
from src.option_rules import rule_of
from src.recipes import read_yaml
from src.weights.files import open_newest
from src.weights.load import Translated, assign

STATE = ("model", "classes", "image_size", "width")  # what a resumed run may not change
ANOTHER = "leave it as it was, or start another run in another --output_path, from these weights by --pre_trained"
OPTIONS = ("learning_rate", "momentum")  # parameters of MindSpore's optimisers that hold options, not state


class Saved(NamedTuple):
    """A state to go on from."""
    values: dict   # {name: array}
    meta: dict     # what the checkpoint says of itself
    path: str
    options: dict  # of the run that wrote it, {} where they are lost


def find_saved(options, say) -> Saved:
    """The newest whole checkpoint of the run in output_path. say(text) tells which are damaged.

    Raises OptionError when there is none, or when the options change what a resumed run cannot change.
    """
    file = open_newest(os.path.join(options.output_path, "ckpt"), say)
    own = os.path.join(options.output_path, "config.yaml")  # older checkpoints do not hold the options
    saved = Saved(file.arrays, file.meta, file.path,
                  file.meta.get("options") or (read_yaml(own) if os.path.isfile(own) else {}))
    published = published_size(options.model)
    refuse_other_network(saved, {"model": options.model, "width": options.width,
                                 "classes": options.classes or file.meta["classes"],
                                 "image_size": options.image_size or published})
    refuse_other_optimizer(saved, options)
    refuse_idling(saved, options)
    return saved


def refuse_other_network(saved, facts):
    """Raises OptionError unless the facts, a dict of STATE, are those of the checkpoint."""
    for key in STATE:
        if saved.meta.get(key) != facts[key]:
            raise OptionError(f"--resume=True: '{saved.path}' holds {key} {saved.meta.get(key)}, the options give "
                              f"{facts[key]}; {ANOTHER}")


def refuse_other_optimizer(saved, options):
    """Raises OptionError where the optimiser would miss its state: that of another kind, or of frozen parameters."""
    before = {**options, **saved.options}
    changed = [key for key, other in (("optimizer", "rmsprop" in (before["optimizer"], options.optimizer)),
                                      ("batch_norm", before["batch_norm"] == "frozen"),
                                      ("freeze_layer", thaws(before["freeze_layer"], options.freeze_layer)))
               if other and before[key] != options[key]]
    for key in changed:
        raise OptionError(f"--resume=True: {key} {before[key]} -> {options[key] or '(none)'}: '{saved.path}' does not "
                          f"hold the optimiser's state for that; {ANOTHER}")


def thaws(before, now):
    """Whether one of the prefixes of freeze_layer is no longer covered."""
    now = [f"{name}." for name in now.split(",") if name]
    return any(not f"{name}.".startswith(tuple(now)) for name in before.split(",") if name)


def refuse_idling(saved, options):
    """Raises OptionError where a typed option would have to change steps, and all steps are done."""
    meta, settled = saved.meta, saved.meta.get("settled", True)
    done = meta["steps_done"] >= options.epoch_size * meta["steps_per_epoch"]
    full = done or 0 < options.max_steps <= meta["steps_done"]
    stalled = 0 < options.early_stop <= meta.get("since_best", 0)
    changed = [f"{key} {saved.options[key]} -> {options[key]}" for key in options.typed
               if key in saved.options and rule_of(key).needs_steps and saved.options[key] != options[key]]
    if changed and settled and (full or stalled):
        end, more = (("all its steps are done", "--epoch_size" if done else "--max_steps") if full else
                     ("--early_stop has ended it", "--early_stop"))
        raise OptionError(f"--resume=True: this run is finished, {end}, so that {', '.join(changed)} would change "
                          f"nothing; a larger {more} goes on with it, another run needs another --output_path "
                          "(from these weights by --pre_trained)")


def changes(saved, options, surroundings):
    """What is not as it was when the checkpoint was written, as texts. surroundings: a dict, as of Run."""
    for before, now in ((saved.meta, surroundings), (saved.options, options)):
        for key in now:
            if key in before and before[key] != now[key] and rule_of(key).in_graph:
                unused = ", which counts at the start of a run only and is not used" if rule_of(key).start_only else ""
                yield f"{key} {before[key]} -> {now[key]}{unused}"


def restore(step, saved, options):
    """Puts the state into a TrainStep; where an option has changed its value counts. Raises OptionError.

    A loss scale that does not adapt is an option, and one that does starts again when its option has changed. An
    average that the checkpoint does not have starts at its weights.
    """
    taken = OPTIONS if keeps_scale(saved, options) else (*OPTIONS, "loss_scale", "good_steps")
    report = assign(step, Translated({name: value for name, value in saved.values.items()
                                      if not name.startswith(taken)}))
    average = step.average and f"{PREFIX}_updates" not in saved.values
    fresh = (*taken, "micro_", *((f"{PREFIX}.", f"{PREFIX}_") if average else ()))
    unfit = [*report.skipped, *(name for name in report.missing if not name.startswith(fresh))]
    if unfit:
        changed = ", ".join(changes(saved, options, {}))
        raise OptionError(f"--resume=True: '{saved.path}' does not fit this run: {unfit[0]}"
                          + (f"; changed since: {changed}" if changed else "") + f"; {ANOTHER}")
    if average:
        step.average.restart()


def keeps_scale(saved, options):
    """Whether the loss scale of the checkpoint goes on."""
    before = saved.options.get("loss_scale", None if "loss_scale" in options.typed else options.loss_scale)
    return options.dynamic_loss_scale and before == options.loss_scale


def check_same_state(step, progress, options, *, rank, world):
    """Raises OptionError on all processes unless they begin with equal weights, moments and progress, a list."""
    if world == 1:
        return
    if options.resume:
        advice = "--resume=True: give all hosts the same ckpt/ folder in --output_path"
    elif options.pre_trained:
        advice = "give all hosts the same file by --pre_trained"
    else:
        advice = "give all hosts the same packages (requirements.txt)"
    check_equal({"the digest of all weights": digest_of(list(step.get_parameters())),
                 "the progress of the run": progress}, rank, world, advice=advice)
