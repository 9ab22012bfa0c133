"""The arrays of a weight file into a network: all of a detector, or what fits."""
from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import nn

from src.ema import averaged
from src.errors import DataError, OptionError
from src.models.ssd import BUILDERS, SSD
from src.weights.class_outputs import CHANNELS, ClassMatch, match_classes, take_outputs, words_of_classes
from src.weights.files import WeightFile
from src.weights.names import SOURCES, Arrays, convert_weights, count_places, guess_source, unwrap

OURS = "ours"    # the source of files that have the names of this repository
MAX_ROWS = 3     # of a list in a report
TRAINING_STATE = ("moments.", "mean_square.", "global_step", "learning_rate", "loss_scale", "good_steps", "ema_",
                  "micro_")


class Translated(NamedTuple):
    """The arrays of a file by the names of a network."""
    arrays: Arrays
    unused: Sequence[str] = ()  # names in the file that the rules of its source do not know
    source: str = OURS          # or a key of SOURCES


@dataclass
class LoadReport:
    """What became of the parameters of a network and the arrays of a file, by name."""
    source: str                                        # as of Translated
    loaded: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)   # of another shape, with both shapes
    partly: list[str] = field(default_factory=list)    # class layers with the outputs of some classes of the file
    left_out: list[str] = field(default_factory=list)  # not wanted from the file
    missing: list[str] = field(default_factory=list)   # not in the file
    unused: list[str] = field(default_factory=list)    # arrays without a parameter, but for the state of a training
    notes: list[str] = field(default_factory=list)     # what else there is to say, in words

    @property
    def complete(self) -> bool:
        """Whether every parameter was loaded."""
        return not (self.skipped or self.partly or self.left_out or self.missing)

    @property
    def backbone_only(self) -> bool:
        """Whether all of the backbone was loaded and nothing of the head. The L2Norm starts at 20 in any network."""
        lacks = any(name.startswith("backbone.") and ".l2_norm." not in name for name in self.missing)
        has_head = any(name.startswith("head.") for name in self.loaded)
        return not (lacks or has_head or self.skipped)

    def text(self, path: str, rows: int | None = MAX_ROWS) -> str:
        """A table for people. path: of the file; rows: of each list of names, None for all."""
        lines = [f"weights from {os.path.basename(path)} ({self.source})", f"  {'loaded':<32}{len(self.loaded):>5}"]
        for title, names in (("loaded by class, --filter_weight", self.partly),
                             ("skipped, another shape", self.skipped),
                             ("skipped, --filter_weight", self.left_out),
                             ("not in the file, new weights", self.missing),
                             ("in the file, not of this network", self.unused)):
            more = len(names[:rows]) < len(names)
            shown = [*names[:rows], f"... and {len(names) - rows} more"] if more else names
            lines += [f"  {title:<32}{len(names):>5}", *(f"      {name}" for name in shown)]
        if self.unused and self.complete:
            lines.append(f"  the {len(self.unused)} left over are not weights of this network: all its parameters are "
                         "filled")
        return "\n".join([*lines, *self.notes])


def translate_weights(network: SSD, file: WeightFile, source: str = "auto") -> Translated:
    """The arrays of a file by the names of the network.

    source: of SOURCES, or "auto": OURS if the file has names of the network, else the one whose rules fit best. Raises
    OptionError if none fits, DataError for NaN or infinity in what the network would take.
    """
    shapes = shapes_of(network)
    source, arrays = find_source(file, shapes, source)
    if source is None:
        raise OptionError(f"'{file.path}' fits this network by no known names (it begins with "
                          f"{', '.join(list(file.arrays)[:3])}); known are {', '.join(SOURCES)}; is it of another "
                          "--model or --width?")
    if source == OURS:
        translated = Translated(averaged(arrays))
    else:
        translated = Translated(*convert_weights(source, arrays, shapes), source)
    for name in shapes.keys() & translated.arrays.keys():
        array = translated.arrays[name]
        wrong = array.size - int(np.isfinite(array).sum())
        if wrong:
            raise DataError(f"weights '{file.path}': {wrong} of the {array.size} numbers of {name} are NaN or "
                            "infinite; the file is damaged or of a training that diverged, take another one")
    return translated


