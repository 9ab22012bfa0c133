"""scripts/model_info.py: multiply-accumulates by hand and as published, levels read back from anchors."""
import os
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest
from conftest import ROOT
from mindspore import nn

from src.anchors import split_levels, tile_anchors
from src.models.ssd import build_model

SCRIPT = os.path.join(ROOT, "scripts", "model_info.py")
sys.path.insert(0, os.path.dirname(SCRIPT))
import model_info  # noqa: E402  (a script, found by the line above)

# classes, parameters and GMACs of the sources; torchvision and the parameter counts by their documentation, the other
# GMACs counted by hand from the layers
PUBLISHED = {
    "ssd_resnet50_fpn": (81, 33_294_654, 90.1),
    "ssd_mobilenet_v1_fpn": (81, 12_534_846, 60.6),
    "ssd300_resnet50": (81, 22_894_902, 20.15),
    "ssd300_resnet34": (81, 19_972_534, 15.86),
    "ssd300_mobilenet_v1": (21, 5_796_089, 1.148),
    "ssd300_mobilenet_v1_zoo": (81, 11_294_517, 1.30),
    "ssdlite300_mobilenet_v2": (81, 4_451_764, 0.79),
    "ssd300_vgg16": (91, 35_641_826, 34.86),
}


@pytest.fixture(autouse=True)
def graph_mode():
    yield
    ms.set_context(mode=ms.GRAPH_MODE)


class Small(nn.Cell):
    """8 x 8 pixels -> 4 x 4, with a convolution that runs twice."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3, 2)
        self.neck = nn.Conv2d(4, 4, 3, group=4)
        self.head = nn.Conv2d(4, 5, 1, has_bias=True)
        self.unused = nn.Conv2d(4, 4, 3)

    def construct(self, x):
        x = self.neck(self.backbone(x))
        return self.head(x) + self.head(x)


def test_macs_by_hand():
    network = Small()
    # 16 places, each 4 channels of 3 * 9, then 4 of 9, then twice 5 of 4
    assert model_info.count_macs(network, 8) == {"backbone": 1728, "neck": 576, "head": 640}
    assert model_info.count_macs(network, 8)["neck"] == 576  # no hook is left behind


def test_levels_are_those_that_were_tiled():
    shapes = [np.array([[0.1, 0.2], [0.3, 0.1]]), np.array([[0.5, 0.5]] * 3), np.array([[0.9, 0.8]])]
    anchors = tile_anchors([4, 2, 1], [0.26, 0.5, 1.0], shapes)
    for one in (anchors, np.clip(anchors, 0, 0.9)):  # the last centres of a level may be clamped
        levels = split_levels(one)
        assert [level.side for level in levels] == [4, 2, 1]
        assert all(np.allclose(level.shapes, expected) for level, expected in zip(levels, shapes))


@pytest.mark.parametrize("name, expected", [
    pytest.param("ssd300_mobilenet_v2", (81, 4_393_461, 0.755), id="ssd300_mobilenet_v2"),
    *(pytest.param(name, row, marks=pytest.mark.long, id=name) for name, row in PUBLISHED.items())])
def test_published_sizes(name, expected):
    classes, parameters, gmacs = expected
    model = build_model(name, classes)
    macs = model_info.count_macs(model.network, model.image_size)
    assert model_info.count_values(model.network.trainable_params()) == parameters
    assert sum(macs.values()) / 1e9 == pytest.approx(gmacs, rel=0.01)
    text = model_info.describe_model(model, model_info.Sizes(parameters, 0, macs))
    assert f"{parameters:,}" in text and f"{len(model.anchors):,}" in text and "not FLOPs" in text


def run(*arguments):
    """Runs the script as a user does."""
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_help_and_a_misspelt_option():
    shown = run("--help")
    assert shown.returncode == 0 and "multiply-accumulates" in shown.stdout and "--model" in shown.stdout
    wrong = run("--modle=x")
    assert wrong.returncode == 2 and "did you mean 'model'?" in wrong.stderr and wrong.stderr.count("\n") == 1


@pytest.mark.long
def test_program_prints_one_model():
    done = run("--model=ssd300_mobilenet_v2", "--image_size=96", "--classes=a,b", "--freeze_layer=backbone,neck")
    assert done.returncode == 0, done.stderr
    assert "96 x 96, 3 classes" in done.stdout and "6 x 6" in done.stdout
    wrong = run("--model=x")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: --model=x") and wrong.stderr.count("\n") == 1
