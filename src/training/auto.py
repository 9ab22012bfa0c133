"""--model=auto: the network and the input size whose anchors match the boxes best, within the memory and the time."""
from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from src.anchor_fit import fit_anchors, read_boxes, share_matched
from src.data.prepare import Split
from src.errors import DataError, OptionError
from src.files import read_json
from src.machine.compat import without_initial_weights
from src.machine.distributed import gather_rows
from src.machine.process import loader_threads
from src.models.facts import read_facts
from src.models.ssd import Model, build_model
from src.training.log import RunLog
from src.weights.files import WeightFile
from src.weights.load import assign, class_parameters, translate_weights

# Input sizes that are tried, pixels. The first two learn small data sets from scratch too; the others want a GPU and
# weights to start from.
SIZES = {"ssd300_mobilenet_v2_tf": (300, 384, 512), "ssd_mobilenet_v2_fpnlite": (256, 320, 384, 448, 512, 640),
         "ssd300_resnet50": (300,), "ssd_resnet50_fpn": (640,)}
SMALL = ("ssd300_mobilenet_v2_tf", "ssd_mobilenet_v2_fpnlite")
# Numbers that convolutions, norms and activations put out in a second of training; networks differ less in it than in
# GMACs. CPU: a core of an AMD EPYC with AVX-512 and our kernels (bench/README.md, a step of 4 images:
# ssd300_mobilenet_v2 at 300 pixels 0.255 s, ssd_mobilenet_v2_fpnlite at 320 0.310 s); bench/auto_speed.py measures it
# where nothing else runs. GPU: a V100, the published speeds of docs/costs.md lie between 4e9 and 10e9. For the order of
# size: --minutes measures.
SPEEDS = {"CPU": 0.6e9, "GPU": 6e9, "Ascend": 6e9}
NIGHT = 480               # minutes of a run where --minutes does not say it
MIN_EPOCHS = 20           # of a run with --minutes: fewer teach little, fewer pixels are then better
TRAINING_SHARE = 0.7      # of the minutes; the rest is compiling, evaluations and checkpoints
MEMORY_SHARE = 0.5        # of what is free: MindSpore and the loader need the rest
CARD_MEMORY = 11e9        # bytes of a GPU, which is not asked
MAX_BOXES = 1000          # that anchors are fitted to for the comparison
FOLDED = ("tfjs",)        # kinds of weight files whose norms are folded away: norms of batches would spoil them
TOLERANCE = 0.02          # the least work counts among those that match so much less than the best
WHOLE_GAIN = 0.1          # what another network must match more than one that the weights fill, head included


class Means(NamedTuple):
    """What there is to train with."""
    device: str     # a key of SPEEDS
    cores: int      # of the processor
    memory: float   # bytes that are free
    seconds: float  # for steps of training
    epochs: int     # that should fit into them
    batch: int      # images a step
    timed: bool     # whether --minutes says how long; else it may take a night

    def time_for(self) -> str:
        """What a candidate should have, in words."""
        return f"time for {self.epochs} epochs" + ("" if self.timed else f" in {NIGHT // 60} hours")


class Candidate(NamedTuple):
    """A network at an input size, and what it takes."""
    model: str
    image_size: int
    share: float     # of the boxes that anchors fitted to them match
    seconds: float   # of training an image, estimated
    memory: float    # bytes of training, estimated
    filled: bool     # whether the weights to start from fill all of it but the classes


def means_of(device: str, minutes: float, *, epochs: int, batch: int) -> Means:
    """The Means of this machine. minutes: of the run, 0: a night for these epochs; batch: images a step."""
    memory = CARD_MEMORY
    if device == "CPU":
        with open("/proc/meminfo", encoding="ascii") as file:
            available, = (line.split()[1] for line in file if line.startswith("MemAvailable:"))
        memory = float(available) * 1024 * MEMORY_SHARE
    return Means(device, loader_threads(), memory, 60 * TRAINING_SHARE * (minutes or NIGHT),
                 MIN_EPOCHS if minutes else epochs, batch, bool(minutes))


class ModelChooser:
    """Chooses the network for a Split, the same in all processes.

    image_size: the only one, 0 for any; threshold: IoU of a match; seed: of the choice among very many boxes.
    """

    def __init__(self, means: Means, *, image_size: int, threshold: float, seed: int, log: RunLog, rank: int,
                 world: int):
        self.means, self.image_size, self.threshold, self.seed = means, image_size, threshold, seed
        self.log, self.rank, self.world = log, rank, world

    def __call__(self, split: Split, weights: WeightFile | None) -> dict:
        """Options by name: model, image_size, and what the weights to start from need. Raises OptionError."""
        if weights and "model" in weights.meta:
            self.log.say(f"--model=auto is {weights.meta['model']}, of which '{weights.path}' is")
            new_head = list(weights.meta["classes"]) != list(split.classes)
            return {**{name: weights.meta[name] for name in ("model", "image_size")}, "filter_weight": new_head}
        row = np.zeros((0, 3), np.float32)
        if self.rank == 0:
            chosen = self.choose(split, weights)
            row = np.float32([[list(SIZES).index(chosen.model), chosen.image_size, chosen.filled]])
        number, image_size, filled = gather_rows(row, self.rank, self.world)[0].astype(int).tolist()
        chosen = {"model": list(SIZES)[number], "image_size": image_size}
        if weights:
            chosen["filter_weight"] = True
        if weights and weights.kind in FOLDED:
            chosen["batch_norm"] = "frozen" if filled else "frozen_backbone"
        return chosen

    def choose(self, split: Split, weights: WeightFile | None) -> Candidate:
        """The Candidate for a Split; says what was compared and why it is the candidate."""
        boxes, _, total = read_boxes(read_json(split.ground_truth), self.seed, MAX_BOXES)
        if not total:
            raise DataError(f"--model=auto needs boxes to choose by, and {split.name} has none, see {split.report}")
        self.log.say(f"--model=auto compares networks on {len(boxes)} boxes of {split.name}; time and memory are "
                     f"estimates:\n{heading(self.means)}")
        found = []
        for candidate in candidates(boxes, self.means, image_size=self.image_size, threshold=self.threshold,
                              weights=weights):
            found.append(candidate)
            self.log.say(line_of(candidate, self.means, split.count))
        chosen, why = choose(found, self.means, images=split.count)
        self.log.say(f"chosen: {chosen.model} at {chosen.image_size} pixels, {why}")
        return chosen


