"""What a recipe chooses: data, loss, learning rates, precision, the training step."""
import dataclasses

from mindspore import dtype as mstype

from src.data.loader import TrainLoader
from src.ema import WeightAverage
from src.errors import DataError, OptionError
from src.losses import DetectionLoss, FocalLoss, MultiBoxLoss
from src.lr_schedule import cosine, multistep, warmup
from src.machine.compat import auto_mixed_precision
from src.machine.process import loader_threads
from src.matching import Matcher
from src.models.freeze import freeze_layers
from src.models.layers import L2Norm
from src.models.ssd import build_model
from src.optim import build_optimizer
from src.text import split_names
from src.training.step import TrainStep

SCORES = {"focal": "sigmoid", "multibox": "softmax"}  # what a loss trains logits to be
# the self-test of --overfit: from nothing to boxes of a few images by heart, whatever the recipe trains for
OVERFIT = {"augmentation": "plain", "run_eval": True, "epoch_size": 300, "eval_interval": 25,
           "save_checkpoint_epochs": 300, "lr_schedule": "cosine", "lr": 0.02, "lr_init": 0.002, "warmup_epochs": 0.0,
           "warmup_steps": 20, "grad_clip": 10.0, "lr_batch": 0, "weight_decay": 0.0, "min_score": 0.05}


def choose_overfit(options):
    """The options of --overfit=N: N images, their own evaluation, and OVERFIT, where nothing else was typed."""
    if options.overfit:
        wanted = {**OVERFIT, "batch_size": min(options.batch_size, options.overfit),
                  "weight_init": options.weight_init if options.pre_trained else "he"}
        options.update({key: value for key, value in wanted.items() if key not in options.typed})


def scaling_hint(options, world, batch=0):
    """What the linear rule (https://arxiv.org/abs/1706.02677 section 2.1) makes of lr, "" where lr is meant for it.

    batch: images of a step over all processes, where that is not what the options say.
    """
    batch = batch or options.batch_size * options.accumulate * world
    if options.lr_batch in (0, batch) or "lr" in options.typed:
        return ""
    return (f"lr {options.lr:g} is for a batch of {options.lr_batch}; this run has {batch}, for which the linear rule "
            f"gives --lr={options.lr * batch / options.lr_batch:.3g}")


def start_hint(options):
    """What training from scratch lacks, "" where weights come from somewhere."""
    if options.pre_trained or options.resume or options.weight_init != "published":
        return ""
    return ("no --pre_trained weights: --weight_init=published is meant for a pretrained backbone; from scratch "
            "--weight_init=he learns sooner")


def choose_score(model, loss):
    """The Model with the score function that belongs to a loss; "auto" leaves the published one."""
    return model if loss == "auto" else dataclasses.replace(model, score=SCORES[loss])


def build_loader(options, split, model, rank, world):
    """The TrainLoader of a Split for a Model, of the first `overfit` images where that is set.

    A batch larger than the images there are is cut. Raises DataError when no box can be trained on.
    """
    matcher = Matcher(model.anchors, options.match_threshold, options.matching)
    rows = min(options.overfit or split.count, split.count)
    loader = TrainLoader(split.files, matcher, rows=rows, policy=options.augmentation, image_size=model.image_size,
                         batch_size=fitting_batch(options, rows, world) * options.accumulate, seed=options.seed,
                         rank=rank, world=world, workers=options.num_workers or loader_threads(),
                         use_difficult=options.use_difficult, fill=model.mean)
    if not loader.has_targets():
        raise DataError(f"{split.name} has no box to train on: {why_no_boxes(options, split)}")
    return loader


