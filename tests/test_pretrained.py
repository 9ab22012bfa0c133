"""What is loaded from whose weights, and what is refused."""
import re

import mindspore as ms
import numpy as np
import pytest

from src.errors import OptionError
from src.models.ssd import build_model
from src.weights import checkpoint
from src.weights.files import WeightFile, open_weights
from src.weights.load import find_source, load_all, load_pretrained, translate_weights
from src.weights.names import convert_weights, decimate_vgg, guess_source, rename_norms, unwrap

MODEL = "ssd300_mobilenet_v2"


def small(num_classes=4):
    return build_model(MODEL, num_classes, image_size=96, width=0.35).network


@pytest.fixture
def saved(tmp_path):
    path = str(tmp_path / "a.ckpt")
    checkpoint.save(path, small().get_parameters(), {"model": MODEL, "classes": ["ä", "b", "c"], "best": 0.5})
    return path


def test_another_class_count_loads_all_but_the_class_layers(saved):
    other = small(7)
    before = other.head.cls[0][3].weight.asnumpy().copy()
    report = load_pretrained(other, open_weights(saved), MODEL).text("", rows=None)
    assert re.search(r"head\.cls\.0\.3\.weight: \(12, (\d+), 1, 1\) in the file, \(21, \1, 1, 1\) here", report)
    assert np.array_equal(other.head.cls[0][3].weight.asnumpy(), before)
    values = open_weights(saved).arrays
    assert np.array_equal(other.backbone.features[0][0].weight.asnumpy(), values["backbone.features.0.0.weight"])


def test_another_model_or_width_is_noted(saved):
    assert "note:" not in load_pretrained(small(), open_weights(saved), MODEL).text("")
    report = load_pretrained(small(), open_weights(saved), "ssd300_mobilenet_v2_tf").text("")
    assert "note: the file is of ssd300_mobilenet_v2, this is ssd300_mobilenet_v2_tf" in report
    wide = build_model(MODEL, 4, image_size=64, width=1.0).network
    report = load_pretrained(wide, open_weights(saved), MODEL).text("")
    assert "note: most tensors have another shape; is the file of another --width?" in report


def test_filter_weight_leaves_out_the_class_layers(saved):
    report = load_pretrained(small(), open_weights(saved), MODEL, by_class=True)
    text = report.text("a/b.ckpt")
    assert text.startswith("weights from b.ckpt (ours)\n  loaded ")
    assert "skipped, --filter_weight           12\n      head.cls.0.3.weight" in text
    assert "      ... and 9 more\n" in text and len(text.splitlines()) == 2 + 5 + 4
    assert "... and" not in report.text("", rows=None) and len(report.text("", rows=None).splitlines()) == 2 + 5 + 12


def test_nothing_loaded_is_an_error(tmp_path, saved):
    path = str(tmp_path / "foreign.ckpt")
    ms.save_checkpoint([{"name": "fc.weight", "data": ms.Tensor(np.ones(3, np.float32))}], path)
    with pytest.raises(OptionError, match=r"fits this network by no known names \(it begins with fc\.weight\)"):
        load_pretrained(small(), open_weights(path), MODEL)
    with pytest.raises(OptionError, match="is not of this ssd_resnet50_fpn"):
        network = build_model("ssd_resnet50_fpn", 4, image_size=128).network
        load_all(network, open_weights(saved), "ssd_resnet50_fpn")


