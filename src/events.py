"""TensorBoard's file of a folder: numbers, pictures, precision-recall curves and hyperparameters."""
from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from src.files import Appender, make_folder

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary


EVENTS = "events.out.tfevents."  # what the name of such a file begins with


class EventFile:
    """Appends to a file in a folder; the file is made with the first entry."""

    def __init__(self, folder: str):
        self.folder, self.file = folder, None

    def add(self, step: int, values: Sequence[dict | Summary.Value]) -> None:
        """Adds values of a step: dicts of the fields of summary_pb2.Summary.Value, or such messages.

        Raises EnvironmentFault.
        """
        # here: half a second that other programs need not wait
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter
        now = time.time()
        if not self.file:
            make_folder(self.folder)
            name = f"{EVENTS}{now:.6f}.{socket.gethostname()}.{os.getpid()}"
            self.file = Appender(os.path.join(self.folder, name))
            RecordWriter(self.file).write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        RecordWriter(self.file).write(Event(wall_time=now, step=step, summary={"value": values}).SerializeToString())

    def numbers(self, step: int, group: str, values: Mapping[str, float]) -> None:
        """Adds numbers by name, as curves of a group."""
        self.add(step, [{"tag": f"{group}/{name}", "simple_value": value} for name, value in values.items()])

    def picture(self, step: int, tag: str, png: bytes) -> None:
        """Adds a picture, the content of a PNG file."""
        width, height = struct.unpack(">II", png[16:24])  # of the header of a PNG
        self.add(step, [{"tag": tag, "image": {"encoded_image_string": png, "width": width, "height": height,
                                               "colorspace": 3}}])

    def pr_curves(self, step: int, names: Sequence[str], *, right: np.ndarray, found: np.ndarray,
                  boxes: np.ndarray) -> None:
        """Adds a precision-recall curve for each name, over the least score of a box.

        right, found: [99, n] boxes with scores from .01, .02, .. .99 on, those of them that are right, and all; boxes
        [n]: true ones. A curve without a found box stays out.
        """
        from tensorboard.plugins.pr_curve.plugin_data_pb2 import PrCurvePluginData
        # TensorBoard takes the thresholds for 0, .01, .. 1
        right, found = (np.vstack([counts[:1], counts, np.zeros_like(counts[:1])]) for counts in (right, found))
        content = PrCurvePluginData(version=0, num_thresholds=len(right)).SerializeToString()
        values = []
        for index, name in enumerate(names):
            if not found[:, index].any() or not boxes[index]:
                continue
            hits, all_found = right[:, index].astype(float), found[:, index].astype(float)
            precision = np.divide(hits, all_found, out=np.ones(len(hits)), where=all_found > 0)
            # true and false positives, true and false negatives, of which there are no true ones; precision, recall
            table = np.stack([hits, all_found - hits, np.zeros(len(hits)), boxes[index] - hits, precision,
                              hits / boxes[index]]).astype(np.float32)                             # [6, 101]
            shape = {"dim": [{"size": size} for size in table.shape]}
            values.append({"tag": f"precision-recall/{name}",
                           "tensor": {"dtype": 1, "tensor_shape": shape, "tensor_content": table.tobytes()},  # DT_FLOAT
                           "metadata": {"plugin_data": {"plugin_name": "pr_curves", "content": content}}})
        if values:
            self.add(step, values)

    def hyperparameters(self, values: Mapping[str, bool | float | str], metrics: Sequence[str]) -> None:
        """Adds the options of a run. metrics: tags of the numbers that stand beside them."""
        from tensorboard.plugins.hparams import summary_v2
        columns = [summary_v2.Metric(tag, display_name=tag) for tag in metrics]
        self.add(0, summary_v2.hparams_config_pb([summary_v2.HParam(name) for name in values], columns).value)
        self.add(0, summary_v2.hparams_pb(dict(values), start_time_secs=time.time()).value)

    def close(self) -> None:
        """Closes the file, if there is one."""
        if self.file:
            self.file.close()
