"""SSDs of Caffe in OpenCV, with seeded weights in a .caffemodel, against the networks here with the same file."""
import cv2
import mindspore as ms
import numpy as np
import pytest
from caffe_files import caffemodel, mobile_ssd, vgg_ssd

from src.boxes import to_corners
from src.config import model_options, read_options
from src.inference.predictor import load_model
from src.models import ssd
from src.models.layers import Normalize
from src.models.ssd import build_model
from src.weights.files import open_weights
from src.weights.load import load_all
from src.weights.recognise import match_model

VGGS = {"ssd300_vgg16": ssd.COCO_300, "ssd300_vgg16_voc": ssd.VOC_300, "ssd512_vgg16": ssd.COCO_512,
        "ssd512_vgg16_voc": ssd.VOC_512}
CLASSES = 4  # with the background
HEADS = ["mbox_loc", "mbox_conf", "mbox_priorbox"]


def compute(net, tmp_path, blob, outputs):
    """The arrays that OpenCV computes for a Network, and the path of its weights."""
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffemodel(net.arrays))
    (tmp_path / "net.prototxt").write_text(net.text)
    cv2.setNumThreads(1)
    network = cv2.dnn.readNetFromCaffe(str(tmp_path / "net.prototxt"), str(path))
    network.setInput(blob)
    return dict(zip(outputs, network.forward(outputs))), str(path)


def check(net, name, tmp_path, *, features):
    """Features, logits, deltas and anchors of a model are those of Caffe's network. features: layers of Caffe."""
    model = build_model(name, CLASSES, clip_anchors=False)
    images = np.random.default_rng(1).integers(0, 256, (1, model.image_size, model.image_size, 3), np.uint8)
    # blue first, as Caffe's scripts feed it: scale * (pixel - mean)
    blob = ((images[..., ::-1] - np.array(model.mean[::-1])) / model.std[0]).transpose(0, 3, 1, 2).astype(np.float32)
    found, path = compute(net, tmp_path, blob, [*HEADS, *features])
    file = open_weights(path)
    assert match_model(file, name) == ("caffe", CLASSES - 1) and load_all(model.network, file, name).source == "caffe"
    loaded, facts = load_model(path, **model_options(read_options([f"--model={name}", "--classes=a,b,c"])))
    assert np.array_equal(loaded.anchors, model.anchors) and not facts["clip_anchors"] and facts["max_boxes"] == 200
    network = model.network.set_train(False)
    pixels = Normalize(model.mean, model.std)(ms.Tensor(images))
    maps = network.backbone(pixels)
    for layer, ours in zip(features, maps):
        theirs = found[layer]
        assert np.abs(ours.asnumpy() - theirs).max() <= 1e-3 * max(np.abs(theirs).max(), 1), layer
    logits, deltas = network.head(network.neck(maps))
    priors = found["mbox_priorbox"][0, 0].reshape(-1, 4)
    order = caffe_order(model)
    assert np.allclose(to_corners(model.anchors), priors[order], atol=1e-5)
    for ours, theirs, values in ((logits, "mbox_conf", CLASSES), (deltas, "mbox_loc", 4)):
        expected = found[theirs].reshape(-1, values)[order]
        assert expected.std() > 0.05 and np.abs(ours.asnumpy()[0] - expected).max() <= 1e-3 * np.abs(expected).max()


def caffe_order(model):
    """The number in Caffe of each anchor: MobileNet-SSD has the second square behind the first."""
    if "mobilenet" not in model.name:
        return np.arange(len(model.anchors))
    order = []
    for start, side, shapes in model.levels():
        places = [0, 2, 3, 4, 5, 1] if len(shapes) == 6 else [0, 1, 2]
        order.append((start + np.arange(side * side)[:, None] * len(shapes) + places).ravel())
    return np.concatenate(order)


@pytest.mark.parametrize("name", VGGS)
def test_vgg(name, tmp_path):
    check(vgg_ssd(VGGS[name], CLASSES), name, tmp_path, features=("conv4_3_norm", "fc7/relu"))


@pytest.mark.parametrize("merged", [True, False])
def test_mobilenet(merged, tmp_path):
    end = "relu" if merged else "scale/relu"
    check(mobile_ssd(CLASSES, merged=merged), "ssd300_mobilenet_v1", tmp_path,
          features=(f"conv11/{end}", f"conv13/{end}"))
