"""Builds the parts of a training from its options: data, model, loss, schedule, step, validator, saver."""
from __future__ import annotations

import dataclasses
import math
import os
import time
from functools import partial

import mindspore as ms
import numpy as np
from easydict import EasyDict

from src.box_losses import CIoULoss, GIoULoss, SmoothL1Loss
from src.config import AUTO_PATH, split_options
from src.data.labels import classes_from
from src.data.loader import EvalLoader, TrainLoader
from src.data.prepare import Split, describe_split, prepare_split
from src.data.workers import use_processes
from src.ema import WeightAverage
from src.errors import DataError
from src.evaluation.evaluate import first_images
from src.files import read_json
from src.inference.description import describe
from src.inference.predictor import from_model
from src.losses import DetectionLoss, FocalLoss, MultiBoxLoss, QualityFocalLoss, VarifocalLoss
from src.lr_schedule import cosine, multistep, warmup
from src.machine.distributed import check_equal
from src.machine.process import loader_threads
from src.matching import Matcher
from src.models.cpu_kernels import try_own_kernels
from src.models.freeze import FROZEN_NORMS, choose_norms, freeze_layers, hasten_norms
from src.models.initialize import he_initialize
from src.models.model import IMAGENET_STD
from src.models.precision import mixed_precision
from src.models.ssd import Model, build_model, with_shapes
from src.optim import build_optimizer
from src.option_rules import graph_options
from src.text import split_names
from src.training.anchors import AnchorChooser
from src.training.auto import ModelChooser, means_of
from src.training.checks import check_options, why_no_boxes
from src.training.fused_loss import use_own_losses
from src.training.log import RunLog
from src.training.resume import Saved
from src.training.saver import Saver
from src.training.state import RunState
from src.training.step import TrainStep
from src.training.timing import EVALUATIONS, SAVES, UNPLANNED, RunTimer
from src.training.validator import Validator
from src.version import git_commit
from src.weights.files import open_weights
from src.weights.load import load_pretrained
from src.weights.recognise import recognise

# what a loss trains logits to be
SCORES = {"focal": "sigmoid", "quality": "sigmoid", "varifocal": "sigmoid", "multibox": "softmax"}
PUBLISHED_LOSSES = {"sigmoid": "focal", "softmax": "multibox"}  # loss=auto, by the score function of the model
WARM_SHARE = 0.2  # of a run with --minutes, at most: the warm-up of a recipe may be longer than that run
# the self-test of --overfit memorises a few images from scratch; these options replace those of any recipe
OVERFIT = {"augmentation": "plain", "mosaic": 0.0, "class_balance": 0.0, "run_eval": True, "epoch_size": 150,
           "eval_interval": 5, "eval_start_epoch": 1, "early_stop": 0, "save_checkpoint_epochs": 150, "min_score": 0.05,
           # from scratch the gradients of the first layers can be a hundred times those of the last: RMSprop evens them
           "optimizer": "rmsprop", "momentum": 0.0, "body_lr": 1.0, "lr_schedule": "cosine", "lr": 0.001,
           "lr_init": 0.0001, "lr_end_rate": 0.0, "lr_batch": 0, "warmup_epochs": 0.0, "warmup_steps": 10,
           "grad_clip": 10.0, "grad_clip_value": 0.0, "weight_decay": 0.0, "ema_decay": 0.0, "accumulate": 1}


def choose_overfit(options: EasyDict) -> EasyDict:
    """The options of a run; with overfit=N those of OVERFIT on N images, but for what was typed."""
    if not options.overfit:
        return options
    batch = min(options.batch_size, options.overfit)
    # The published averages are over hundreds of steps, more than a self-test has; half of this is one epoch old.
    wanted = {**OVERFIT, "batch_size": batch, "norm_momentum": 0.5 ** (batch / options.overfit)}
    if not options.pre_trained:
        # what a recipe keeps of its weights would stay random
        wanted |= {"weight_init": "he", "freeze_layer": "", "filter_weight": False,
                   "batch_norm": "own" if options.batch_norm in FROZEN_NORMS else options.batch_norm}
    return EasyDict({**options, **{key: value for key, value in wanted.items() if key not in options.typed}})