def find_source(file: WeightFile, shapes: dict[str, tuple], source: str = "auto") -> tuple[str | None, Arrays]:
    """Whose names a file has, as of Translated or None, and its arrays without the names of what wraps a network.

    source: as of translate_weights. Some names of torchvision are ours too; who gives more arrays a place is right.
    """
    if source == "auto" and file.meta:
        return OURS, file.arrays
    arrays = unwrap(file.arrays, shapes)
    if source != "auto":
        return source, arrays
    source = guess_source(arrays, shapes)
    if not shapes.keys().isdisjoint(file.arrays):
        ours = sum(shapes.get(name) == array.shape for name, array in file.arrays.items())
        if source is None or ours >= count_places(source, arrays, shapes):
            return OURS, file.arrays
    return source, arrays


def shapes_of(network: nn.Cell) -> dict[str, tuple]:
    """{name: shape} of all parameters."""
    return {parameter.name: tuple(parameter.shape) for parameter in network.get_parameters()}


def class_parameters(network: SSD) -> set[str]:
    """The names of the parameters whose shapes depend on the number of classes."""
    return {parameter.name for layer in network.head.class_layers() for parameter in layer.get_parameters()}


def assign(cell: nn.Cell, translated: Translated, leave_out: Collection[str] = ()) -> LoadReport:
    """Puts arrays into the parameters of the same name and shape, but for those that leave_out names."""
    report, left = LoadReport(translated.source), dict(translated.arrays)
    for parameter in cell.get_parameters():
        array = left.pop(parameter.name, None)
        if array is None:
            report.missing.append(parameter.name)
        elif parameter.name in leave_out:
            report.left_out.append(parameter.name)
        elif array.shape != tuple(parameter.shape):
            report.skipped.append(f"{parameter.name}: {array.shape} in the file, {tuple(parameter.shape)} here")
        else:
            parameter.set_data(ms.Tensor(array, parameter.dtype))
            report.loaded.append(parameter.name)
    if translated.source in SOURCES and SOURCES[translated.source].norm_eps:
        keep_norms(cell, report.loaded, SOURCES[translated.source].norm_eps)
    report.unused.extend(name for name in (*left, *translated.unused) if not name.startswith(TRAINING_STATE))
    return report


def keep_norms(cell: nn.Cell, loaded: Collection[str], eps: float) -> None:
    """Changes gammas so that norms whose arrays are loaded compute what they did with the eps of their source.

    A third of the channels of torchvision's MobileNetV2 have a variance below TensorFlow's eps of 1e-3: unchanged in a
    network with that eps, those channels would come out up to ten times too small.
    """
    for _, norm in cell.cells_and_names():
        if isinstance(norm, nn.BatchNorm2d) and norm.eps != eps and norm.moving_variance.name in loaded:
            variance = np.maximum(norm.moving_variance.asnumpy().astype(np.float64), 0)
            gamma = norm.gamma.asnumpy() * np.sqrt((variance + norm.eps) / (variance + eps))  # [C]
            norm.gamma.set_data(ms.Tensor(gamma, norm.gamma.dtype))


def load_all(network: SSD, file: WeightFile, model: str) -> LoadReport:
    """Fills every parameter of a network. Raises OptionError if it cannot."""
    report = assign(network, translate_weights(network, file))
    if not report.complete:
        first = report.skipped[0] if report.skipped else f"{report.missing[0]} is not in the file"
        raise OptionError(f"checkpoint '{file.path}' is not of this {model}: {len(report.loaded)} parameters fit, "
                          f"{len(report.missing)} are missing, {len(report.skipped)} have another shape (first: "
                          f"{first}); check --model, --classes and --width")
    check_version(model, report.source)
    return report


