"""Trains a detector: options -> data, network, loss, optimiser, loop.

    python train.py --data=FOLDER --output_path=runs/first
    python train.py --config_path=config/ssd300_mobilenet_v2_voc.yaml --voc_root=DATA --output_path=runs/first
    mpirun -n 8 python train.py --run_distribute=True --config_path=config/ssd_resnet50_fpn_config_gpu.yaml ...
    python train.py --help
"""
from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from src.errors import run_main, smaller_batch
from src.machine import process

if TYPE_CHECKING:
    from easydict import EasyDict

    from src.data.loader import TrainLoader
    from src.models.ssd import Model
    from src.training.log import RunLog
    from src.training.state import RunState
    from src.training.validator import Validator

MAX_NAMES = 25  # classes in a line
SHOWN_METRICS = ("eval/AP", "eval/AP50", "eval/mAP_area", "train/loss")  # beside the hyperparameters in TensorBoard


def main() -> None:
    """Reads the options and trains."""
    from src.config import read_options

    began = time.monotonic()
    options = read_options(sys.argv[1:], "train.py", doc=__doc__)
    process.prepare(options.device_target, options.run_distribute, options.device_num)
    # MindSpore reads its environment when it is imported, so nothing that imports it may come earlier
    from src.config import take_data
    from src.data.formats import identify
    from src.training.build import choose_overfit
    from src.training.run_folder import hold_run_folder, restart_note

    options, note = take_data(options, identify)
    options = choose_overfit(options)
    with smaller_batch("batch_size", options.batch_size):
        rank, world = prepare_run(options)
        with hold_run_folder(options.output_path, resume=options.resume) if rank == 0 else contextlib.nullcontext():
            again = "" if options.resume else restart_note(options.output_path)
            train(options, rank, world=world, began=began, notes=[note, again])


def prepare_run(options: EasyDict) -> tuple[int, int]:
    """Checks the options, starts the device and joins the other processes. Returns rank, world."""
    import mindspore as ms

    from src.machine import distributed
    from src.machine.compat import set_deterministic
    from src.option_rules import shared_options
    from src.training.checks import check_options, check_weights
    from src.training.run_folder import check_run_folder

    check_run_folder(options.output_path, resume=options.resume)  # first: without a run its options are not known
    check_options(options)
    check_weights(options)
    rank, world = distributed.start(options.device_target, options.device_id, options.run_distribute)
    distributed.check_equal({f"--{key}": value for key, value in shared_options(options).items()}, rank, world)
    ms.set_seed(options.seed)
    if options.deterministic:
        set_deterministic()
    return rank, world


def train(options: EasyDict, rank: int, *, world: int, began: float, notes: list[str]) -> None:
    """Builds the parts, runs the loop. began: start by time.monotonic(); notes: first lines of the log, or ""."""
    from src.config import unused_note
    from src.machine.compile_cache import use_cache
    from src.training import build
    from src.training.log import RunLog
    from src.training.loop import Loop
    from src.training.resume import begin_run, find_saved

    log = RunLog(first=rank == 0)
    for note in filter(None, [unused_note(options, "train.py"), *notes]):
        log.say(note)
    saved = find_saved(options, log.say) if options.resume else None
    train_split, val_split = build.build_splits(options, rank=rank, world=world, log=log)
    options = build.choose_model(options, train_split, log=log, rank=rank, world=world)

    model, frozen = build.build_training_model(options, train_split.classes, world=world, log=log)
    kernels = build.choose_kernels(options, model, log)
    model = build.choose_anchors(options, model, train_split, saved=saved, log=log, rank=rank, world=world)
    loader = build.build_loader(options, train_split, model, rank=rank, world=world)
    timer = build.build_timer(options, loader.steps, began=began, saved=saved)
    rates = timer.early_rates() if timer else build.build_rates(options, loader.steps)
    step = build.build_step(options, model, rates[0] if timer else rates, world=world, kernels=kernels)

    state = build.build_state(options, loader.steps, saved)
    facts = build.build_facts(options, model, train_split, world=world)
    begin_run(step, state, saved, now=options, facts=facts, log=log, rank=rank, world=world)
    validator = build.build_validator(options, model, step, split=val_split, log=log, rank=rank, world=world)
    saver = build.build_saver(options, step, state, facts=facts, rank=rank, world=world)
    # MindSpore numbers graphs in the order of compiling; a run that begins with a due evaluation compiles that first
    graph = {**facts["options"], "classes": model.num_classes, "processes": world, "order": state.epoch_end_due,
             "anchor_shapes": model.anchor_shapes, "kernels": kernels}
    use_cache(options.compile_cache, graph, step.get_parameters())
    open_run(options, log, state, model=model, loader=loader, classes=train_split.classes, frozen=frozen,
             validator=validator)

    Loop(step, loader, state, rates=rates, validator=validator, saver=saver, log=log,
         image_names=train_split.image_names, log_interval=options.log_interval,
         timer=timer, network=f"{model.name} at {model.image_size} pixels").run()
    tell_end(options, log, state)