def build_splits(options: EasyDict, *, log: RunLog, rank: int, world: int) -> tuple[Split, Split | None]:
    """The training split, and the validation split with run_eval (else None), converted when needed.

    With overfit both are the training split. Raises OptionError unless all processes have the same data.
    """
    train = prepare_split(**split_options(options, "train"), classes=options.classes, rank=rank, log=log.say)
    val = train if options.overfit else None
    if options.run_eval and not options.overfit:
        origin = "that of --classes" if options.classes else f"that of the training split {train.name}"
        with classes_from(f"the list is {origin}: give the validation split of the same data"):
            val = prepare_split(**split_options(options, "val"), classes=train.classes, rank=rank, log=log.say)
    splits = [split for split in (train, val) if split]
    check_equal({f"the data of {split.name}": describe_split(split) for split in splits}, rank, world)
    return train, val


def choose_model(options: EasyDict, split: Split, *, log: RunLog, rank: int, world: int) -> EasyDict:
    """The options with the network and the input size that --model=auto stands for; the same with a named model.

    split: of training. In the recipe of auto it also chooses what the weights of --pre_trained need.
    """
    if options.model != "auto":
        return options
    own = os.path.abspath(options.config_path) == AUTO_PATH
    means = means_of(options.device_target, options.minutes, epochs=options.epoch_size, batch=options.batch_size)
    choose = ModelChooser(means, image_size=options.image_size, threshold=options.match_threshold, seed=options.seed,
                          log=log, rank=rank, world=world)
    chosen = choose(split, open_weights(options.pre_trained) if options.pre_trained else None)
    chosen = {name: value for name, value in chosen.items()
              if name in ("model", "image_size") or own and name not in options.typed}
    words = " ".join(f"--{name}={value}" for name, value in chosen.items())
    log.say(f"the same without auto: --config_path={os.path.relpath(options.config_path)} {words}")
    ms.set_seed(options.seed)  # the networks that were compared have drawn weights
    options = EasyDict({**options, **chosen})
    check_options(options)
    return options


def build_training_model(options: EasyDict, classes: list[str], *, log: RunLog, world: int) -> tuple[Model, int]:
    """The Model with its initial weights, and how many of its tensors are frozen."""
    model = build_model(options.model, len(classes) + 1, image_size=options.image_size, width=options.width)
    if options.loss != "auto":  # else the score function is that of the published model
        model = dataclasses.replace(model, score=SCORES[options.loss])
    network, frozen = model.network, split_names(options.freeze_layer)
    if options.weight_init == "he":
        # pixels deviate by IMAGENET_STD; where a model divides by more, norms follow, and the weights are kept
        deviation = max(np.mean(IMAGENET_STD) / np.mean(model.std), 1.0)
        he_initialize(network, model.num_classes, options.seed, input_deviation=deviation)
    if options.pre_trained and not options.resume:
        file = open_weights(options.pre_trained)
        found = None if file.meta else recognise(file)
        if found:
            log.say(f"recognised: {options.pre_trained} is {found.words()}")
        report = load_pretrained(network, file, model.name, classes=classes, by_class=options.filter_weight,
                                 frozen=frozen, file_model=found.model if found else "")
        log.say(report.text(file.path))
        log.keep("pre_trained.txt", report.text(file.path, rows=None))
        if file.meta.get("anchor_shapes") and not options.anchors:
            log.say("  note: these weights are trained for anchors of their own; --anchors=FILE with the anchors.json "
                    "of that run keeps them")
    choose_norms(network, options.batch_norm, world)
    if options.norm_momentum:
        hasten_norms(network, options.norm_momentum)
    return model, freeze_layers(network, frozen)


def choose_kernels(options: EasyDict, model: Model, log: RunLog) -> str:
    """Gives the Model our own kernels where it can have them -> the path of their library, else ""."""
    possible = options.device_target == "CPU" and options.amp_level == "O0" and options.cpu_kernels == "own"
    return try_own_kernels(model.network, log.say) if possible else ""


def choose_anchors(options: EasyDict, model: Model, split: Split, *, saved: Saved | None, log: RunLog, rank: int,
                   world: int) -> Model:
    """The Model with the anchors of a new run, or with those that a resumed run was saved with. split: of training."""
    if saved:
        shapes = saved.meta.get("anchor_shapes")
        return with_shapes(model, shapes) if shapes else model
    choose = AnchorChooser(options.anchors, threshold=options.match_threshold, seed=options.seed,
                           max_images=options.overfit, log=log, rank=rank, world=world)
    return choose(model, split)


