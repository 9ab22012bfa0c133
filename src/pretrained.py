"""Weights of any file into a network: all of a detector, or what fits of anything."""
import os

import mindspore as ms

from src import checkpoint
from src.ema import averaged
from src.errors import OptionError
from src.weight_files import read_weights
from src.weights import SOURCES, convert_weights, guess_source

TRAINING_STATE = ("moments.", "mean_square.", "global_step", "learning_rate", "loss_scale", "good_steps", "ema_",
                  "micro_")


def fetch(network, path, source="auto"):
    """The tensors of a file under the names of the network -> {name: array}, names left over, source, meta.

    source: of weights.SOURCES, or "auto": a checkpoint of ours ("ours"), else the one whose rules fit best. meta: what
    a checkpoint of ours says of itself, {} for any other file. Raises OptionError, DataError.
    """
    if path.endswith(".ckpt"):
        values, meta = checkpoint.load(path)
    else:
        (values, _), meta = read_weights(path), {}
    shapes = {one.name: tuple(one.shape) for one in network.get_parameters()}
    if source == "auto" and (meta or not shapes.keys().isdisjoint(values)):
        return averaged(values), [], "ours", meta
    source = guess_source(values, shapes) if source == "auto" else source
    if source is None:
        raise OptionError(f"'{path}' fits this network by no known names (it begins with "
                          f"{', '.join(list(values)[:3])}); known are {', '.join(SOURCES)}; is it of "
                          "another --model or --width?")
    converted, left = convert_weights(source, values, shapes)
    return converted, left, source, meta


def load_whole(network, path, model):
    """Loads every parameter of the network. Returns meta. Raises OptionError if one is missing or has another shape."""
    values, _, _, meta = fetch(network, path)
    loaded, skipped, missing = assign(network, values)
    if skipped or missing:
        first = skipped[0] if skipped else f"{missing[0]} is not in the file"
        counts = f"{len(loaded)} parameters fit, {len(missing)} are missing, {len(skipped)} have another shape"
        raise OptionError(f"checkpoint '{path}' is not of this {model}: {counts} (first: {first}); check --model, "
                          "--classes and --width")
    return meta


def load_pretrained(network, path, model, leave_out_classes=False):
    """Loads what fits by name and shape. Returns a report to print. Raises OptionError when nothing fits.

    leave_out_classes: skip the class layers, for training on another list of classes.
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
    missing = [name for name in missing if name not in left_out]
    text = report(path, source, network, values, loaded, skipped, missing, left, left_out)
    if meta.get("model", model) != model:
        text += f"\n  note: the file is of {meta['model']}, this is {model}: equal names may differ in meaning"
    if len(skipped) > len(loaded):
        text += "\n  note: most tensors have another shape; is the file of another --width?"
    return text


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
