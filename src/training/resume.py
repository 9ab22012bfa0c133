"""What --resume goes on from: the newest checkpoint, checked before any data is converted, and put into the step."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from src.ema import PREFIX
from src.errors import OptionError
from src.machine.distributed import check_equal, digest_of
from src.models.freeze import FROZEN_NORMS
from src.models.outside import same_model
from src.models.ssd import published_size
from src.option_rules import rule_of
from src.progress import duration
from src.recipes import read_yaml
from src.training.log import RunLog
from src.training.state import RunState
from src.training.step import TrainStep
from src.weights.files import open_newest
from src.weights.load import Translated, assign

FIXED = ("model", "classes", "image_size", "width")  # what a resumed run may not change
SURROUNDINGS = ("processes", "steps_per_epoch", "train_images", "annotations", "mindspore")  # what it is told about
ADVICE = "leave it as it was, or start another run in another --output_path, from these weights by --pre_trained"
OPTION_VALUES = ("learning_rate", "momentum")  # parameters of MindSpore's optimisers that hold options, not state


class Saved(NamedTuple):
    """A checkpoint to go on from."""
    values: dict[str, np.ndarray]
    meta: dict     # what it says of itself
    path: str
    options: dict  # of the run that wrote it, {} where they are lost


def find_saved(now: dict, say: Callable[[str], None]) -> Saved:
    """The newest intact checkpoint of the run in now["output_path"]. now: the options; say tells which are damaged.

    Raises OptionError when there is none, or when the options change what a resumed run cannot change.
    """
    file = open_newest(os.path.join(now["output_path"], "ckpt"), say)
    options = file.meta.get("options", {})
    config = os.path.join(now["output_path"], "config.yaml")
    if not options and os.path.isfile(config):  # older checkpoints do not hold the options
        options = read_yaml(config)
    saved = Saved(file.arrays, file.meta, file.path, options)
    refuse_other_network(saved, {"model": now["model"], "width": now["width"],
                                 "classes": now["classes"] or file.meta["classes"],
                                 "image_size": now["image_size"] or published_size(now["model"])})
    refuse_other_anchors(saved, now)
    refuse_other_optimizer(saved, now)
    refuse_other_minutes(saved, now)
    refuse_idling(saved, now)
    return saved


def refuse_other_network(saved: Saved, facts: dict) -> None:
    """Raises OptionError unless the facts with the names of FIXED are those of the checkpoint."""
    for key in FIXED:
        same = key == "model" and same_model(saved.meta[key], facts[key])
        if saved.meta.get(key) != facts[key] and not same:
            raise OptionError(f"--resume=True: '{saved.path}' holds {key} {saved.meta.get(key)}, the options give "
                              f"{facts[key]}; {ADVICE}")


def refuse_other_anchors(saved: Saved, now: dict) -> None:
    """Raises OptionError where --anchors has changed; unchanged, the shapes of the checkpoint count."""
    before = saved.options.get("anchors", "")
    if before != now["anchors"]:
        raise OptionError(f"--resume=True: --anchors {before or '(published)'} -> {now['anchors'] or '(published)'}: "
                          f"'{saved.path}' is trained for its own; {ADVICE}")


def refuse_other_optimizer(saved: Saved, now: dict) -> None:
    """Raises OptionError where the optimiser would miss its state: that of another kind, or of frozen parameters."""
    before = {**now, **saved.options}
    needs_state = {"optimizer": "rmsprop" in (before["optimizer"], now["optimizer"]),
                   "batch_norm": before["batch_norm"] in FROZEN_NORMS,
                   "freeze_layer": is_thawed(before["freeze_layer"], now["freeze_layer"])}
    for key, needed in needs_state.items():
        if needed and before[key] != now[key]:
            raise OptionError(f"--resume=True: --{key} {before[key]} -> {now[key] or '(none)'}: '{saved.path}' does "
                              f"not hold the optimiser's state for that; {ADVICE}")


def refuse_other_minutes(saved: Saved, now: dict) -> None:
    """Raises OptionError where other minutes are asked for than those that the steps of the run were fitted to."""
    before = saved.options.get("minutes", 0)
    if saved.meta.get("plan") and now["minutes"] not in (0, before):
        raise OptionError(f"--resume=True: --minutes {before:g} -> {now['minutes']:g}: the "
                          f"{saved.meta['plan']['steps']} steps of this run are fixed since its start; leave it as it "
                          "was, or give --minutes=0 and the --epoch_size that the run shall have")


def is_thawed(before: str, now: str) -> bool:
    """Whether one of the prefixes of freeze_layer is no longer covered."""
    covered = tuple(f"{name}." for name in now.split(",") if name)
    return any(not f"{name}.".startswith(covered) for name in before.split(",") if name)


def refuse_idling(saved: Saved, now: dict) -> None:
    """Raises OptionError where a typed option would have to change steps, and all steps are done."""
    meta = saved.meta
    changed = [f"--{key} {saved.options[key]} -> {now[key]}" for key in now["typed"]
               if key in saved.options and rule_of(key).needs_steps and saved.options[key] != now[key]]
    if not changed or not meta.get("settled", True):
        return
    plan = meta.get("plan") if now["minutes"] else None
    if meta["steps_done"] >= (plan["steps"] if plan else now["epoch_size"] * meta["steps_per_epoch"]):
        end, option = "all its steps are done", "--epoch_size"
    elif 0 < now["max_steps"] <= meta["steps_done"]:
        end, option = "all its steps are done", "--max_steps"
    elif 0 < now["early_stop"] <= meta.get("since_best", 0):
        end, option = "--early_stop has ended it", "--early_stop"
    else:
        return
    raise OptionError(f"--resume=True: this run is finished, {end}, so that {', '.join(changed)} would change nothing; "
                      f"a larger {option} goes on with it, another run needs another --output_path (from these weights "
                      "by --pre_trained)")


def begin_run(step: TrainStep, state: RunState, saved: Saved | None, *, now: dict, facts: dict, log: RunLog, rank: int,
              world: int) -> None:
    """Puts a TrainStep where the state is, with the values of a checkpoint if the run is resumed.

    now: the options; facts: what a checkpoint of this run says of itself. Raises OptionError when the checkpoint does
    not fit, and on all processes when they do not begin alike.
    """
    if saved:
        refuse_other_network(saved, facts)
        restore(step, saved, now)
        facts = {**facts, "steps_per_epoch": state.steps_per_epoch}
        for change in changes(saved, now, {key: facts[key] for key in SURROUNDINGS}):
            log.say(f"changed since: {change}")
        best = f"best so far {state.best:.4f}" if state.best >= 0 else "not evaluated yet"
        epoch = min(state.steps_done // state.steps_per_epoch + 1, state.epochs)
        log.say(f"resumed after step {state.steps_done}, epoch {epoch}, {best}, from {os.path.basename(saved.path)}")
        if now["minutes"]:
            log.say(minutes_left(state, now["minutes"]))
        if state.is_complete:
            log.say("all steps of this run are done; a larger --epoch_size (or --max_steps) goes on")
    step.start_at(state.steps_done)
    check_same_state(step, state, now, rank=rank, world=world)


def minutes_left(state: RunState, minutes: float) -> str:
    """How a resumed run goes on with its --minutes."""
    if state.plan:
        return f"--minutes={minutes:g}: the run keeps its {state.total_steps} steps, however long they take"
    return (f"--minutes={minutes:g}: {duration(state.spent)} were over when the run was interrupted, and its length "
            "was not fixed; the rest counts from this start")


def changes(saved: Saved, now: dict, surroundings: dict) -> Iterator[str]:
    """What is not as it was when the checkpoint was written. surroundings: facts that its meta has too."""
    for before, after, dashes in ((saved.meta, surroundings, ""), (saved.options, now, "--")):
        for key in after:
            if key in before and before[key] != after[key] and rule_of(key).in_graph:
                unused = ", which counts at the start of a run only and is not used" if rule_of(key).start_only else ""
                yield f"{dashes}{key} {before[key]} -> {after[key]}{unused}"


def restore(step: TrainStep, saved: Saved, now: dict) -> None:
    """Puts the values into a TrainStep; where an option has changed its value counts. Raises OptionError.

    A loss scale that does not adapt is an option, and one that does starts again when its option has changed. An
    average that the checkpoint does not have starts at its weights.
    """
    ignored = OPTION_VALUES
    unknown = None if "loss_scale" in now["typed"] else now["loss_scale"]
    if not now["dynamic_loss_scale"] or saved.options.get("loss_scale", unknown) != now["loss_scale"]:
        ignored += ("loss_scale", "good_steps")
    values = {name: value for name, value in saved.values.items() if not name.startswith(ignored)}
    report = assign(step, Translated(values))
    starts_average = step.average is not None and f"{PREFIX}_updates" not in saved.values
    initial = (*ignored, "micro_")
    if starts_average:
        initial += (f"{PREFIX}.", f"{PREFIX}_")
        step.average.restart()
    unfit = [*report.skipped, *(name for name in report.missing if not name.startswith(initial))]
    if unfit:
        changed = ", ".join(changes(saved, now, {})) or "nothing"
        raise OptionError(f"--resume=True: '{saved.path}' does not fit this run: {unfit[0]}; changed since: {changed}; "
                          f"{ADVICE}")


def check_same_state(step: TrainStep, state: RunState, now: dict, *, rank: int, world: int) -> None:
    """Raises OptionError on all processes unless they begin with equal weights, moments and progress."""
    if world == 1:
        return
    if now["resume"]:
        advice = "--resume=True: give all hosts the same ckpt/ folder in --output_path"
    elif now["pre_trained"]:
        advice = "give all hosts the same file by --pre_trained"
    else:
        advice = "give all hosts the same packages (requirements.txt)"
    progress = [state.steps_done, state.best, state.since_best, state.epoch_end_due]
    check_equal({"the digest of all weights": digest_of(list(step.get_parameters())),
                 "the progress of the run": progress}, rank, world, advice=advice)