def build_loader(options: EasyDict, split: Split, model: Model, *, rank: int, world: int) -> TrainLoader:
    """The TrainLoader of a Split for a Model. Raises DataError when no box can be trained on."""
    matcher = Matcher(model.anchors, options.match_threshold, options.matching)
    rows = min(options.overfit or split.count, split.count)
    batch_size = min(options.batch_size, -(-rows // (options.accumulate * world)))  # not larger than the data
    workers = options.num_workers or loader_threads()
    loader = TrainLoader(split.files, matcher, rows=rows, policy=options.augmentation, image_size=model.image_size,
                         batch_size=batch_size * options.accumulate, seed=options.seed, rank=rank, world=world,
                         workers=workers, processes=use_processes(options.worker_kind, workers),
                         use_difficult=options.use_difficult, fill=model.mean, class_balance=options.class_balance,
                         mosaic=options.mosaic,
                         mosaic_epochs=math.inf if options.minutes else options.epoch_size - options.mosaic_off_epochs)
    if not loader.has_targets():
        raise DataError(f"{split.name} has no box to train on: {why_no_boxes(options, split)}")
    return loader


def build_loss(options: EasyDict, score: str, anchors: np.ndarray) -> DetectionLoss:
    """The DetectionLoss of a score function and anchors [A, 4] cx, cy, w, h."""
    name = PUBLISHED_LOSSES[score] if options.loss == "auto" else options.loss
    smoothing = options.label_smoothing
    classifications = {
        "focal": FocalLoss(options.gamma, options.alpha, label_smoothing=smoothing),
        "quality": QualityFocalLoss(options.gamma),
        "varifocal": VarifocalLoss(options.gamma, options.alpha),
        "multibox": MultiBoxLoss(options.negative_ratio, options.empty_negatives, label_smoothing=smoothing)}
    boxes = {"smooth_l1": SmoothL1Loss(), "giou": GIoULoss(), "ciou": CIoULoss(anchors)}
    # "local" and "batch" differ in global_positives of the TrainStep alone, see build_step()
    return DetectionLoss(classifications[name], "image" if options.loss_normalizer == "image" else "batch",
                         box=boxes[options.box_loss], box_weight=options.box_weight)


def build_rates(options: EasyDict, steps_per_epoch: int, total_steps: int = 0) -> np.ndarray:
    """Learning rate of every step of the run, [steps] float32.

    total_steps: of a run with --minutes, in which milestones keep their share of the run, and the warm-up its length up
    to WARM_SHARE of it. 0: all epochs.
    """
    total = options.epoch_size * steps_per_epoch
    warm = options.warmup_steps or round(options.warmup_epochs * steps_per_epoch)
    if total_steps:
        steps_per_epoch, total = total_steps / options.epoch_size, total_steps
        warm = min(warm, round(WARM_SHARE * total))
    if options.lr_schedule == "cosine":
        rates = cosine(options.lr, lr_end=options.lr * options.lr_end_rate, start=warm, total_steps=total)
    else:
        milestones = [round(float(epoch) * steps_per_epoch) for epoch in options.lr_milestones]
        factors = [float(factor) for factor in options.lr_factors]
        rates = multistep(options.lr, milestones=milestones, factors=factors, total_steps=total)
    return warmup(rates, options.lr_init, warm)


def build_timer(options: EasyDict, steps_per_epoch: int, *, began: float, saved: Saved | None) -> RunTimer | None:
    """The RunTimer of --minutes, None without. began: when the program was started, as of time.monotonic().

    A run that was resumed before its plan was made has used up minutes already.
    """
    if not options.minutes:
        return None
    began -= saved.meta.get("spent", 0.0) if saved else 0.0
    kept = {name: math.inf for name in ("eval_interval", "save_checkpoint_epochs") if name in options.typed}
    return RunTimer(options.minutes, began, rates_of=partial(build_rates, options, steps_per_epoch),
                    steps_per_epoch=steps_per_epoch, eval_interval=options.eval_interval,
                    save_interval=options.save_checkpoint_epochs,
                    eval_share=kept.get("eval_interval", EVALUATIONS),
                    save_share=kept.get("save_checkpoint_epochs", SAVES),
                    mosaic_share=max(1 - options.mosaic_off_epochs / options.epoch_size, 0))


def build_step(options: EasyDict, model: Model, rates: np.ndarray, *, world: int, kernels: str = "") -> TrainStep:
    """The TrainStep with loss, optimiser and precision. rates: of every step, or the first alone, []."""
    optimizer = build_optimizer(model.network.trainable_params(), rates, kind=options.optimizer,
                                momentum=options.momentum, weight_decay=options.weight_decay,
                                decay_exclude=options.decay_exclude, body_lr=options.body_lr)
    average = WeightAverage(model.network, options.ema_decay) if options.ema_decay else None
    loss = build_loss(options, model.score, model.anchors)
    if kernels:
        use_own_losses(loss, kernels)
    return TrainStep(mixed_precision(model, options.amp_level, options.amp_type), loss, optimizer,
                     loss_scale=options.loss_scale, dynamic=options.dynamic_loss_scale,
                     grad_clip=options.grad_clip, grad_clip_value=options.grad_clip_value, world=world,
                     global_positives=options.loss_normalizer == "batch", micro_steps=options.accumulate,
                     average=average, kernels=kernels)


def build_state(options: EasyDict, steps_per_epoch: int, saved: Saved | None) -> RunState:
    """Where the run starts: where the Saved of a resumed run is, or after the epochs of the pretrained checkpoint."""
    plan = saved.meta.get("plan") if saved and options.minutes else None
    total = UNPLANNED if options.minutes else options.epoch_size * steps_per_epoch
    if plan:  # its steps, in those of this start
        total = round(plan["steps"] * steps_per_epoch / saved.meta["steps_per_epoch"])
    limits = {"steps_per_epoch": steps_per_epoch, "total_steps": min(total, options.max_steps or total),
              "early_stop": options.early_stop}
    if saved:
        return RunState.from_meta(saved.meta, **limits, plan={**plan, "steps": total} if plan else {})
    return RunState(**limits, steps_done=options.pre_trained_epoch_size * steps_per_epoch)


def build_validator(options: EasyDict, model: Model, step: TrainStep, *, split: Split | None, log: RunLog, rank: int,
                    world: int) -> Validator | None:
    """The Validator on a Split, None without one. Its Predictor shares the network of the Model."""
    if split is None:
        return None
    truth = first_images(read_json(split.ground_truth), options.overfit or options.eval_images)
    loader = EvalLoader(split.files, rows=len(truth["images"]), image_size=model.image_size,
                        batch_size=options.eval_batch_size, rank=rank, world=world,
                        workers=options.num_workers or loader_threads(), resize=options.resize)
    predict = from_model(model, split.classes, thresholds=options, batch_size=options.eval_batch_size)
    return Validator(step, predict, loader, truth=truth, image_dir=split.image_dir, folder=options.output_path, log=log,
                     dataset=options.dataset, engine=options.metric_engine, draw_score=options.draw_score,
                     interval=options.eval_interval, start_epoch=options.eval_start_epoch,
                     overfit=bool(options.overfit), rank=rank, world=world)


def describe_run(options: EasyDict, model: Model, loader: TrainLoader, *, classes: int, frozen: int) -> dict:
    """The first row of log.jsonl. frozen: tensors that are not trained."""
    return {"mindspore": ms.__version__, "numpy": np.__version__, "device": options.device_target,
            "processes": loader.world, "model": model.name, "image_size": model.image_size, "frozen_tensors": frozen,
            "parameters": sum(parameter.size for parameter in model.network.trainable_params()),
            "anchors": len(model.anchors), "classes": classes, "train_images": loader.rows,
            "batch": loader.batch_size * loader.world, "steps_per_epoch": loader.steps, "commit": git_commit(),
            "time": time.strftime("%Y-%m-%d %H:%M:%S")}


def build_facts(options: EasyDict, model: Model, split: Split, *, world: int) -> dict:
    """What the checkpoints of a run say of themselves beside its RunState. split: of training."""
    return describe(model, split.classes, options, category_ids=split.category_ids, options=graph_options(options),
                    commit=git_commit(), processes=world, train_images=split.count, annotations=split.fingerprint[:12])


def build_saver(options: EasyDict, step: TrainStep, state: RunState, *, facts: dict, rank: int, world: int) -> Saver:
    """The Saver into ckpt/ of the folder of the run."""
    return Saver(step, os.path.join(options.output_path, "ckpt"), facts=facts, rank=rank, world=world,
                 step_interval=options.save_checkpoint_steps, epoch_interval=options.save_checkpoint_epochs,
                 max_numbered=options.keep_checkpoint_max, last_saved=state.steps_done if options.resume else None)
