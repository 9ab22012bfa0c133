"""TensorBoard's file: what its own reader finds in it."""
import os

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from src.config import DEFAULT_PATH, read_options
from src.drawing import save_png
from src.events import EventFile
from src.inference import formats
from src.inference.formats import Result, TensorBoardPictures
from src.inference.found import Detections
from src.inference.sources import Picture
from src.option_rules import compared_options
from src.recipes import read_yaml
from src.training.log import RunLog


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0}).Reload()


def test_nothing_is_written_before_the_first_entry(tmp_path):
    EventFile(str(tmp_path)).close()
    assert os.listdir(tmp_path) == []


def test_numbers_and_pictures(tmp_path):
    picture = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    save_png(str(tmp_path / "x.png"), picture)
    log = RunLog()  # which hands both on to an EventFile
    log.open(str(tmp_path))
    log.write({"step": 3, "epoch": 1, "loss": 0.25}, "train")
    log.picture("a/b", str(tmp_path / "x.png"), 4)
    log.close()
    events = read(tmp_path)
    assert [(one.step, one.value) for one in events.Scalars("train/loss")] == [(3, 0.25)]
    shown, = events.Images("a/b")
    assert (shown.step, shown.width, shown.height) == (4, 7, 5)
    decoded = cv2.imdecode(np.frombuffer(shown.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(decoded[..., ::-1], picture)


def test_precision_and_recall(tmp_path):
    """4 cats: at .01 .. .50 three boxes of which two are right, at .51 .. .90 one right one; no dog is found, and there
    is no bird."""
    found = np.zeros((99, 3), int)
    found[:50, 0], found[50:90, 0], found[:, 2] = 3, 1, 1
    right = np.zeros((99, 3), int)
    right[:50, 0], right[50:90, 0] = 2, 1
    file = EventFile(str(tmp_path))
    file.pr_curves(7, ["cat", "dog", "bird"], right=right, found=found, boxes=np.array([4, 2, 0]))
    file.close()
    events = read(tmp_path)
    assert events.Tags()["tensors"] == ["precision-recall/cat"]
    assert list(events.PluginTagToContent("pr_curves")) == ["precision-recall/cat"]
    event, = events.Tensors("precision-recall/cat")
    table = np.frombuffer(event.tensor_proto.tensor_content, np.float32).reshape(6, 101)
    assert event.step == 7
    assert table[:, 0].tolist() == pytest.approx([2, 1, 0, 2, 2 / 3, 0.5])  # from 0 on as from .01 on
    assert table[:, 50].tolist() == pytest.approx([2, 1, 0, 2, 2 / 3, 0.5])
    assert table[:, 51].tolist() == pytest.approx([1, 0, 0, 3, 1, 0.25])
    assert table[:, 100].tolist() == [0, 0, 0, 4, 1, 0]  # nothing is found: precision 1 by convention


def test_hyperparameters(tmp_path):
    file = EventFile(str(tmp_path))
    file.hyperparameters({"lr": 0.1, "model": "ssd", "strict": True}, ["eval/AP"])
    file.close()
    contents = read(tmp_path).PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(contents["_hparams_/session_start_info"]).session_start_info
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    assert values == {"lr": 0.1, "model": "ssd", "strict": True}
    experiment = HParamsPluginData.FromString(contents["_hparams_/experiment"]).experiment
    assert [metric.name.tag for metric in experiment.metric_infos] == ["eval/AP"]


def test_options_by_which_runs_are_compared():
    """Some always, others where they are no default; not where data lies, nor what concerns other programs."""
    typed = ["--lr_milestones=[3,5]", "--coco_root=/data", "--alpha=0.5", "--log_interval=7", "--raw=True"]
    assert compared_options(read_options(typed), read_yaml(DEFAULT_PATH)) == {
        "model": "ssd_resnet50_fpn", "image_size": 0, "lr": 0.05, "batch_size": 16, "epoch_size": 60, "seed": 1,
        "lr_milestones": "3,5", "alpha": 0.5}


def result(stem, row, video=None):
    boxes = np.float32([[0.1, 0.1, 0.6, 0.9]])
    found = Detections(boxes, np.float32([0.8]), np.int32([1]))
    return Result(Picture(np.full((40, 60, 3), 200, np.uint8), row, video), found, [], 1, stem)


def test_prediction_pictures(tmp_path, monkeypatch):
    """A picture each; of a video one a second, MAX_SHOWN at most."""
    monkeypatch.setattr(formats, "MAX_SHOWN", 3)
    form = TensorBoardPictures(str(tmp_path), ["cat"])
    form.add(result("sub/a", {"file": "a.jpg"}))
    for frame in range(50):
        form.add(result("v", {"file": "v.mp4", "frame": frame, "time": frame / 10}, object()))
    form.close(True)
    events = read(tmp_path)
    assert sorted(events.Tags()["images"]) == ["predictions/sub/a", "predictions/v"]
    assert [one.step for one in events.Images("predictions/v")] == [0, 10, 20]
    shown = cv2.imdecode(np.frombuffer(events.Images("predictions/sub/a")[0].encoded_image_string, np.uint8), 1)
    assert shown.shape == (40, 60, 3) and (shown != 200).any()
