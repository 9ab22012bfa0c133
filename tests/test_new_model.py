"""docs/new_model.md: the builder and the recipe printed there work as they stand."""
import os
import re
import shutil

import mindspore as ms
import numpy as np
import pytest
from conftest import ROOT

from src.config import read_options
from src.models import ssd
from src.training.build import build_rates

with open(os.path.join(ROOT, "docs", "new_model.md"), encoding="utf-8") as page:
    CODE = dict(re.findall(r"```(python|yaml)\n(.*?)```", page.read(), re.DOTALL))
NAME = "ssd300_resnet18"


@pytest.fixture
def model(monkeypatch):
    """The model of the page at 81 classes, its builder run where the page puts it: in src/models/ssd.py."""
    inside = dict(vars(ssd))
    exec(CODE["python"], inside)
    monkeypatch.setitem(ssd.BUILDERS, NAME, inside[NAME])
    return ssd.build_model(NAME, 81)


def test_builder(model):
    parameters = sum(parameter.size for parameter in model.network.trainable_params())
    assert f"{parameters:,} trainable" in CODE["python"]
    assert model.anchors.shape == (8732, 4) and model.name == NAME
    ms.set_context(mode=ms.PYNATIVE_MODE)
    model.network.set_train(False)
    logits, deltas = model.network(ms.ops.ones((1, 3, 300, 300), ms.float32))
    ms.set_context(mode=ms.GRAPH_MODE)
    assert logits.shape == (1, 8732, 81) and deltas.shape == (1, 8732, 4)
    assert np.isfinite(logits.asnumpy()).all()


def test_torchvision_names_fit(model):
    names = {parameter.name for parameter in model.network.backbone.get_parameters()}
    assert {"backbone.conv1.weight", "backbone.layer2.0.downsample.1.gamma", "backbone.layer3.1.conv2.weight"} <= names


def test_recipe(tmp_path):
    shutil.copytree(os.path.join(ROOT, "config"), tmp_path / "config")
    path = tmp_path / "config" / f"{NAME}_coco.yaml"
    assert f"config/{path.name}" in CODE["yaml"]
    path.write_text(CODE["yaml"])
    options = read_options([f"--config_path={path}"])
    assert options.model == NAME and build_rates(options, 100)[300] == pytest.approx(0.0026)


def test_it_takes_less_than_40_lines():
    assert sum(len(text.splitlines()) for text in CODE.values()) < 40
