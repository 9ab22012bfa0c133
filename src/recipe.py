"""What a recipe chooses: loss, learning rates, precision."""
import dataclasses

from mindspore import amp

from src.errors import OptionError
from src.losses import DetectionLoss, FocalLoss, MultiBoxLoss
from src.lr_schedule import cosine, multistep, warmup

SCORES = {"focal": "sigmoid", "multibox": "softmax"}  # what a loss trains logits to be


def choose_score(model, loss):
    """The Model with the score function that belongs to a loss; "auto" leaves the published one."""
    return model if loss == "auto" else dataclasses.replace(model, score=SCORES[loss])


def build_loss(options, score):
    """The DetectionLoss of a score function."""
    if score == "sigmoid":
        classification = FocalLoss(options.gamma, options.alpha)
    else:
        classification = MultiBoxLoss(options.negative_ratio, options.empty_negatives)
    return DetectionLoss(classification, options.loss_normalizer)


def build_rates(options, epoch_steps):
    """Learning rate of every step of the run, [steps] float32."""
    total = options.epoch_size * epoch_steps
    warm = options.warmup_steps or round(options.warmup_epochs * epoch_steps)
    if options.lr_schedule == "cosine":
        rates = cosine(options.lr, options.lr * options.lr_end_rate, warm, total)
    else:
        milestones, factors = ([float(one) for one in options[name]] for name in ("lr_milestones", "lr_factors"))
        rates = multistep(options.lr, [round(one * epoch_steps) for one in milestones], factors, total)
    return warmup(rates, options.lr_init, warm)


def check_milestones(options):
    """Raises OptionError unless the lists of a multistep schedule are rising epochs and as many factors."""
    try:
        milestones, factors = ([float(one) for one in options[name]] for name in ("lr_milestones", "lr_factors"))
    except ValueError as error:
        raise OptionError(f"lr_milestones={options.lr_milestones}, lr_factors={options.lr_factors}: {error}") from error
    fitting = sorted(set(milestones)) == milestones and len(milestones) == len(factors)
    if options.lr_schedule == "multistep" and not fitting:
        raise OptionError(f"lr_milestones={milestones} and lr_factors={factors}: expected as many rising epochs as "
                          "factors, for example [43,54] and [0.1,0.01]")


def mixed_precision(model, level):
    """The Model with its network cast as amp_level says; the loss stays in float32 whatever the level."""
    if level == "O0":
        return model
    return dataclasses.replace(model, network=amp.auto_mixed_precision(model.network, level))