def fitting_batch(options, rows, world):
    """batch_size, or the least one that takes all images in one step where those are fewer."""
    return min(options.batch_size, -(-rows // (options.accumulate * world)))


def why_no_boxes(options, split):
    """What became of the boxes of a Split none of which can be trained on, and what to do, in words."""
    if not sum(split.boxes_per_class):
        return (f"none was left at conversion, see {split.report}; correct the annotations, --classes or the options "
                "that say where they are")
    if options.overfit:
        return f"none of its first {options.overfit} images has one that is not a crowd; give a larger --overfit"
    hint = "" if options.use_difficult else ", or set --use_difficult=True"
    return f"all {sum(split.boxes_per_class)} are marked crowd or difficult; annotate single objects{hint}"


def batch_hint(options, loader):
    """What is not as batch_size says, in words, or ""."""
    wanted, steps = options.batch_size * options.accumulate * loader.world, loader.steps
    images = f"{loader.rows} image{'s' if loader.rows > 1 else ''}"
    batch = loader.batch_size * loader.world
    cut = (f"a batch of {wanted} over all processes is more than {images}: it is cut to {batch}"
           if batch < wanted else "")
    filled = (f"{images} in {steps} step{'s' if steps > 1 else ''} of {batch}: the last one of an epoch is filled up "
              f"with {loader.repeated()} of its first images") if loader.repeated() else ""
    return "; ".join(filter(None, (cut, filled)))


def build_loss(options, score):
    """The DetectionLoss of a score function."""
    if score == "sigmoid":
        classification = FocalLoss(options.gamma, options.alpha)
    else:
        classification = MultiBoxLoss(options.negative_ratio, options.empty_negatives)
    return DetectionLoss(classification, "image" if options.loss_normalizer == "image" else "batch")


def build_rates(options, epoch_steps):
    """Learning rate of every step of the run, [steps] float32."""
    total = options.epoch_size * epoch_steps
    warm = options.warmup_steps or round(options.warmup_epochs * epoch_steps)
    if options.lr_schedule == "cosine":
        rates = cosine(options.lr, lr_end=options.lr * options.lr_end_rate, start=warm, total_steps=total)
    else:
        milestones, factors = ([float(one) for one in options[name]] for name in ("lr_milestones", "lr_factors"))
        rates = multistep(options.lr, milestones=[round(one * epoch_steps) for one in milestones], factors=factors,
                          total_steps=total)
    return warmup(rates, options.lr_init, warm)


def check_milestones(options):
    """Raises OptionError unless the lists of a multistep schedule are rising epochs and as many factors, and unless
    epochs are left that the pretrained checkpoint did not see."""
    if not options.resume and options.pre_trained_epoch_size >= options.epoch_size:
        raise OptionError(f"pre_trained_epoch_size={options.pre_trained_epoch_size} leaves none of the "
                          f"{options.epoch_size} epochs of --epoch_size; raise it to the epochs of both together")
    try:
        milestones, factors = ([float(one) for one in options[name]] for name in ("lr_milestones", "lr_factors"))
    except ValueError as error:
        raise OptionError(f"lr_milestones={options.lr_milestones}, lr_factors={options.lr_factors}: {error}") from error
    fitting = sorted(set(milestones)) == milestones and len(milestones) == len(factors)
    if options.lr_schedule == "multistep" and not fitting:
        raise OptionError(f"lr_milestones={milestones} and lr_factors={factors}: expected as many rising epochs as "
                          "factors, for example [43,54] and [0.1,0.01]")


def check_weights(options):
    """Raises OptionError where parts of the network are to stay as they are, but no weights are given: random ones.

    A misspelt name of a layer is told before that.
    """
    if options.pre_trained or options.resume:
        return
    frozen = split_names(options.freeze_layer)
    if frozen:
        freeze_layers(build_model(options.model, 2, image_size=options.image_size, width=options.width).network, frozen)
    reasons = {"freeze_layer": frozen and "keeps those layers at their random initial values",
               "filter_weight": options.filter_weight and "leaves class layers of those weights out",
               "batch_norm": options.batch_norm == "frozen" and "keeps statistics that no training has measured"}
    for key, reason in reasons.items():
        if reason:
            off = {"freeze_layer": "", "filter_weight": False, "batch_norm": "own"}[key]
            raise OptionError(f"{key}={options[key]} without --pre_trained {reason}; give --pre_trained=FILE "
                              f"(ckpt/README.md says where weights come from), or --{key}={off} to train from scratch")


def build_step(options, model, rates, world):
    """The TrainStep with loss, optimiser and precision. rates: of every step, as of build_rates."""
    optimizer = build_optimizer(model.network.trainable_params(), rates, kind=options.optimizer,
                                momentum=options.momentum, weight_decay=options.weight_decay,
                                decay_exclude=options.decay_exclude, body_lr=options.body_lr)
    average = WeightAverage(model.network, options.ema_decay) if options.ema_decay else None
    return TrainStep(mixed_precision(model, options.amp_level, options.amp_type), build_loss(options, model.score),
                     optimizer, loss_scale=options.loss_scale, dynamic=options.dynamic_loss_scale,
                     grad_clip=options.grad_clip, grad_clip_value=options.grad_clip_value, world=world,
                     global_positives=options.loss_normalizer == "batch", micro_steps=options.accumulate,
                     average=average)


def mixed_precision(model, level, kind="float16"):
    """The Model with its network cast as amp_level says; the loss stays in float32 whatever the level.

    kind: the short type, float16 or bfloat16.
    """
    if level == "O0":
        return model
    network = auto_mixed_precision(model.network, level, kind)
    for _, cell in network.cells_and_names():
        if isinstance(cell, L2Norm) and level in ("O2", "O3"):
            cell.to_float(mstype.float32)  # else PyNative mode takes its sum of squares in the short type
    return dataclasses.replace(model, network=network)
