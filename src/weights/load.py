"""Weights of any file into a network: all of a detector, or what fits of anything."""
import os
import shlex
from contextlib import suppress

import mindspore as ms
import numpy as np

from src.ema import averaged
from src.errors import DataError, OptionError
from src.models.ssd import BUILDERS, build_model
from src.weights import checkpoint
from src.weights.files import read_weights
from src.weights.names import SOURCES, convert_weights, guess_source

TRAINING_STATE = ("moments.", "mean_square.", "global_step", "learning_rate", "loss_scale", "good_steps", "ema_",
                  "micro_")


def fetch(network, path, source="auto"):
    """The tensors of a file under the names of the network -> {name: array}, names left over, source, meta.

    source: of weights.SOURCES, or "auto": a checkpoint of ours ("ours"), else the one whose rules fit best. meta: what
    a checkpoint of ours says of itself, {} for any other file. Raises OptionError, DataError, which is also for NaN or
    infinity in what the network would take.
    """
    if path.endswith(".ckpt"):
        values, meta = checkpoint.load(path)
    else:
        (values, _), meta = read_weights(path), {}
    shapes = {one.name: tuple(one.shape) for one in network.get_parameters()}
    if source == "auto" and (meta or not shapes.keys().isdisjoint(values)):
        return require_finite(averaged(values), shapes, path), [], "ours", meta
    source = guess_source(values, shapes) if source == "auto" else source
    if source is None:
        raise OptionError(f"'{path}' fits this network by no known names (it begins with "
                          f"{', '.join(list(values)[:3])}); known are {', '.join(SOURCES)}; is it of "
                          "another --model or --width?")
    converted, left = convert_weights(source, values, shapes)
    return require_finite(converted, shapes, path), left, source, meta


def require_finite(values, shapes, path):
    """The tensors {name: array}. Raises DataError where one that the network has holds NaN or infinity."""
    for name in shapes.keys() & values.keys():
        wrong = values[name].size - int(np.isfinite(values[name]).sum())
        if wrong:
            raise DataError(f"weights '{path}': {wrong} of the {values[name].size} numbers of {name} are NaN or "
                            "infinite; the file is damaged or of a training that diverged, take another one")
    return values


def load_whole(network, path, model):
    """Loads every parameter of the network. Returns the source of the file as `fetch` does.

    Raises OptionError if one is missing or has another shape.
    """
    values, _, source, _ = fetch(network, path)
    loaded, skipped, missing = assign(network, values)
    if skipped or missing:
        first = skipped[0] if skipped else f"{missing[0]} is not in the file"
        counts = f"{len(loaded)} parameters fit, {len(missing)} are missing, {len(skipped)} have another shape"
        raise OptionError(f"checkpoint '{path}' is not of this {model}: {counts} (first: {first}); check --model, "
                          "--classes and --width")
    return source