def check_version(model: str, source: str) -> None:
    """Raises OptionError for a detector of TensorFlow 1 in a network of TensorFlow 2, or the other way round.

    The parameters fit, but what is computed from them differs (models/ssd_tensorflow.py).
    """
    own, other = {"tensorflow": ("_tf2", "_tf1"), "tensorflow1": ("_tf1", "_tf2")}.get(source, ("", "?"))
    right = model.removesuffix(other) + own
    if model.endswith(other) and right in BUILDERS:
        raise OptionError(f"--model={model}: the file is of TensorFlow {own[-1]}, whose network computes something "
                          f"else from the same parameters; use --model={right}")


def load_pretrained(network: SSD, file: WeightFile, model: str, *, classes: Sequence[str] = (), by_class: bool = False,
                    frozen: Sequence[str] = (), file_model: str = "") -> LoadReport:
    """Loads what fits by name and shape. Raises OptionError if nothing fits.

    classes: of the network, without the background. by_class: of the class layers load only the background's outputs
    and those of classes with the same name, where the file's classes are known, for training on another list. frozen:
    prefixes of parameters that will not be trained; OptionError if the file does not hold all of them. file_model: that
    the file is of, where it does not say so itself.
    """
    translated = translate_weights(network, file)
    match = match_classes(classes_of(network, file, translated.arrays), classes)
    taken = shared_outputs(network, translated.arrays, match) if by_class and match.pairs else {}
    leave_out = class_parameters(network) - taken.keys() if by_class else ()
    report = assign(network, translated._replace(arrays={**translated.arrays, **taken}), leave_out)
    report.partly, report.loaded = list(taken), [name for name in report.loaded if name not in taken]
    if not report.loaded:
        raise OptionError(f"--pre_trained '{file.path}': none of its {len(file.arrays)} tensors fits {model}; is it of "
                          "another network?")
    # norms, biases and L2Norm do not start at random; files of a backbone, or with folded norms, lack them
    random = [name for name in shapes_of(network) if name.endswith(".weight") and ".l2_norm." not in name
              and name not in report.loaded and f"{name}.".startswith(tuple(f"{prefix}." for prefix in frozen))]
    if random:
        raise OptionError(f"--freeze_layer={','.join(frozen)}: {len(random)} of these weights would keep their random "
                          f"initial values (first: {random[0]}), --pre_trained '{file.path}' does not fill them; "
                          "freeze less, or give weights that do")
    own_model = file.meta.get("model", file_model or model)
    if own_model != model:
        report.notes.append(f"  note: the file is of {own_model}, this is {model}: equal names may differ in meaning")
    if len(report.skipped) > len(report.loaded):
        report.notes.append("  note: most tensors have another shape; is the file of another --width?")
    report.notes += words_of_classes(match, by_name=bool(taken))
    return report


def classes_of(network: SSD, file: WeightFile, arrays: Arrays) -> Sequence[str]:
    """The classes that a file has outputs for: what it says, or by their number COCO's or VOC's; () if not known."""
    shapes = shapes_of(network)
    counts = {len(arrays[name]) * network.head.num_classes / shapes[name][0] for name in class_parameters(network)
              if name in arrays and arrays[name].ndim == len(shapes[name])}
    return file.meta.get("classes") or (CHANNELS.get(counts.pop(), ()) if len(counts) == 1 else ())


def shared_outputs(network: SSD, arrays: Arrays, match: ClassMatch) -> Arrays:
    """The class layers of a network with the file's outputs of the shared classes, without layers that do not fit."""
    parameters = [parameter for layer in network.head.class_layers() for parameter in layer.get_parameters()]
    taken = {parameter.name: take_outputs(arrays[parameter.name], parameter.asnumpy(), match)
             for parameter in parameters if parameter.name in arrays}
    return {name: array for name, array in taken.items() if array is not None}
