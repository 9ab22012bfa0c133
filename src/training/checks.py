"""What is wrong with the options of a training, before any data is converted, and what a user should know of them."""
from __future__ import annotations

import os

from easydict import EasyDict

from src.data.loader import TrainLoader
from src.data.prepare import Split
from src.errors import EnvironmentFault, OptionError
from src.metrics import import_engine
from src.models.freeze import FROZEN_NORMS, freeze_layers
from src.models.ssd import BUILDERS, build_model
from src.text import split_names
from src.training.anchors import with_file

MAX_CLASSES = 10  # that a line names


def check_options(options: EasyDict) -> None:
    """Raises what would come out only after the data was converted, which can take minutes."""
    if options.model == "auto":
        check_auto(options)
    elif options.model not in BUILDERS:
        build_model(options.model, 2)  # raises
    if options.pre_trained and not options.resume and not os.path.exists(options.pre_trained):
        raise OptionError(f"--pre_trained '{options.pre_trained}' is not a file")
    check_epochs(options)
    check_minutes(options)
    if options.label_smoothing > 0 and options.loss in ("quality", "varifocal"):
        raise OptionError(f"--label_smoothing={options.label_smoothing} is of --loss=focal and multibox; the targets "
                          f"of --loss={options.loss} are IoUs already, leave it out")
    if options.anchors not in ("", "auto") and not options.resume and options.model != "auto":
        with_file(build_model(options.model, 2, image_size=options.image_size, width=options.width), options.anchors)
    if options.run_eval or options.overfit:
        import_engine(options.metric_engine)
    if options.device_target == "CPU" and options.amp_level == "O1":
        raise EnvironmentFault("--amp_level=O1 cannot be used on CPU: MindSpore 2.10 exceeds its own limit of nested "
                               "calls on it; O0, O2 and O3 run there (slower than O0), auto may")
    if options.device_target == "CPU" and options.amp_level != "O0" and options.amp_type == "bfloat16":
        raise EnvironmentFault("--amp_type=bfloat16 cannot be used on CPU: MindSpore 2.10 has no convolution of it; "
                               "float16 runs")


def check_auto(options: EasyDict) -> None:
    """Raises OptionError where an option is of one network, which --model=auto will choose only later."""
    given = {"anchors": options.anchors not in ("", "auto"), "freeze_layer": bool(options.freeze_layer),
             "width": options.width != 1}
    for name in [name for name, is_given in given.items() if is_given]:
        raise OptionError(f"--{name}={options[name]} with --model=auto: it fits one network; give --model=NAME, or "
                          "leave it out")
    if options.resume:
        raise OptionError("--resume=True with --model=auto: the config.yaml of the run says what was chosen; leave "
                          "--model and --config_path out")


def check_epochs(options: EasyDict) -> None:
    """Raises OptionError unless a multistep schedule has rising epochs and as many factors, and unless epochs are left
    after those of the pretrained checkpoint."""
    if not options.resume and options.pre_trained_epoch_size >= options.epoch_size:
        raise OptionError(f"--pre_trained_epoch_size={options.pre_trained_epoch_size} leaves none of the "
                          f"{options.epoch_size} epochs of --epoch_size; raise it to the epochs of both together")
    try:
        milestones = [float(epoch) for epoch in options.lr_milestones]
        factors = [float(factor) for factor in options.lr_factors]
    except ValueError as error:
        raise OptionError(f"--lr_milestones={options.lr_milestones}, --lr_factors={options.lr_factors}: "
                          f"{error}") from error
    fitting = sorted(set(milestones)) == milestones and len(milestones) == len(factors)
    if options.lr_schedule == "multistep" and not fitting:
        raise OptionError(f"--lr_milestones={milestones} and --lr_factors={factors}: expected as many rising epochs as "
                          "factors, for example [43,54] and [0.1,0.01]")


def check_minutes(options: EasyDict) -> None:
    """Raises OptionError where something else than --minutes says how long the run is."""
    if not options.minutes:
        return
    for name in ("max_steps", "pre_trained_epoch_size", "overfit", "epoch_size"):
        if options[name] and (name != "epoch_size" or name in options.typed):
            raise OptionError(f"--{name}={options[name]} and --minutes={options.minutes:g}: with --minutes the time "
                              "decides how many steps the run has; leave one of the two out (--minutes=0)")