def import_command(path):
    """The command that makes a checkpoint of a foreign file with all of a detector, None for any other file.

    Raises OptionError, DataError where the file cannot be read.
    """
    (values, _), found = read_weights(path), []
    for name in BUILDERS:
        network = smallest(name, 2)
        shapes = {one.name: tuple(one.shape) for one in network.get_parameters()}
        source = guess_source(values, shapes)
        converted = convert_weights(source, values, shapes)[0] if source else {}
        layers = {one.name for layer in network.head.class_layers() for one in layer.get_parameters()}
        fits = all(name in converted and (name in layers or converted[name].shape == shapes[name]) for name in shapes)
        if fits and shapes.keys().isdisjoint(values):  # else it has our names already
            classes = {2 * len(converted[name]) // shapes[name][0] - 1 for name in layers}
            found.append((name, source, classes.pop() if len(classes) == 1 else 0))
    if not found:
        return None
    # two pairs of models have the same parameters: TensorFlow's anchors, and those of VOC, are told by the rest
    name, source, classes = max(found, key=lambda one: (one[0].endswith("_tf") == (one[1] == "tfjs"),
                                                        one[0].endswith("_voc") == (one[2] == 20)))
    names = "" if classes in (20, 80, 90) else f" --classes=NAME,NAME,.. (its {classes} names)"
    return (f"'python import_weights.py {shlex.quote(path)} --from={source} --model={name} --output=ckpt/{name}.ckpt"
            f"{names}'")


def smallest(name, num_classes):
    """The network of a model, of the size that is built fastest: parameters do not depend on it."""
    with suppress(OptionError):
        return build_model(name, num_classes, image_size=128).network
    return build_model(name, num_classes).network


def load_pretrained(network, path, model, leave_out_classes=False, *, frozen=()):
    """Loads what fits by name and shape. Returns a report to print. Raises OptionError when nothing fits.

    leave_out_classes: skip the class layers, for training on another list of classes. frozen: prefixes of parameters
    that will not be trained; OptionError where the file does not hold all of them.
    """
    values, left, source, meta = fetch(network, path)
    classes = {one.name for layer in network.head.class_layers() for one in layer.get_parameters()}
    left_out = [name for name in values if leave_out_classes and name in classes]
    for name in left_out:
        del values[name]
    loaded, skipped, missing = assign(network, values)
    if not loaded:
        raise OptionError(f"pre_trained '{path}': none of its {len(values) + len(left)} tensors fits {model}; "
                          "is it of another network?")
    refuse_random(network, set(loaded), frozen, path)
    missing = [name for name in missing if name not in left_out]
    text = report(path, source, network, values, loaded, skipped, missing, left, left_out)
    if meta.get("model", model) != model:
        text += f"\n  note: the file is of {meta['model']}, this is {model}: equal names may differ in meaning"
    if len(skipped) > len(loaded):
        text += "\n  note: most tensors have another shape; is the file of another --width?"
    return text


def refuse_random(network, loaded, frozen, path):
    """Raises OptionError where weights under a frozen prefix were not loaded.

    Norms, biases and the scales of L2Norm do not start at random; files of a backbone, or with folded norms, lack them.
    """
    left = [one.name for one in network.get_parameters()
            if one.name.endswith(".weight") and ".l2_norm." not in one.name and one.name not in loaded
            and f"{one.name}.".startswith(tuple(f"{prefix}." for prefix in frozen))]
    if left:
        raise OptionError(f"freeze_layer={','.join(frozen)}: {len(left)} of these weights would keep their random "
                          f"initial values (first: {left[0]}), pre_trained '{path}' does not fill them; freeze less, "
                          "or give weights that do")


def report(path, source, network, values, loaded, skipped, missing, left, left_out=()):
    """A table as text of what became of the tensors of a file."""
    names = {one.name for one in network.get_parameters()}
    unused = [name for name in (*values, *left) if name not in names and not name.startswith(TRAINING_STATE)]
    sections = (("loaded", loaded), ("skipped, another shape", skipped), ("skipped, filter_weight", left_out),
                ("not in the file, new weights", missing), ("in the file, no such parameter", unused))
    lines = [f"weights from {os.path.basename(path)} ({source})"]
    for title, rows in sections:
        lines.append(f"  {title:<32}{len(rows):>5}")
        lines += [f"      {row}" for row in shorten(rows, title == "loaded")]
    if unused and not skipped and not missing and not left_out:
        lines.append(f"  the {len(unused)} left over are not weights of this network: all its parameters are filled")
    return "\n".join(lines)


def assign(network, values):
    """Puts arrays into the parameters of the same name and shape -> lists loaded, skipped (with shapes), missing."""
    loaded, skipped, missing = [], [], []
    for parameter in network.get_parameters():
        value = values.get(parameter.name)
        if value is None:
            missing.append(parameter.name)
        elif tuple(value.shape) != tuple(parameter.shape):
            skipped.append(f"{parameter.name}: {tuple(value.shape)} in the file, {tuple(parameter.shape)} here")
        else:
            parameter.set_data(ms.Tensor(value, parameter.dtype))
            loaded.append(parameter.name)
    return loaded, skipped, missing


def shorten(rows, hide, most=12):
    """The first rows and how many more there are; none with hide."""
    if hide:
        return []
    return rows if len(rows) <= most else [*rows[:most], f"... and {len(rows) - most} more"]