def candidates(boxes: np.ndarray, means: Means, *, image_size: int, threshold: float,
               weights: WeightFile | None) -> Iterator[Candidate]:
    """What may be chosen for boxes [N, 4], N > 0. image_size: the only one, 0 for any; weights: to start from."""
    facts = read_facts()
    for name in SIZES if weights and means.device != "CPU" else SMALL:
        start = None
        for size in (image_size,) if image_size else SIZES[name]:
            try:
                with without_initial_weights():  # shapes and anchors are compared
                    model = build_model(name, 2, image_size=size)
            except OptionError:  # another multiple is needed
                continue
            start = start or how_filled(model, weights)
            if start == "not":
                break
            fit = fit_anchors(boxes, model.anchors, model.levels(), threshold=threshold, image_size=size)
            share = max(share_matched(best, threshold) for best in (fit.before, fit.after))
            outputs = outputs_of(facts[name], size)
            speed = SPEEDS[means.device] * (means.cores if means.device == "CPU" else 1)
            # float32: outputs of all images; weights, gradients and two moments at most (docs/costs.md)
            memory = 4 * (outputs * means.batch + 4 * facts[name]["parameters"])
            yield Candidate(name, size, float(share), outputs / speed, memory, start == "whole")


def outputs_of(facts: dict, image_size: int) -> float:
    """Numbers that the layers of a network put out for an image of this size. facts: of the network, read_facts()."""
    return facts["activations"] * (image_size / facts["image_size"]) ** 2


def how_filled(model: Model, weights: WeightFile | None) -> str:
    """How much of a new network a weight file fills: "whole" but for the classes, "backbone", or "not"."""
    if weights is None:
        return "backbone"
    classes = class_parameters(model.network)
    loaded = assign(model.network, translate_weights(model.network, weights), classes).loaded
    # norms and biases need no file, and files with folded norms lack them
    missing = {parameter.name for parameter in model.network.get_parameters()
               if parameter.name.endswith(".weight")} - {*loaded, *classes}
    if not missing:
        return "whole"
    return "not" if any(name.startswith("backbone.") for name in missing) else "backbone"


def choose(found: Sequence[Candidate], means: Means, *, images: int) -> tuple[Candidate, str]:
    """The best of the candidates for a data set of so many images, and why, in words. Raises OptionError for none."""
    if not found:
        raise OptionError(f"--model=auto knows {', '.join(SIZES)}, and none of them fits --image_size and "
                          "--pre_trained; give --model=NAME")
    fitting = [candidate for candidate in found if candidate.memory <= means.memory]
    quick = [candidate for candidate in fitting if epochs_of(candidate, means, images) >= means.epochs]
    if not quick:
        if not fitting:
            return (min(found, key=operator.attrgetter("memory")),
                    f"which needs the least memory: none has enough in {means.memory / 1e9:.1f} GB")
        # in little time weights are worth more than anchors
        chosen = min(fitting, key=lambda candidate: (not candidate.filled, candidate.seconds))
        what = "the fastest that the weights fill" if chosen.filled else "the fastest"
        return chosen, f"{what}: none has {means.time_for()}"
    value = {candidate: candidate.share + WHOLE_GAIN * candidate.filled for candidate in quick}
    best = max(value.values())
    chosen = min((candidate for candidate in quick if value[candidate] >= best - TOLERANCE),
                 key=operator.attrgetter("seconds"))
    if chosen.filled and chosen.share < max(candidate.share for candidate in quick) - TOLERANCE:
        return chosen, f"the weights fill it, and no other matches {WHOLE_GAIN:.0%} of the boxes more"
    return chosen, (f"the least work of those with {means.time_for()} that match almost as many boxes as the best of "
                    f"them ({TOLERANCE:.0%} less at most)")


def epochs_of(candidate: Candidate, means: Means, images: int) -> float:
    """How many epochs there is time for."""
    return means.seconds / (candidate.seconds * images)


def heading(means: Means) -> str:
    """What stands above line_of."""
    last = "epochs in --minutes" if means.timed else f"{means.epochs} epochs"
    return f"  {'network':<24} pixels  boxes matched  s an image   memory  {last}"


def line_of(candidate: Candidate, means: Means, images: int) -> str:
    """A candidate as a row."""
    last = f"{epochs_of(candidate, means, images):.1f}"
    if not means.timed:
        last = f"{candidate.seconds * images * means.epochs / TRAINING_SHARE / 3600:.1f} hours"
    return (f"  {candidate.model:<24} {candidate.image_size:>6} {candidate.share:>14.1%} {candidate.seconds:>11.3f} "
            f"{candidate.memory / 1e9:>5.1f} GB  {last}{'  filled by the weights' if candidate.filled else ''}")
