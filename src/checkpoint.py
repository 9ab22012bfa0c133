"""Checkpoints that describe themselves: parameters and one JSON text with model, classes and the state of the run."""
import glob
import json
import os

import mindspore as ms
import numpy as np

from src.errors import DataError, EnvironmentFault, OptionError
from src.weights import from_model_zoo, is_class_output

META = "ssd_meta"
TRAINING_STATE = ("moments.", "global_step", "learning_rate", "loss_scale", "good_steps")  # of the optimiser


def save(path, parameters, meta):
    """Writes Parameter objects and meta (a JSON-able dict) aside and renames, so that a file is whole or absent."""
    aside = os.path.join(os.path.dirname(path), f".writing.{os.path.basename(path)}")
    rows = [{"name": one.name, "data": one} for one in parameters]
    try:
        ms.save_checkpoint(rows, aside, append_dict={META: json.dumps(meta)})
        os.chmod(aside, 0o644)  # MindSpore lets only the owner read
        os.replace(aside, path)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EnvironmentFault(f"checkpoint '{path}' could not be written: {reason}") from error


def load(path):
    """Reads a .ckpt -> {name: array}, meta (empty for a checkpoint that is not ours). Raises OptionError, DataError."""
    if not os.path.isfile(path):
        there = ", ".join(sorted(glob.glob("*.ckpt", root_dir=os.path.dirname(path) or ".")))
        raise OptionError(f"checkpoint '{path}' is not a file" + (f"; there is {there}" if there else ""))
    try:
        values = ms.load_checkpoint(path)
    except (ValueError, RuntimeError, TypeError, AttributeError, EOFError) as error:
        raise DataError(f"checkpoint '{path}' is damaged or no MindSpore checkpoint "
                        f"({os.path.getsize(path)} bytes); use another one") from error
    meta = json.loads(str(values.pop(META, "{}")))
    return {name: one.asnumpy() if hasattr(one, "asnumpy") else np.asarray(one) for name, one in values.items()}, meta


def save_run(folder, name, parameters, meta, keep=0):
    """Writes folder/name.ckpt; with keep, removes all but the newest `keep` numbered ones (epoch_*.ckpt)."""
    save(os.path.join(folder, f"{name}.ckpt"), parameters, meta)
    for old in sorted(glob.glob("epoch_*", root_dir=folder))[:-keep] if keep else []:
        os.remove(os.path.join(folder, old))


def load_whole(network, path, model):
    """Loads every parameter of the network. Returns meta. Raises OptionError if one is missing or has another shape."""
    values, meta = load(path)
    loaded, skipped, missing = assign(network, from_model_zoo(model, values))
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
    values, _ = load(path)
    values = from_model_zoo(model, values)
    left_out = [name for name in values if leave_out_classes and is_class_output(name)]
    for name in left_out:
        del values[name]
    loaded, skipped, missing = assign(network, values)
    if not loaded:
        raise OptionError(f"pre_trained '{path}': none of its {len(values)} parameters fits {model} "
                          f"(the file begins with {', '.join(list(values)[:3])}); is it of another network?")
    missing = [name for name in missing if name not in left_out]
    names = {one.name for one in network.get_parameters()}
    unused = [name for name in values if name not in names and not name.startswith(TRAINING_STATE)]
    sections = (("loaded", loaded), ("skipped, another shape", skipped), ("skipped, filter_weight", left_out),
                ("not in the file, new weights", missing), ("in the file, no such parameter", unused))
    lines = [f"weights from {path}"]
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
