"""The arrays of a weight file into a network: all of a detector, or what fits."""
from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import mindspore as ms
import numpy as np

from src.classes import named_classes
from src.ema import averaged
from src.errors import DataError, OptionError
from src.models.ssd import BUILDERS, SSD, Model, build_model
from src.weights.files import WeightFile
from src.weights.names import SOURCES, convert_weights, guess_source

OURS = "ours"    # the source of files that have the names of this repository
MAX_ROWS = 12    # of a list in a report
TRAINING_STATE = ("moments.", "mean_square.", "global_step", "learning_rate", "loss_scale", "good_steps", "ema_",
                  "micro_")


class Translated(NamedTuple):
    """The arrays of a file by the names of a network."""
    arrays: dict[str, np.ndarray]
    unused: Sequence[str] = ()  # names in the file that the rules of its source do not know
    source: str = OURS          # or a key of SOURCES


@dataclass
class LoadReport:
    """What became of the arrays of a file and of the parameters of a network."""
    source: str                                        # as of Translated
    loaded: list[str] = field(default_factory=list)    # names of the parameters that were filled
    skipped: list[str] = field(default_factory=list)   # parameters of another shape, with both shapes
    missing: list[str] = field(default_factory=list)   # parameters that the file does not hold
    left_out: list[str] = field(default_factory=list)  # parameters that were not wanted from the file
    unused: list[str] = field(default_factory=list)    # arrays without a parameter, but for the state of a training

    @property
    def complete(self) -> bool:
        """Whether every parameter was filled."""
        return not self.skipped and not self.missing and not self.left_out

    @property
    def backbone_only(self) -> bool:
        """Whether all of the backbone was filled and nothing of the head. L2Norm starts at 20 in any network."""
        lacking = [name for name in self.missing
                   if name.startswith("backbone.") and not name.startswith("backbone.l2_norm.")]
        has_head = any(name.startswith("head.") for name in self.loaded)
        return not (lacking or has_head or self.skipped)

    def text(self, path: str) -> str:
        """A table for people. path: of the file."""
        lines = [f"weights from {os.path.basename(path)} ({self.source})", f"  {'loaded':<32}{len(self.loaded):>5}"]
        for title, rows in (("skipped, another shape", self.skipped), ("skipped, filter_weight", self.left_out),
                            ("not in the file, new weights", self.missing),
                            ("in the file, no such parameter", self.unused)):
            lines.append(f"  {title:<32}{len(rows):>5}")
            lines += [f"      {row}" for row in rows[:MAX_ROWS]]
            if len(rows) > MAX_ROWS:
                lines.append(f"      ... and {len(rows) - MAX_ROWS} more")
        if self.unused and self.complete:
            lines.append(f"  the {len(self.unused)} left over are not weights of this network: all its parameters are "
                         "filled")
        return "\n".join(lines)


def translate_weights(network: SSD, file: WeightFile, source: str = "auto") -> Translated:
    """The arrays of a file by the names of the network.

    source: of SOURCES, or "auto": OURS if the file has names of the network, else the source whose rules fit best.
    Raises OptionError if none fits, DataError for NaN or infinity in what the network would take.
    """
    shapes = shapes_of(network)
    if source == "auto" and (file.meta or not shapes.keys().isdisjoint(file.arrays)):
        translated = Translated(averaged(file.arrays))
    else:
        found = guess_source(file.arrays, shapes) if source == "auto" else source
        if found is None:
            raise OptionError(f"'{file.path}' fits this network by no known names (it begins with "
                              f"{', '.join(list(file.arrays)[:3])}); known are {', '.join(SOURCES)}; is it of "
                              "another --model or --width?")
        translated = Translated(*convert_weights(found, file.arrays, shapes), found)
    for name in shapes.keys() & translated.arrays.keys():
        array = translated.arrays[name]
        wrong = array.size - int(np.isfinite(array).sum())
        if wrong:
            raise DataError(f"weights '{file.path}': {wrong} of the {array.size} numbers of {name} are NaN or "
                            "infinite; the file is damaged or of a training that diverged, take another one")
    return translated


def shapes_of(network: ms.nn.Cell) -> dict[str, tuple]:
    """{name: shape} of all parameters."""
    return {parameter.name: tuple(parameter.shape) for parameter in network.get_parameters()}


def class_parameters(network: SSD) -> set[str]:
    """The names of the parameters whose shapes depend on the number of classes."""
    return {parameter.name for layer in network.head.class_layers() for parameter in layer.get_parameters()}


def assign(cell: ms.nn.Cell, translated: Translated, leave_out: Sequence[str] = ()) -> LoadReport:
    """Puts arrays into the parameters of the same name and shape. leave_out: names of parameters that stay."""
    report = LoadReport(translated.source)
    left = dict(translated.arrays)
    for parameter in cell.get_parameters():
        array = left.pop(parameter.name, None)
        if array is None:
            report.missing.append(parameter.name)
        elif parameter.name in leave_out:
            report.left_out.append(parameter.name)
        elif tuple(array.shape) != tuple(parameter.shape):
            report.skipped.append(f"{parameter.name}: {tuple(array.shape)} in the file, {tuple(parameter.shape)} here")
        else:
            parameter.set_data(ms.Tensor(array, parameter.dtype))
            report.loaded.append(parameter.name)
    report.unused.extend(name for name in (*left, *translated.unused) if not name.startswith(TRAINING_STATE))
    return report