def check_weights(options: EasyDict) -> None:
    """Raises OptionError where a part of the network stays as it is, but no weights are given: it would stay random."""
    if options.pre_trained or options.resume:
        return
    frozen = split_names(options.freeze_layer)
    if frozen:  # a misspelt name comes first
        model = build_model(options.model, 2, image_size=options.image_size, width=options.width)
        freeze_layers(model.network, frozen)
    for name, is_set, off, effect in (
            ("freeze_layer", bool(frozen), "", "keeps those layers at their random initial values"),
            ("filter_weight", options.filter_weight, False, "takes outputs of classes out of those weights"),
            ("batch_norm", options.batch_norm in FROZEN_NORMS, "own", "keeps statistics no training has measured")):
        if is_set:
            raise OptionError(f"--{name}={options[name]} without --pre_trained {effect}; give --pre_trained=FILE "
                              f"(ckpt/README.md says where weights come from), or --{name}={off} to train from scratch")


def why_no_boxes(options: EasyDict, split: Split) -> str:
    """Why none of the boxes of a Split can be trained on, and what to do."""
    boxes = sum(split.boxes_per_class)
    if not boxes:
        return (f"none was left at conversion, see {split.report}; correct the annotations, --classes or the options "
                "that say where they are")
    if options.overfit:
        return f"none of its first {options.overfit} images has one that is not a crowd; give a larger --overfit"
    hint = "" if options.use_difficult else ", or set --use_difficult=True"
    return f"all {boxes} are marked crowd or difficult; annotate single objects{hint}"


def hints(options: EasyDict, loader: TrainLoader, classes: list[str]) -> list[str]:
    """What a user should know before the first step, a line each. classes: names in the order of their labels."""
    lines = (threshold_hint(options), batch_hint(options, loader), balance_hint(options, loader, classes),
             start_hint(options), scaling_hint(options, loader.batch_size * loader.world), anchor_hint(options, loader))
    return [line for line in lines if line]


def threshold_hint(options: EasyDict) -> str:
    """That a typed match_threshold has no effect, "" where it has one."""
    if options.matching != "atss" or "match_threshold" not in options.typed:
        return ""
    return "--match_threshold is not used: with --matching=atss each box finds its own threshold"


def batch_hint(options: EasyDict, loader: TrainLoader) -> str:
    """How the batches differ from what batch_size says, "" where they do not."""
    asked, batch = options.batch_size * options.accumulate * loader.world, loader.batch_size * loader.world
    parts = []
    if batch < asked:
        images = plural(loader.rows, "image")
        parts.append(f"a batch of {asked} over all processes is more than {images}: it is cut to {batch}")
    if loader.repeated():
        images, steps = plural(loader.sampler.length, "image"), plural(loader.steps, "step")
        parts.append(f"{images} in {steps} of {batch}: the last one of an epoch is filled up with "
                     f"{loader.repeated()} of its first images")
    return "; ".join(parts)


def balance_hint(options: EasyDict, loader: TrainLoader, classes: list[str]) -> str:
    """What class_balance repeats, "" where it is off."""
    if not options.class_balance:
        return ""
    start = f"--class_balance={options.class_balance:g}"
    if not loader.class_factors:
        return f"{start} repeats nothing: every class is in that share of the images, or in more"
    rarest = sorted(loader.class_factors.items(), key=lambda item: -item[1])
    parts = [f"{classes[label - 1]} x {factor:.3g}" for label, factor in rarest[:MAX_CLASSES]]
    if len(rarest) > MAX_CLASSES:
        parts.append(f"{len(rarest) - MAX_CLASSES} more classes less often")
    images = plural(loader.rows, "image")
    return (f"{start}: an epoch has {loader.sampler.length} samples of {images}, because images of rare classes come "
            f"more often: {', '.join(parts)}")


def anchor_hint(options: EasyDict, loader: TrainLoader) -> str:
    """Which boxes of a self-test cannot be memorised, "" for none: its images are few enough to look at all."""
    lost, boxes = loader.unmatched() if options.overfit else (0, 0)
    if not lost:
        return ""
    return (f"{lost} of {boxes} boxes cannot be memorised, because other boxes take the anchors near them; "
            "where that is too many for the self-test, try other images or a larger --image_size")


def plural(number: int, noun: str) -> str:
    """1, "step" -> "1 step"; 2, "step" -> "2 steps"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def start_hint(options: EasyDict) -> str:
    """What training from scratch lacks, "" where weights come from somewhere."""
    if options.pre_trained or options.resume or options.weight_init != "published":
        return ""
    return ("no --pre_trained weights: --weight_init=published is meant for a pretrained backbone; from scratch "
            "--weight_init=he learns sooner")


def scaling_hint(options: EasyDict, batch: int) -> str:
    """What the linear rule (https://arxiv.org/abs/1706.02677 section 2.1) makes of lr, "" where lr is meant for a step
    of `batch` images over all processes."""
    if options.lr_batch in (0, batch) or "lr" in options.typed:
        return ""
    scaled = options.lr * batch / options.lr_batch
    return (f"--lr={options.lr:g} is for a batch of {options.lr_batch}; this run has {batch}, for which the linear "
            f"rule gives --lr={scaled:.3g}")
