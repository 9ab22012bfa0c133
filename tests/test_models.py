"""All networks by one set of tests, on small inputs; the numbers of the published ones."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.errors import OptionError
from src.models.layers import BatchNorm, Normalize, UpsampleTwice
from src.models.ssd import BUILDERS, build_model, he_initialize
from src.optim import build_momentum, freeze

PUBLISHED = {"ssd_resnet50_fpn": (33_294_654, 51_150, 640), "ssd300_mobilenet_v2": (4_393_461, 1917, 300)}
SMALL = {"ssd_resnet50_fpn": 128, "ssd300_mobilenet_v2": 96}


@pytest.fixture(autouse=True)
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE)


def test_every_model_has_its_published_numbers_here():
    assert set(PUBLISHED) == set(SMALL) == set(BUILDERS)


@pytest.mark.parametrize("name", BUILDERS)
def test_published_size(name):
    model = build_model(name, 81)
    parameters, anchors, size = PUBLISHED[name]
    assert sum(one.size for one in model.network.trainable_params()) == parameters
    assert model.anchors.shape == (anchors, 4) and model.image_size == size
    assert len({one.name for one in model.network.get_parameters()}) == len(list(model.network.get_parameters()))


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
@pytest.mark.parametrize("name", BUILDERS)
def test_outputs_fit_the_anchors(name, mode):
    ms.set_context(mode=mode)
    model = build_model(name, 4, SMALL[name])
    model.network.set_train(False)
    logits, deltas = model.network(ms.ops.zeros((2, 3, SMALL[name], SMALL[name]), ms.float32))
    assert logits.shape == (2, len(model.anchors), 4) and deltas.shape == (2, len(model.anchors), 4)
    assert np.isfinite(logits.asnumpy()).all()


@pytest.mark.parametrize("name", BUILDERS)
def test_output_row_belongs_to_its_anchor(name):
    """A change at one place of the picture changes the outputs of the smallest anchors there, not at the far corner."""
    ms.set_seed(0)
    model = build_model(name, 2, 256)
    for one in model.network.get_parameters():  # the published initial weights are too small to see through many layers
        if one.ndim > 1:
            values = np.random.default_rng(0).normal(0, (2 / np.prod(one.shape[1:])) ** 0.5, one.shape)
            one.set_data(ms.Tensor(values, ms.float32))
    model.network.set_train(False)
    image = np.zeros((1, 3, 256, 256), np.float32)
    spot = image.copy()
    spot[:, :, 224:240, 16:32] = 1.0  # low left: cx small, cy large
    with_spot, without = (model.network(ms.Tensor(one))[0].asnumpy()[0] for one in (spot, image))
    change = np.abs(with_spot - without).sum(axis=1)
    first_level = np.isclose(model.anchors[:, 2:], model.anchors[0, 2:]).all(axis=1)
    centers = model.anchors[first_level, :2]
    best = centers[change[first_level].argmax()]
    assert abs(best[0] - 24 / 256) < 0.15 and abs(best[1] - 232 / 256) < 0.15


@pytest.mark.parametrize("name", BUILDERS)
def test_he_initialize_starts_from_background_and_identity(name):
    model = build_model(name, 5, SMALL[name])
    he_initialize(model.network, 5, seed=3)
    weights = {one.name: one.asnumpy() for one in model.network.get_parameters()}
    first = next(value for key, value in weights.items() if key.startswith("backbone.") and value.ndim == 4)
    assert first.std() == pytest.approx((2 / np.prod(first.shape[1:])) ** 0.5, rel=0.1)
    biases = [value for key, value in weights.items() if key.startswith("head.cls") and key.endswith("t.bias")
              or key.endswith(".3.bias") and ".cls." in key]
    prior = np.log(99) * np.array([1, -1, -1, -1, -1])
    assert biases and all(np.allclose(bias.reshape(-1, 5), prior) for bias in biases)
    if name == "ssd300_mobilenet_v2":  # blocks 3 and 4: the second of a stage keeps its shape, the first does not
        assert (weights["backbone.features.3.conv.3.gamma"] == 0).all()
        assert (weights["backbone.features.2.conv.3.gamma"] == 1).all()


def test_unknown_model_and_impossible_sizes():
    with pytest.raises(OptionError, match="ssd_resnet50_fpn"):
        build_model("ssd_resnet18", 2)
    with pytest.raises(OptionError, match="multiple of 128"):
        build_model("ssd_resnet50_fpn", 2, 300)
    with pytest.raises(OptionError, match="width"):
        build_model("ssd_resnet50_fpn", 2, 128, 0.5)


def test_batch_norm_of_a_single_value_stays_finite():
    norm = BatchNorm(3)
    norm.set_train()
    output = norm(ms.Tensor(np.full((1, 3, 1, 1), 5, np.float32)))
    assert (output.asnumpy() == 0).all()  # beta
    assert all(np.isfinite(one.asnumpy()).all() for one in norm.get_parameters())
    assert (norm.moving_variance.asnumpy() == 1).all()


def test_upsampling_by_hand():
    x = ms.Tensor(np.array([[[[0, 2], [4, 6]]]], np.float32))
    assert UpsampleTwice()(x).asnumpy()[0, 0].tolist() == [[0, 1, 2, 2], [2, 3, 4, 4], [4, 5, 6, 6], [4, 5, 6, 6]]


def test_normalize_by_hand():
    images = ms.Tensor(np.array([[[[10, 20, 30], [0, 0, 0]]]], np.uint8))  # [1, 1, 2, 3]
    output = Normalize((10, 10, 10), (2, 5, 10))(images).asnumpy()
    assert output.shape == (1, 3, 1, 2) and np.allclose(output[0, :, 0], [[0, -5], [2, -2], [2, -1]])


def test_freeze_stops_weights_and_statistics():
    model = build_model("ssd300_mobilenet_v2", 3, 96, 0.35)
    assert freeze(model.network, ["backbone"]) > 100
    optimizer = build_momentum(model.network.trainable_params(), np.full(3, 0.1, np.float32), 0.9, 1e-4)
    before = {one.name: one.asnumpy().copy() for one in model.network.get_parameters()}
    model.network.set_train()

    network = model.network

    def forward(images):
        return network(images)[0].sum()

    gradients = ops.value_and_grad(forward, None, optimizer.parameters)
    optimizer(gradients(ms.ops.ones((2, 3, 96, 96), ms.float32))[1])
    after = {one.name: one.asnumpy() for one in model.network.get_parameters()}
    changed = {name for name, value in after.items() if not np.array_equal(before[name], value)}
    assert changed and not [name for name in changed if name.startswith("backbone.")]
    assert "neck.expand.1.moving_mean" in changed


def test_freeze_refuses_what_names_nothing():
    model = build_model("ssd300_mobilenet_v2", 3, 96, 0.35)
    with pytest.raises(OptionError, match=r"known are .*backbone\.features"):
        freeze(model.network, ["features_1"])
    with pytest.raises(OptionError, match="nothing is left"):
        freeze(model.network, ["backbone", "neck", "head"])


def test_weight_decay_leaves_batch_norm_alone():
    weight = ms.Parameter(ms.Tensor(np.ones(2, np.float32)), name="conv.weight")
    bias = ms.Parameter(ms.Tensor(np.ones(2, np.float32)), name="conv.bias")
    gamma = ms.Parameter(ms.Tensor(np.ones(2, np.float32)), name="bn.gamma")
    optimizer = build_momentum([weight, bias, gamma], np.full(2, 0.5, np.float32), 0.9, 0.1)
    optimizer(tuple(ms.Tensor(np.zeros(2, np.float32)) for _ in range(3)))
    # no gradient: w - lr * decay * w = 1 - .5 * .1
    assert np.allclose(weight.asnumpy(), 0.95) and np.allclose(bias.asnumpy(), 0.95) and np.allclose(gamma.asnumpy(), 1)


def test_batch_norm_is_recognised_by_mixed_precision():
    assert issubclass(BatchNorm, nn.BatchNorm2d)  # amp keeps these in float32 by their type