def open_run(options: EasyDict, log: RunLog, state: RunState, *, model: Model, loader: TrainLoader, classes: list[str],
             frozen: int, validator: Validator | None) -> None:
    """Makes the folder of the run, opens its log, and tells and draws what is trained."""
    from src.anchor_file import write_shapes
    from src.config import DEFAULT_PATH, save_options
    from src.evaluation.report import draw_training_batch
    from src.files import make_folder
    from src.metrics import split_notes
    from src.option_rules import compared_options
    from src.recipes import read_yaml
    from src.training.build import describe_run
    from src.training.checks import hints

    folder = options.output_path
    if log.first:
        for name in ("ckpt", "eval"):
            make_folder(os.path.join(folder, name))
        save_options(options, os.path.join(folder, "config.yaml"))
        if model.anchor_shapes:
            write_shapes(os.path.join(folder, "anchors.json"), model.anchor_shapes, model.image_size)
        # a run that early_stop has ended takes no step again
        steps_done = state.total_steps if state.is_stalled else state.steps_done
        log.open(folder, steps_per_epoch=loader.steps, steps_done=steps_done, evaluated=not state.epoch_end_due,
                 resumed=options.resume)
        log.events.hyperparameters(compared_options(options, read_yaml(DEFAULT_PATH)), SHOWN_METRICS)
    facts = describe_run(options, model, loader, classes=len(classes), frozen=frozen)
    log.write(facts)
    names = [*classes[:MAX_NAMES], ".."] if len(classes) > MAX_NAMES else classes
    lines = [facts_in_words(facts), f"classes: {', '.join(names)}"]
    lines += hints(options, loader, classes)
    if validator:
        where = f"the self-test's {loader.rows} image(s)" if options.overfit else "the validation split"
        lines += split_notes(validator.truth, options.dataset, max_boxes=options.max_boxes, where=where)
    for line in lines:
        log.say(line)
    if log.first:
        path = os.path.join(folder, "train_batch.png")
        draw_training_batch(path, next(iter(loader.epoch(0))), anchors=model.anchors, classes=classes)
        log.picture("train/first_batch", path, 0)


def facts_in_words(facts: dict) -> str:
    """What describe_run says of a run, for people."""
    frozen = f", {facts['frozen_tensors']} tensors frozen" if facts["frozen_tensors"] else ""
    return (f"training {facts['model']} at {facts['image_size']} pixels ({facts['parameters']:,} parameters{frozen}, "
            f"{facts['anchors']:,} anchors, {facts['classes']} classes) on {facts['train_images']} images, "
            f"{facts['batch']} a step; {facts['device']}, {facts['processes']} process(es), MindSpore "
            f"{facts['mindspore']}, numpy {facts['numpy']}, commit {facts['commit']}")


def tell_end(options: EasyDict, log: RunLog, state: RunState) -> None:
    """Says where the weights are and how good, and of a run with --minutes whether it was long enough."""
    from src.training.meter import peak_memory
    from src.training.timing import too_short

    name = "mAP_area" if options.dataset == "voc" else "AP"
    best = f", best {name} {state.best:.4f} in best.ckpt" if state.best >= 0 else ""
    log.say(f"done: {options.output_path}/ckpt/last.ckpt{best}, peak memory {peak_memory():.1f} GiB")
    short = too_short(state.steps_done, state.steps_per_epoch, options.device_target) if options.minutes else ""
    if short:
        log.say(short)


if __name__ == "__main__":
    run_main(main)
