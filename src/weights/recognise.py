"""Which detector a foreign file holds, told by its arrays."""
from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from src.machine.compat import without_initial_weights
from src.models.ssd import BUILDERS, TABLES, Model, build_model, integer_shapes
from src.weights.catalogue import read_catalogue
from src.weights.class_outputs import CHANNELS
from src.weights.files import WeightFile
from src.weights.load import OURS, LoadReport, class_parameters, find_source, shapes_of
from src.weights.names import SOURCES, convert_weights

PREFERRED = {"tfjs": ("_tf",), "tensorflow": ("_tf2",), "tensorflow1": ("_tf1", "_tf")}  # endings of models of a source


class Recognised(NamedTuple):
    """Which detector a foreign file holds."""
    model: str    # of this repository
    source: str   # a key of SOURCES
    classes: int  # without the background

    def words(self) -> str:
        """For messages."""
        classes = len(CHANNELS.get(self.classes + 1, range(self.classes)))  # 80 of COCO's 90 numbers
        return f"{self.model} of {SOURCES[self.source].title} with {classes} classes"


def recognise(file: WeightFile, models: Sequence[str] = tuple(BUILDERS)) -> Recognised | None:
    """The model of these that a foreign file holds all of, None for any other file."""
    best, found = (), None
    for model in models:
        source, classes = match_model(file, model)
        # some models have the same parameters: TensorFlow's versions, and the anchors of VOC, are told by the rest
        rank = model.endswith(PREFERRED.get(source, ())), model.endswith("_voc") == (classes == 20)
        if source and rank > best:
            best, found = rank, Recognised(model, source, classes)
    return found


def source_facts(source: str, model: str) -> dict:
    """What a network of a source has otherwise than the model of that name here, by the fields of a Description."""
    if model not in TABLES:
        return {}
    shapes = integer_shapes(model) if SOURCES[source].integer_sizes else []
    return {**SOURCES[source].vgg, **({"anchor_shapes": shapes} if shapes else {})}


def import_command(file: WeightFile) -> str | None:
    """The command that makes a checkpoint of a foreign file with all of a detector, None for any other file."""
    found = recognise(file)
    if not found:
        return None
    names = "" if found.classes + 1 in CHANNELS else f" --classes=NAME,NAME,.. (its {found.classes} names)"
    return (f"'python import_weights.py {shlex.quote(file.path)} --from={found.source} --model={found.model} "
            f"--output=ckpt/{found.model}.ckpt{names}'")


def words_of_source(file: WeightFile, model: Model, report: LoadReport) -> str:
    """A line on a foreign file that fills all of a model: what it was taken for. report: of its loading."""
    text = (f"recognised: {model.name} of {SOURCES[report.source].title}, {model.num_classes - 1} classes, "
            f"{model.image_size} pixels; {len(file.arrays) - len(report.unused)} of {len(file.arrays)} arrays fill all "
            f"{len(report.loaded)} parameters")
    rows = (row for row in read_catalogue().values() if (row.source, row.model) == (report.source, model.name))
    # weights of another size have the same names and shapes
    others = {row.options for row in rows} - {"", f"--image_size={model.image_size}"}
    hint = f"; those for {' or '.join(sorted(others))} look the same: add it where it is right" if others else ""
    return text + hint


def match_model(file: WeightFile, model: str, source: str = "auto") -> tuple[str | None, int]:
    """The source of a file that holds all of a model, else None, and how many classes without background, else 0."""
    shapes, class_layers = parameters_of(model)
    source, arrays = find_source(file, shapes, source)
    if source in (None, OURS):
        return None, 0
    arrays, _ = convert_weights(source, arrays, shapes)
    if any(name not in arrays or (arrays[name].shape != shape and name not in class_layers)
           for name, shape in shapes.items()):
        return None, 0
    counts = {2 * len(arrays[name]) // shapes[name][0] - 1 for name in class_layers}
    return source, counts.pop() if len(counts) == 1 else 0


@cache
def parameters_of(model: str) -> tuple[dict[str, tuple], set[str]]:
    """{name: shape} of the parameters of a model with one class, and the names of those that depend on the classes."""
    with without_initial_weights():  # to recognise a file asks this of all models, and drawing their weights took 8 s
        network = build_model(model, 2).network
    return shapes_of(network), class_parameters(network)