def load_all(network: SSD, file: WeightFile, model: str) -> str:
    """Fills every parameter of the network. Returns the source of the file, as of Translated.

    Raises OptionError if one is missing or has another shape. model: its name, for the message.
    """
    report = assign(network, translate_weights(network, file))
    if not report.complete:
        first = report.skipped[0] if report.skipped else f"{report.missing[0]} is not in the file"
        raise OptionError(f"checkpoint '{file.path}' is not of this {model}: {len(report.loaded)} parameters fit, "
                          f"{len(report.missing)} are missing, {len(report.skipped)} have another shape (first: "
                          f"{first}); check --model, --classes and --width")
    return report.source


def load_pretrained(network: SSD, file: WeightFile, model: str, *, leave_out_classes: bool = False,
                    frozen: Sequence[str] = ()) -> str:
    """Loads what fits by name and shape. Returns a report to print. Raises OptionError if nothing fits.

    leave_out_classes: skip the class layers, for training on another list of classes. frozen: prefixes of parameters
    that will not be trained; OptionError if the file does not hold all of them.
    """
    leave_out = class_parameters(network) if leave_out_classes else ()
    report = assign(network, translate_weights(network, file), leave_out)
    if not report.loaded:
        raise OptionError(f"pre_trained '{file.path}': none of its {len(file.arrays)} tensors fits {model}; is it of "
                          "another network?")
    refuse_random(network, report, frozen=frozen, path=file.path)
    text = report.text(file.path)
    written_for = file.meta.get("model", model)
    if written_for != model:
        text += f"\n  note: the file is of {written_for}, this is {model}: equal names may differ in meaning"
    if len(report.skipped) > len(report.loaded):
        text += "\n  note: most tensors have another shape; is the file of another --width?"
    return text


def refuse_random(network: SSD, report: LoadReport, *, frozen: Sequence[str], path: str) -> None:
    """Raises OptionError if weights under a frozen prefix were not loaded.

    Norms, biases and the scales of L2Norm do not start at random; files of a backbone, or with folded norms, lack them.
    """
    prefixes, loaded = tuple(f"{prefix}." for prefix in frozen), set(report.loaded)
    random = [name for name in shapes_of(network) if f"{name}.".startswith(prefixes) and name not in loaded
              and name.endswith(".weight") and ".l2_norm." not in name]
    if random:
        raise OptionError(f"freeze_layer={','.join(frozen)}: {len(random)} of these weights would keep their random "
                          f"initial values (first: {random[0]}), pre_trained '{path}' does not fill them; freeze less, "
                          "or give weights that do")


# --- which model a foreign file is of

def build_for(file: WeightFile, model: str, *, classes: list[str],
              source: str) -> tuple[Model, list[str], Translated]:
    """A Model for a file, its classes without background, and the arrays of the file for it.

    classes: as typed; [] for those of COCO, or of VOC if the file has 21 class channels. source: of translate_weights.
    """
    names = named_classes(classes or ["coco"])
    built = build_model(model, len(names) + 1)
    translated = translate_weights(built.network, file, source)
    voc, shapes = named_classes(["voc"]), shapes_of(built.network)
    channels = {name: len(translated.arrays[name]) for name in shapes.keys() & translated.arrays.keys()
                if name.startswith("head.cls")}
    if not classes and any(count * (len(names) + 1) == shapes[name][0] * (len(voc) + 1)
                           for name, count in channels.items()):
        names, built = voc, build_model(model, len(voc) + 1)
    return built, names, translated


class Candidate(NamedTuple):
    """A model all of whose parameters a file holds."""
    model: str
    source: str   # of SOURCES
    classes: int  # without background; 0 where the class layers do not agree


def import_command(file: WeightFile) -> str | None:
    """The command that makes a checkpoint of a foreign file with all of a detector, None for any other file."""
    found = [candidate for candidate in (match_model(file, model) for model in BUILDERS) if candidate]
    if not found:
        return None
    # two pairs of models have the same parameters: TensorFlow's anchors, and those of VOC, are told by the rest
    best = max(found, key=lambda candidate: (candidate.model.endswith("_tf") == (candidate.source == "tfjs"),
                                             candidate.model.endswith("_voc") == (candidate.classes == 20)))
    names = "" if best.classes in (20, 80, 90) else f" --classes=NAME,NAME,.. (its {best.classes} names)"
    return (f"'python import_weights.py {shlex.quote(file.path)} --from={best.source} --model={best.model} "
            f"--output=ckpt/{best.model}.ckpt{names}'")


def match_model(file: WeightFile, model: str) -> Candidate | None:
    """The Candidate of a model, None if the file does not hold it or has our names already."""
    network = smallest(model)
    shapes, layers = shapes_of(network), class_parameters(network)
    source = guess_source(file.arrays, shapes)
    if source is None or not shapes.keys().isdisjoint(file.arrays):
        return None
    arrays, _ = convert_weights(source, file.arrays, shapes)
    if not all(name in arrays and (name in layers or arrays[name].shape == shapes[name]) for name in shapes):
        return None
    counts = {2 * len(arrays[name]) // shapes[name][0] - 1 for name in layers}  # the network here has two classes
    return Candidate(model, source, counts.pop() if len(counts) == 1 else 0)


def smallest(model: str) -> SSD:
    """A network of two classes, of the size that is built fastest: parameters do not depend on it."""
    with suppress(OptionError):
        return build_model(model, 2, image_size=128).network
    return build_model(model, 2).network
