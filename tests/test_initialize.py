"""Every model with every initialisation: what is drawn again, and that a network trains from it."""
import re

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from test_models import small

from src.config import read_options
from src.losses import DetectionLoss, FocalLoss, MultiBoxLoss
from src.models.initialize import he_initialize
from src.models.layers import BatchNorm
from src.models.ssd import BUILDERS
from src.optim import build_optimizer
from src.training.build import build_training_model
from src.training.log import RunLog
from src.training.step import TrainStep
from src.weights.files import open_weights
from src.weights.load import load_pretrained

CLASSES = 21


def parameters(network):
    """{name: array} of all parameters."""
    return {parameter.name: parameter.asnumpy().copy() for parameter in network.get_parameters()}


def class_names(name):
    """Names of the parameters whose shapes depend on the number of classes."""
    first, second = ({p.name: p.shape for p in small(name, count).network.get_parameters()} for count in (3, 4))
    assert first.keys() == second.keys()
    return {key for key in first if first[key] != second[key]}


@pytest.mark.parametrize("name", BUILDERS)
def test_class_layers_are_those_that_depend_on_the_classes(name):
    head = small(name, 3).network.head
    assert {p.name for layer in head.class_layers() for p in layer.get_parameters()} == class_names(name)


@pytest.mark.parametrize("name", BUILDERS)
def test_what_he_draws(name):
    network = small(name, CLASSES).network
    before, trained = parameters(network), {parameter.name for parameter in network.trainable_params()}
    he_initialize(network, CLASSES, seed=3)
    after = parameters(network)
    assert {key: value.shape for key, value in after.items()} == {key: value.shape for key, value in before.items()}
    changed = {key for key in before if not np.array_equal(before[key], after[key])}
    hidden = {layer.weight.name for layer in network.head.hidden_layers()}
    assert len(hidden) == (10 if "fpnlite" in name else 0)  # four layers of two, and the first halves of both outputs
    convolutions = {key for key in trained if before[key].ndim == 4 and not key.startswith("head.")} | hidden
    biases = {key for key in class_names(name) if key.endswith(".bias")}
    last_norms = {key for key in changed if key.endswith(".gamma")}
    assert biases and changed | biases == convolutions | biases | last_norms  # fpnlite starts with these biases
    assert all((after[key] == 0).all() for key in last_norms)
    for key in biases:
        rows = after[key].reshape(-1, CLASSES)
        assert np.allclose(rows[:, 0], np.log(99)) and np.allclose(rows[:, 1:], -np.log(99))


@pytest.mark.parametrize("name", ["ssdlite300_mobilenet_v2", "ssd300_vgg16", "ssd_mobilenet_v1_fpn"])
def test_filter_weight_leaves_out_what_depends_on_the_classes(name, tmp_path):
    network, names = small(name, 3).network, class_names(name)
    np.savez(tmp_path / "all.npz", **parameters(network))
    report = load_pretrained(network, open_weights(str(tmp_path / "all.npz")), name, by_class=True).text("")
    assert re.search(rf"skipped, --filter_weight +{len(names)}\n", report)
    assert re.search(rf"loaded +{len(parameters(network)) - len(names)}\n", report)


def test_he_fits_the_first_convolution_to_the_size_of_the_pixels():
    """Pixels that deviate 60 times as much as those of ImageNet's models give the same features."""
    plain, wide = small("ssd300_vgg16", 3).network, small("ssd300_vgg16", 3).network
    he_initialize(plain, 3, seed=2)
    he_initialize(wide, 3, seed=2, input_deviation=60)
    before, after = parameters(plain), parameters(wide)
    first = "backbone.features.0.weight"
    assert np.allclose(after[first] * 60, before[first], rtol=1e-6)
    others = [name for name in before if name.startswith(("backbone", "neck")) and name != first]
    assert all(np.array_equal(before[name], after[name]) for name in others)


@pytest.mark.parametrize("name, expected", [("ssd300_vgg16", 0.0047), ("ssd300_mobilenet_v2", 0.27),
                                            ("ssd300_mobilenet_v2_tf", 0.27)])
def test_a_run_from_scratch_starts_from_the_deviation_that_its_pixels_need(name, expected):
    """sqrt(2 / 27) = 0.27 for three by three pixels; VGG-16 divides them by nothing, so by 57.7 more."""
    options = read_options([f"--model={name}", "--weight_init=he"])
    model, _ = build_training_model(options, ["cat"], log=RunLog(), world=1)
    first = next(parameter for parameter in model.network.trainable_params() if parameter.ndim == 4)
    assert first.asnumpy().std() == pytest.approx(expected, rel=0.1)


def train_once(name, init):
    """Numbers of one training step, and whether the weights are finite after it."""
    model = small(name, CLASSES)
    if init == "he":
        he_initialize(model.network, CLASSES, seed=1)
    parts = model.network.trainable_params()
    loss = DetectionLoss(FocalLoss() if model.score == "sigmoid" else MultiBoxLoss())
    step = TrainStep(model, loss, build_optimizer(parts, np.full(2, 1e-3, np.float32)))
    step.set_train()
    rng, size, count = np.random.default_rng(0), model.image_size, len(model.anchors)
    labels = (rng.integers(0, 50, (2, count)) == 0) * rng.integers(1, CLASSES, (2, count))
    numbers = step(ms.Tensor(rng.integers(0, 256, (2, size, size, 3), np.uint8)), ms.Tensor(labels.astype(np.int32)),
                   ms.Tensor(rng.normal(0, 1, (2, count, 4)).astype(np.float32)), ms.Tensor(0.0, ms.float32)).asnumpy()
    return numbers, all(np.isfinite(parameter.asnumpy()).all() for parameter in model.network.get_parameters())


@pytest.mark.parametrize("init", ["published", "he"])
@pytest.mark.parametrize("name", ["ssd300_mobilenet_v2", *(pytest.param(name, marks=pytest.mark.long)
                                                           for name in BUILDERS if name != "ssd300_mobilenet_v2")])
def test_one_step(name, init):
    numbers, finite = train_once(name, init)
    assert np.isfinite(numbers[:6]).all() and numbers[0] > 0 and numbers[5] == 1 and finite


def test_norms_are_not_touched_but_for_residual_ones():
    network = small("ssd_resnet50_fpn", 3).network
    norms = [cell for _, cell in network.cells_and_names() if isinstance(cell, BatchNorm)]
    before = [cell.gamma.asnumpy().copy() for cell in norms]
    he_initialize(network, 3, seed=0)
    assert norms and all(np.array_equal(gamma, cell.gamma.asnumpy()) for gamma, cell in zip(before, norms))
    assert all(isinstance(layer, nn.Conv2d) for layer in network.head.class_layers())
