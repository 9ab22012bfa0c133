"""Classes of the same name keep their outputs when training starts from a detector of other classes."""
import mindspore as ms
import numpy as np
import pytest

from src.classes import COCO_CATEGORY_IDS, COCO_CLASSES, VOC_CLASSES
from src.models.ssd import build_model
from src.weights import checkpoint
from src.weights.class_outputs import match_classes, take_outputs
from src.weights.files import WeightFile, open_weights
from src.weights.load import load_pretrained


def test_names_are_compared_as_people_read_them():
    match = match_classes(["Traffic light", "dog", "tv"], ["drone", "traffic-light", "tvmonitor", "dog"])
    assert match.pairs == [(0, 1), (2, 2), (1, 3)] and match.new() == ["drone"]
    assert match.known() == ["traffic-light (Traffic light in the file)", "tvmonitor (tv in the file)", "dog"]
    assert match_classes([], ["a"]).pairs == match_classes(["a"], []).pairs == []


def test_all_classes_of_voc_are_among_those_of_coco():
    match = match_classes(COCO_CLASSES, VOC_CLASSES)
    assert len(match.pairs) == 20 and not match.new()
    named = {VOC_CLASSES[our]: COCO_CLASSES[their] for their, our in match.pairs}
    assert named["motorbike"] == "motorcycle" and named["diningtable"] == "dining table" and named["cat"] == "cat"


def test_rows_by_hand():
    """Two shapes a cell; background, a, b in the file; background, b, new here."""
    match = match_classes(["a", "b"], ["b", "new"])
    taken = take_outputs(np.array([1, 2, 3, 11, 12, 13]), np.array([-1, -2, -3, -4, -5, -6]), match)
    assert taken.tolist() == [1, 3, -3, 11, 13, -6]
    weights = take_outputs(np.arange(6.0).reshape(6, 1, 1, 1), -np.ones((6, 1, 1, 1)), match)
    assert weights.ravel().tolist() == [0, 2, -1, 3, 5, -1]


def test_a_new_class_is_as_rare_as_those_of_the_file():
    """One shape a cell: their classes have the biases -7 and -5, -6 on average; those of a second layer 1 and 3."""
    match = match_classes(["a", "b"], ["new", "b"])
    assert take_outputs(np.array([4.0, -7, -5]), np.zeros(3), match).tolist() == [4, -6, -5]
    assert take_outputs(np.array([4.0, 1, 3]), np.zeros(3), match).tolist() == [4, 0, 3]


def test_layers_of_another_head_are_not_taken():
    match = match_classes(["a", "b"], ["b"])
    ours = np.ones((4, 8, 1, 1))  # two shapes a cell
    assert take_outputs(np.ones((6, 8, 1, 1)), ours, match).shape == ours.shape
    for shape in ((9, 8, 1, 1), (8, 8, 1, 1), (7, 8, 1, 1), (6, 4, 1, 1), (6, 8, 3, 3), ()):
        assert take_outputs(np.ones(shape), ours, match) is None


def test_of_91_channels_the_used_ones():
    channels = np.arange(91.0)
    taken = take_outputs(channels, np.full(3, -1.0), match_classes(COCO_CLASSES, ["toothbrush", "new"]))
    assert taken.tolist() == [0, COCO_CATEGORY_IDS[-1], -1] == [0, 90, -1]


def small(name, num_classes):
    """A network of every kind of head: by level with sigmoid, shared, by level with softmax."""
    sizes = {"ssd300_mobilenet_v2": {"image_size": 64, "width": 0.25}, "ssd_mobilenet_v2_fpnlite": {"image_size": 64}}
    network = build_model(name, num_classes, **sizes.get(name, {})).network
    rng = np.random.default_rng(num_classes)
    for layer in network.head.class_layers():
        layer.weight.set_data(ms.Tensor(rng.normal(size=layer.weight.shape), ms.float32))
        layer.bias.set_data(ms.Tensor(rng.normal(size=layer.bias.shape), ms.float32))
    return network


def rows(array, num_classes):
    return array.reshape(-1, num_classes, *array.shape[1:])


HEADS = pytest.mark.parametrize("name", ["ssd300_mobilenet_v2", "ssd_mobilenet_v2_fpnlite", "ssdlite300_mobilenet_v2"])


@HEADS
@pytest.mark.parametrize("own", [True, False])
def test_every_kind_of_head(name, own, tmp_path):
    """From a checkpoint that names its classes, and from a file whose 81 channels are those of COCO."""
    theirs = ["cat", "person", "bicycle"] if own else list(COCO_CLASSES)
    ours = ["Bicycle", "drone", "person", "blimp"]
    before, network = small(name, len(theirs) + 1), small(name, 5)
    arrays = {parameter.name: parameter.asnumpy() for parameter in before.get_parameters()}
    path = str(tmp_path / "a.ckpt")
    if own:
        checkpoint.save(path, before.get_parameters(), {"model": name, "classes": theirs})
    file = open_weights(path) if own else WeightFile(path, "npz", arrays, {})
    fresh = {layer.weight.name: layer.weight.asnumpy().copy() for layer in network.head.class_layers()}
    text = load_pretrained(network, file, name, classes=ours, by_class=True).text("")
    assert "outputs kept (2): Bicycle (bicycle in the file), person\n" in text
    assert text.endswith("new outputs (2): drone, blimp") and "skipped, --filter_weight            0" in text
    person, bicycle = theirs.index("person") + 1, theirs.index("bicycle") + 1
    for layer in network.head.class_layers():
        found, given = rows(layer.weight.asnumpy(), 5), rows(arrays[layer.weight.name], len(theirs) + 1)
        assert np.array_equal(found[:, [0, 1, 3]], given[:, [0, bicycle, person]])  # the background with them
        assert np.array_equal(found[:, [2, 4]], rows(fresh[layer.weight.name], 5)[:, [2, 4]])
        bias = rows(layer.bias.asnumpy(), 5)
        assert np.array_equal(bias[:, 1], rows(arrays[layer.bias.name], len(theirs) + 1)[:, bicycle])


def test_without_a_shared_name_the_class_layers_are_left_out():
    before, network = small("ssd300_mobilenet_v2", 3), small("ssd300_mobilenet_v2", 5)
    arrays = {parameter.name: parameter.asnumpy() for parameter in before.get_parameters()}
    for meta in ({"classes": ["a", "b"]}, {}):  # named, or two of unknown names
        text = load_pretrained(network, WeightFile("a", "npz", arrays, meta), "ssd300_mobilenet_v2",
                               classes=["c", "d", "e", "f"], by_class=True).text("")
        assert "skipped, --filter_weight           12" in text and "outputs" not in text


def test_who_could_keep_outputs_is_told():
    """Other names in the same number would be loaded for the wrong classes."""
    before, network = small("ssd300_mobilenet_v2", 4), small("ssd300_mobilenet_v2", 4)
    arrays = {parameter.name: parameter.asnumpy() for parameter in before.get_parameters()}
    file = WeightFile("a", "npz", arrays, {"classes": ["a", "b", "c"]})
    assert "note: the file knows b, a; --filter_weight=True keeps" in load_pretrained(
        network, file, "ssd300_mobilenet_v2", classes=["b", "a", "x"]).text("")
    assert "note" not in load_pretrained(network, file, "ssd300_mobilenet_v2", classes=["a", "b", "c"]).text("")
