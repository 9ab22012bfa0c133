"""What a run tells before its first step."""
from __future__ import annotations

import os
import time
from collections.abc import Sequence

import mindspore as ms
import numpy as np

from src.data.loader import TrainLoader
from src.evaluation.report import draw_training_batch
from src.models.ssd import Model
from src.training.log import RunLog
from src.version import git_commit

MAX_NAMES = 25  # classes in a line


def tell_facts(log: RunLog, model: Model, loader: TrainLoader, *, classes: Sequence[str], frozen: int, device: str,
               hints: Sequence[str]) -> None:
    """Writes the first row of log.jsonl and prints it, the classes, and hints, a line each. frozen: tensors."""
    facts = {"mindspore": ms.__version__, "numpy": np.__version__, "device": device, "processes": loader.world,
             "model": model.name, "image_size": model.image_size, "frozen_tensors": frozen,
             "parameters": sum(parameter.size for parameter in model.network.trainable_params()),
             "anchors": len(model.anchors), "classes": len(classes), "train_images": loader.rows,
             "batch": loader.batch_size * loader.world, "commit": git_commit(),
             "time": time.strftime("%Y-%m-%d %H:%M:%S")}
    log.write(facts)
    log.say(", ".join(f"{key} {value}" for key, value in facts.items()))
    more = ", .." if len(classes) > MAX_NAMES else ""
    log.say(f"classes: {', '.join(classes[:MAX_NAMES])}{more}")
    for line in hints:
        log.say(line)


def draw_first_batch(log: RunLog, model: Model, loader: TrainLoader, *, classes: Sequence[str]) -> None:
    """Draws train_batch.png."""
    path = os.path.join(log.folder, "train_batch.png")
    draw_training_batch(path, next(iter(loader.epoch(0))), anchors=model.anchors, classes=classes)
    log.picture("train/first_batch", path, 0)