def test_a_backbone_of_torchvision_fills_any_model_of_it(tmp_path):
    """ResNet-50 by torchvision's names, the classifier left over, layer4 too where the model has none."""
    rng = np.random.default_rng(0)
    network = build_model("ssd_resnet50_fpn", 3, image_size=128).network
    theirs = {"fc.weight": np.ones((2, 2), np.float32)}
    norms = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    for one in network.backbone.get_parameters():
        name, kind = one.name.removeprefix("backbone.").rsplit(".", 1)
        theirs[f"{name}.{norms.get(kind, kind)}"] = rng.normal(size=one.shape).astype(np.float32)
    path = str(tmp_path / "resnet50.npz")
    np.savez(path, **theirs)
    report = load_pretrained(network, open_weights(path), "ssd_resnet50_fpn").text("", rows=None)
    assert "(torchvision)" in report and "fc.weight" in report
    assert np.array_equal(network.backbone.layer4[2].bn3.moving_variance.asnumpy(), theirs["layer4.2.bn3.running_var"])
    cut = build_model("ssd300_resnet50", 3).network
    values, left, source = translate_weights(cut, open_weights(path))
    mine = {one.name for one in cut.backbone.get_parameters()}
    assert mine <= set(values) and source == "torchvision" and left == ["fc.weight"]
    assert all(name.startswith("backbone.layer4.") for name in set(values) - mine)


def test_the_public_mobilenet_v2_gives_its_published_features(shared):
    """Every tensor of torchvision's `features` is used; the expansion of block 14 fills the zoo's own copy."""
    path = shared("weights", "mobilenet_v2-b0353104.pth")
    for name in ("ssdlite300_mobilenet_v2", MODEL):
        network = build_model(name, 3).network
        values, left, source = translate_weights(network, open_weights(path))
        assert source == "torchvision" and left == ["classifier.1.weight", "classifier.1.bias"]
        assert {one.name for one in network.backbone.get_parameters()} <= set(values)
    assert np.array_equal(values["neck.expand.0.weight"], values["backbone.features.14.conv.0.0.weight"])


