"""All networks by one set of tests, on small inputs; the numbers of the published ones."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from src.errors import OptionError
from src.models.freeze import freeze_layers
from src.models.initialize import he_initialize
from src.models.layers import BatchNorm, Normalize, RepeatTwice, UpsampleTwice
from src.models.ssd import BUILDERS, build_model
from src.optim import RMSProp, build_optimizer

PUBLISHED = {  # classes, trainable parameters, anchors, input
    "ssd_resnet50_fpn": (81, 33_294_654, 51_150, 640), "ssd300_resnet50": (81, 22_894_902, 8732, 300),
    "ssd300_resnet34": (81, 19_972_534, 8732, 300), "ssd300_mobilenet_v1": (21, 5_796_089, 1917, 300),
    "ssd300_mobilenet_v1_zoo": (81, 11_294_517, 1917, 300), "ssd300_mobilenet_v2": (81, 4_393_461, 1917, 300),
    "ssd300_mobilenet_v2_tf": (81, 4_393_461, 1917, 300), "ssdlite300_mobilenet_v2": (81, 4_451_764, 3000, 300),
    "ssd_mobilenet_v1_fpn": (81, 12_534_846, 51_150, 640), "ssd300_vgg16": (91, 35_641_826, 8732, 300),
    "ssd512_vgg16": (81, 36_038_196, 24_564, 512), "ssd300_vgg16_voc": (21, 26_285_486, 8732, 300),
    "ssd512_vgg16_voc": (21, 27_188_676, 24_564, 512), "ssd_mobilenet_v2_fpnlite": (81, 2_619_006, 12_804, 320),
    "ssd_resnet50_fpn_tf2": (81, 32_702_270, 51_150, 640), "ssd_resnet50_fpn_tf1": (81, 32_702_270, 51_150, 640),
    "ssd_mobilenet_v1_fpn_tf2": (81, 11_942_462, 51_150, 640),
    "ssd_mobilenet_v1_fpn_tf1": (81, 11_942_462, 51_150, 640), "ssd300_mobilenet_v2_tf2": (81, 5_902_901, 1917, 300),
    "ssd300_mobilenet_v2_tf1": (81, 15_424_885, 1917, 300), "ssd300_mobilenet_v1_tf1": (81, 6_673_589, 1917, 300)}
# input of the quick tests; a model that is not here has only its published one
SMALL = {"ssd_resnet50_fpn": 128, "ssd_mobilenet_v1_fpn": 128, "ssd300_mobilenet_v1": 96, "ssd300_mobilenet_v1_zoo": 96,
         "ssd300_mobilenet_v2": 96, "ssd300_mobilenet_v2_tf": 96, "ssd_mobilenet_v2_fpnlite": 64,
         **{name: 64 if "fpn" in name else 96 for name in PUBLISHED if name.endswith(("_tf1", "_tf2"))}}


def small(name, num_classes, size=0):
    """A model at the smallest input it has, or at `size` if it takes any."""
    return build_model(name, num_classes, image_size=(size or SMALL[name]) if name in SMALL else 0)


@pytest.fixture(autouse=True)
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE)


def test_every_model_has_its_published_numbers_here():
    assert set(PUBLISHED) == set(BUILDERS) and set(SMALL) <= set(BUILDERS)


@pytest.mark.parametrize("name", BUILDERS)
def test_published_size(name):
    classes, parameters, anchors, size = PUBLISHED[name]
    model = build_model(name, classes)
    assert sum(parameter.size for parameter in model.network.trainable_params()) == parameters
    assert model.anchors.shape == (anchors, 4) and model.image_size == size
    names = [parameter.name for parameter in model.network.get_parameters()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
@pytest.mark.parametrize("name", BUILDERS)
def test_outputs_fit_the_anchors(name, mode):
    ms.set_context(mode=mode)
    model = small(name, 4)
    model.network.set_train(False)
    logits, deltas = model.network(ms.ops.zeros((1, 3, model.image_size, model.image_size), ms.float32))
    assert logits.shape == (1, len(model.anchors), 4) and deltas.shape == (1, len(model.anchors), 4)
    assert np.isfinite(logits.asnumpy()).all()


@pytest.mark.parametrize("name", BUILDERS)
def test_output_row_belongs_to_its_anchor(name):
    """A change at one place of the picture changes the outputs of the smallest anchors there, not at the far corner."""
    model = small(name, 2, 256)
    size = model.image_size
    # the published initial weights are too small to see through many layers; depthwise ones without a ReLU of their own
    # (fpnlite) that are as large as the others would fill the maps up to 6, so would the sums of a ResNet with ReLU6
    for parameter in model.network.get_parameters():
        if parameter.name.endswith(".bn3.gamma") and "_tf" in name:
            parameter.set_data(parameter * 0)
        if parameter.ndim > 1:
            gain = 1 if parameter.shape[1] == 1 else 2
            values = np.random.default_rng(0).normal(0, (gain / np.prod(parameter.shape[1:])) ** 0.5, parameter.shape)
            parameter.set_data(ms.Tensor(values, ms.float32))
    model.network.set_train(False)
    image = np.zeros((1, 3, size, size), np.float32)
    spot = image.copy()
    spot[:, :, size * 7 // 8:size * 15 // 16, size // 16:size // 8] = 1.0  # low left: cx small, cy large
    with_spot, without = (model.network(ms.Tensor(pixels))[0].asnumpy()[0] for pixels in (spot, image))
    change = np.abs(with_spot - without).sum(axis=1)
    first_level = np.isclose(model.anchors[:, 2:], model.anchors[0, 2:]).all(axis=1)
    centers = model.anchors[first_level, :2]
    best = centers[change[first_level].argmax()]
    assert abs(best[0] - 24 / 256) < 0.15 and abs(best[1] - 232 / 256) < 0.15


@pytest.mark.parametrize("name", BUILDERS)
def test_he_initialize_starts_from_background_and_identity(name):
    model = small(name, 5)
    he_initialize(model.network, 5, seed=3)
    weights = {parameter.name: parameter.asnumpy() for parameter in model.network.get_parameters()}
    first = next(value for key, value in weights.items() if key.startswith("backbone.") and value.ndim == 4)
    assert first.std() == pytest.approx((2 / np.prod(first.shape[1:])) ** 0.5, rel=0.1)
    biases = [value for key, value in weights.items() if key.startswith("head.cls_out.") and key.endswith(".bias")
              or key.endswith(".3.bias") and ".cls." in key]
    prior = np.log(99) * np.array([1, -1, -1, -1, -1])
    assert biases and all(np.allclose(bias.reshape(-1, 5), prior) for bias in biases)
    if name == "ssd300_mobilenet_v2":  # blocks 3 and 4: the second of a stage keeps its shape, the first does not
        assert (weights["backbone.features.3.conv.3.gamma"] == 0).all()
        assert (weights["backbone.features.2.conv.3.gamma"] == 1).all()


def test_unknown_model_and_impossible_sizes():
    with pytest.raises(OptionError, match="ssd_resnet50_fpn"):
        build_model("ssd_resnet18", 2)
    for typed, near in (("SSD300-VGG16", "ssd300_vgg16"), ("ssd300_vgg", "ssd300_vgg16"),
                        ("ssd_resnet50", "ssd_resnet50_fpn"), ("mobilenet_v2", "ssd300_mobilenet_v2")):
        with pytest.raises(OptionError, match=f"^--model={typed}: did you mean '{near}'. known models are ssd"):
            build_model(typed, 2)
    for typed in ("yolo", ""):
        with pytest.raises(OptionError, match=f"^--model={typed}: known models are ssd_resnet50_fpn"):
            build_model(typed, 2)
    with pytest.raises(OptionError, match="multiple of 128"):
        build_model("ssd_resnet50_fpn", 2, image_size=300)
    with pytest.raises(OptionError, match="multiple of 32, like 320 or 640"):
        build_model("ssd_mobilenet_v2_fpnlite", 2, image_size=300)
    with pytest.raises(OptionError, match="width"):
        build_model("ssd_resnet50_fpn", 2, image_size=128, width=0.5)


def test_batch_norm_of_a_single_value_stays_finite():
    norm = BatchNorm(3)
    norm.set_train()
    output = norm(ms.Tensor(np.full((1, 3, 1, 1), 5, np.float32)))
    assert (output.asnumpy() == 0).all()  # beta
    assert all(np.isfinite(parameter.asnumpy()).all() for parameter in norm.get_parameters())
    assert (norm.moving_variance.asnumpy() == 1).all()


def test_upsampling_by_hand():
    x = ms.Tensor(np.array([[[[0, 2], [4, 6]]]], np.float32))
    assert UpsampleTwice()(x).asnumpy()[0, 0].tolist() == [[0, 1, 2, 2], [2, 3, 4, 4], [4, 5, 6, 6], [4, 5, 6, 6]]


def test_repeating_by_hand():
    x = ms.Tensor(np.array([[[[0, 2], [4, 6]]]], np.float32))
    assert RepeatTwice()(x).asnumpy()[0, 0].tolist() == [[0, 0, 2, 2], [0, 0, 2, 2], [4, 4, 6, 6], [4, 4, 6, 6]]


def test_normalize_by_hand():
    images = ms.Tensor(np.array([[[[10, 20, 30], [0, 0, 0]]]], np.uint8))  # [1, 1, 2, 3]
    output = Normalize((10, 10, 10), (2, 5, 10))(images).asnumpy()
    assert output.shape == (1, 3, 1, 2) and np.allclose(output[0, :, 0], [[0, -5], [2, -2], [2, -1]])


def test_freeze_stops_weights_and_statistics():
    model = build_model("ssd300_mobilenet_v2", 3, image_size=96, width=0.35)
    assert freeze_layers(model.network, ["backbone"]) > 100
    optimizer = build_optimizer(model.network.trainable_params(), np.full(3, 0.1, np.float32), weight_decay=1e-4)
    before = {parameter.name: parameter.asnumpy().copy() for parameter in model.network.get_parameters()}
    model.network.set_train()

    network = model.network

    def forward(images):
        return network(images)[0].sum()

    gradients = ops.value_and_grad(forward, None, optimizer.parameters)
    optimizer(gradients(ms.ops.ones((2, 3, 96, 96), ms.float32))[1])
    after = {parameter.name: parameter.asnumpy() for parameter in model.network.get_parameters()}
    changed = {name for name, value in after.items() if not np.array_equal(before[name], value)}
    assert changed and not [name for name in changed if name.startswith("backbone.")]
    assert "neck.expand.1.moving_mean" in changed


def test_freeze_refuses_what_names_nothing():
    model = build_model("ssd300_mobilenet_v2", 3, image_size=96, width=0.35)
    with pytest.raises(OptionError, match=r"known are .*backbone\.features"):
        freeze_layers(model.network, ["features_1"])
    with pytest.raises(OptionError, match="nothing is left"):
        freeze_layers(model.network, ["backbone", "neck", "head"])


@pytest.mark.parametrize("exclude, decayed", [
    ("norm", "backbone.conv.weight backbone.conv.bias head.weight head.bias"),
    ("norm_bias", "backbone.conv.weight head.weight"),
    ("body", "head.weight head.bias"),
    ("none", "backbone.conv.weight backbone.conv.bias backbone.bn.gamma head.weight head.bias")])
def test_who_is_decayed(exclude, decayed):
    names = ["backbone.conv.weight", "backbone.conv.bias", "backbone.bn.gamma", "head.weight", "head.bias"]
    parameters = [ms.Parameter(ms.Tensor(np.ones(2, np.float32)), name=name) for name in names]
    optimizer = build_optimizer(parameters, np.full(2, 0.5, np.float32), kind="momentum", momentum=0.9,
                                weight_decay=0.1, decay_exclude=exclude)
    optimizer(tuple(ms.Tensor(np.zeros(2, np.float32)) for _ in names))
    # no gradient: w - lr * decay * w = 1 - .5 * .1
    after = {parameter.name: parameter.asnumpy()[0] for parameter in parameters}
    assert after == pytest.approx({name: 0.95 if name in decayed.split() else 1.0 for name in names})


@pytest.mark.parametrize("kind, expected", [
    ("momentum", [0.9, 0.71]),     # moment 1, then .9 + 1: 1 - .1, .9 - .19
    ("nesterov", [0.81, 0.539]),   # gradient + .9 * moment: 1.9, then 1 + .9 * 1.9 = 2.71
    ("rmsprop", [])])
def test_two_steps_by_hand(kind, expected):
    weight = ms.Parameter(ms.Tensor(np.ones(1, np.float32)), name="head.weight")
    optimizer = build_optimizer([weight], np.full(2, 0.1, np.float32), kind=kind, momentum=0.9)
    seen = []
    for _ in range(2):
        optimizer((ms.Tensor(np.ones(1, np.float32)),))
        seen.append(float(weight.asnumpy()[0]))
    if kind == "rmsprop":  # mean square .05, then .0975; step .1 / sqrt(.05) = .447, then .9 * .447 + .1 / sqrt(.0975)
        steps = [0.1 / 0.050001 ** 0.5]
        steps.append(0.9 * steps[0] + 0.1 / 0.097501 ** 0.5)
        expected = [1 - steps[0], 1 - sum(steps)]
        assert isinstance(optimizer, RMSProp)
    assert seen == pytest.approx(expected, rel=1e-5)


def test_the_body_can_learn_slower():
    parameters = [ms.Parameter(ms.Tensor(np.ones(1, np.float32)), name=name)
                  for name in ("neck.conv.weight", "neck.bn.gamma", "head.weight")]
    optimizer = build_optimizer(parameters, np.full(2, 0.5, np.float32), momentum=0.0, body_lr=0.1)
    optimizer(tuple(ms.Tensor(np.ones(1, np.float32)) for _ in parameters))
    assert [float(parameter.asnumpy()[0]) for parameter in parameters] == pytest.approx([0.95, 0.5, 0.5])


def test_batch_norm_is_recognised_by_mixed_precision():
    assert issubclass(BatchNorm, nn.BatchNorm2d)  # amp keeps these in float32 by their type