def test_the_public_mobilenet_v2_computes_what_torchvision_computes(shared):
    """Features of a fixed input, against torchvision 0.29.2 with these weights (torch 2.15, CPU)."""
    network = build_model("ssdlite300_mobilenet_v2", 3).network
    file = open_weights(shared("weights", "mobilenet_v2-b0353104.pth"))
    load_pretrained(network, file, "ssdlite300_mobilenet_v2")
    network.set_train(False)
    images = np.random.default_rng(7).standard_normal((1, 3, 300, 300)).astype(np.float32)
    middle, last = (one.asnumpy() for one in network.backbone(ms.Tensor(images)))
    assert middle.shape == (1, 576, 19, 19) and last.shape == (1, 1280, 10, 10)
    assert [middle.mean(), middle.std(), last.mean(), last.std()] == pytest.approx(
        [0.031648, 0.063572, 0.310566, 0.578265], abs=1e-5)
    places = middle.reshape(-1)[::middle.size // 8][:8]
    assert places == pytest.approx([0.408646, 0.425838, 0.214521, 0.278076, 0.550918, 0.111588, 0.153897, 0.100363],
                                   abs=1e-4)
    assert last[0, [2, 5, 10, 13, 15, 18, 19, 23], 5, 5] == pytest.approx(
        [3.6691, 0.3548, 0.3510, 0.6548, 1.2179, 0.3397, 0.3472, 0.5195], abs=1e-3)


def test_model_zoo_backbone_names():
    theirs = dict.fromkeys(["conv1.weight", "layer1.0.down_sample_layer.0.weight"], np.ones(2))
    theirs["end_point.weight"] = np.ones(2)
    ours, left = convert_weights("mindspore_zoo", theirs, {})
    assert list(ours) == ["backbone.conv1.weight", "backbone.layer1.0.downsample.0.weight"]
    assert left == ["end_point.weight"]


def test_box_layers_of_the_model_zoo_become_x_first():
    bias = np.arange(8.0)  # two shapes, dy dx dh dw each
    ours, _ = convert_weights("mindspore_zoo", {"network.multi_box.loc_layers.0.bias": bias}, {})
    assert ours["head.box_out.bias"].tolist() == [1, 0, 3, 2, 5, 4, 7, 6]


def test_coordinate_major_channels_become_shape_major():
    # two shapes: dx of both, dy of both, ..; three classes of both
    ours, _ = convert_weights("nvidia", {"loc.0.bias": np.arange(8.0), "conf.0.bias": np.arange(6.0)},
                              {"head.box.0.bias": (8,), "head.cls.0.bias": (6,)})
    assert ours["head.box.0.bias"].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert ours["head.cls.0.bias"].tolist() == [0, 2, 4, 1, 3, 5]


def test_background_of_paddle_moves_to_the_front():
    ours, _ = convert_weights("paddle", {"ssd_head.scores0.bias": np.arange(6.0)},
                              {"head.box.0.bias": (8,), "head.cls.0.bias": (6,)})
    assert ours["head.cls.0.bias"].tolist() == [2, 0, 1, 5, 3, 4]


def test_of_cocos_91_channels_the_80_used_ones_stay():
    ours, _ = convert_weights("torchvision", {"head.classification_head.module_list.0.bias": np.arange(91.0)},
                              {"head.box.0.bias": (4,), "head.cls.0.bias": (81,)})
    kept = ours["head.cls.0.bias"].tolist()
    assert len(kept) == 81 and kept[:13] == [*range(12), 13] and kept[-1] == 90  # 12 names no class


def test_norms_are_known_by_their_statistics():
    values = {"a.weight": 1, "a.bias": 2, "a.running_mean": 3, "a.running_var": 4, "a.num_batches_tracked": 5,
              "b.weight": 6}
    assert rename_norms(values) == {"a.gamma": 1, "a.beta": 2, "a.moving_mean": 3, "a.moving_variance": 4,
                                    "b.weight": 6}


def test_the_classifier_of_vgg_is_decimated():
    fc6 = np.arange(4096, dtype=np.float32)[:, None] * np.ones((1, 25088), np.float32)
    fc6[:, 7] = -1  # row 1, column 0 of the first of 7 x 7 maps: between the rows 0, 3, 6 that stay
    ours = decimate_vgg({"classifier.0.weight": fc6, "classifier.0.bias": np.arange(4096.0),
                         "classifier.3.weight": np.eye(4096, dtype=np.float32), "classifier.3.bias": np.arange(4096.0)})
    assert ours["features.31.weight"].shape == (1024, 512, 3, 3) and (ours["features.31.weight"] >= 0).all()
    assert ours["features.31.weight"][5].max() == 20 and ours["features.31.bias"][5] == 20
    assert np.array_equal(ours["features.33.weight"][:, :, 0, 0], np.eye(1024))


def test_a_classifier_of_nan_is_left_out():
    nan = {"classifier.0.weight": np.full((4096, 25088), np.nan, np.float32), "classifier.0.bias": np.zeros(4096),
           "classifier.3.weight": np.full((4096, 4096), np.nan, np.float32), "classifier.3.bias": np.zeros(4096)}
    assert list(decimate_vgg({**nan, "features.0.weight": np.ones(2)})) == ["features.0.weight"]


def test_no_source_is_guessed_for_foreign_names():
    assert guess_source({"a.weight": np.ones(3)}, {"backbone.conv1.weight": (64, 3, 7, 7)}) is None


@pytest.mark.parametrize("prefix", ["module.", "model.", "model.module.", "_orig_mod.", "net.model."])
def test_names_of_what_wraps_a_network_are_dropped(prefix):
    """With what Lightning keeps beside it. MLPerf's own names begin with "model." too, and stay."""
    shapes = {"backbone.conv1.weight": (4, 3, 7, 7), "backbone.layer1.0.conv1.weight": (2,), "backbone.bn1.gamma": (1,)}
    arrays = {"conv1.weight": np.ones((4, 3, 7, 7)), "layer1.0.conv1.weight": np.ones(2)}
    theirs = {**{f"{prefix}{name}": array for name, array in arrays.items()}, "loss.alpha": np.ones(1)}
    assert list(unwrap(theirs, shapes)) == [*arrays, "loss.alpha"]
    mlperf = {"model.layer1.0.weight": np.ones((4, 3, 7, 7)), "model.layer1.4.0.conv1.weight": np.ones(2)}
    assert unwrap(mlperf, shapes) is mlperf
    assert unwrap({"module.a": 1, "b": 2}, shapes) == {"module.a": 1, "b": 2}


def test_torchvision_shares_names_with_this_repository():
    """The convolutions of its VGG-16 are named like ours; who gives more arrays a place is right."""
    shapes = {"backbone.features.0.weight": (2, 3, 3, 3), "backbone.l2_norm.weight": (5,), "head.box.0.bias": (8,)}
    theirs = {"backbone.features.0.weight": np.ones((2, 3, 3, 3)), "backbone.scale_weight": np.ones(5),
              "head.regression_head.module_list.0.bias": np.ones(8)}
    assert find_source(WeightFile("a.pth", "torch", theirs, {}), shapes)[0] == "torchvision"
    ours = {name: np.ones(shape) for name, shape in shapes.items()}
    assert find_source(WeightFile("a.npz", "npz", ours, {}), shapes)[0] == "ours"


def test_norms_compute_what_they_did_with_the_eps_of_their_source():
    """torchvision's eps is 1e-5, ours here 1e-3: in channels of small variance that is far from the same."""
    network = small()
    norm, rng = network.backbone.features[0][1], np.random.default_rng(0)
    channels = norm.gamma.shape[0]
    theirs = {"weight": rng.normal(size=channels), "bias": rng.normal(size=channels),
              "running_mean": rng.normal(size=channels), "running_var": 10.0 ** rng.uniform(-8, 1, channels)}
    arrays = {f"features.0.1.{kind}": values.astype(np.float32) for kind, values in theirs.items()}
    file = WeightFile("a.pth", "pytorch", arrays, {})
    load_pretrained(network, file, MODEL)
    norm.set_train(False)
    x = rng.normal(size=(2, channels, 3, 3)).astype(np.float32)
    wide = {kind: values.astype(np.float32).astype(np.float64).reshape(-1, 1, 1) for kind, values in theirs.items()}
    expected = ((x - wide["running_mean"]) / np.sqrt(wide["running_var"] + 1e-5) * wide["weight"] + wide["bias"])
    assert norm.eps == 1e-3 and np.allclose(norm(ms.Tensor(x)).asnumpy(), expected, rtol=1e-4, atol=1e-4)


def test_norms_of_our_own_checkpoints_stay_as_they_are(saved):
    network = small()
    before = open_weights(saved).arrays["backbone.features.0.1.gamma"]
    load_pretrained(network, open_weights(saved), MODEL)
    assert np.array_equal(network.backbone.features[0][1].gamma.asnumpy(), before)


@pytest.mark.parametrize("parts, unused", [
    (("weights", "mobilenet_v2-b0353104.pth"), "classifier.1.weight"),
    (("weights", "tfjs_ssdlite_mobilenet_v2_coco", "model.json"), "head.box.0.0.weight")])
def test_fpnlite_takes_the_backbone_of_another_mobilenet(shared, parts, unused):
    network = build_model("ssd_mobilenet_v2_fpnlite", 4, image_size=64).network
    file, backbone = open_weights(shared(*parts)), list(network.backbone.get_parameters())
    report = load_pretrained(network, file, "ssd_mobilenet_v2_fpnlite", frozen=["backbone"]).text("", rows=None)
    assert re.search(rf"loaded +{len(backbone)}\n", report) and f"      {unused}\n" in report
    assert "not in the file, new weights      124\n      neck.lateral.0.weight" in report
    arrays = translate_weights(network, file).arrays
    # gammas of torchvision are changed for another eps
    assert all(np.array_equal(parameter.asnumpy(), arrays[parameter.name]) for parameter in backbone
               if not parameter.name.endswith(".gamma"))
