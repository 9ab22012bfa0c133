"""What the parity tests share: their seeded weights, filling a network with them, a training step without Normalize."""
import importlib.util
import json
import os

import mindspore as ms
import numpy as np

from src.training.step import TrainStep
from src.weights.names import convert_weights, guess_source


def load_folder(root, folder):
    """The module that makes weights and inputs, meta.json and the arrays of one reference system."""
    spec = importlib.util.spec_from_file_location("seeded", os.path.join(root, "seeded.py"))
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)
    with open(os.path.join(root, folder, "meta.json"), encoding="utf-8") as file:
        meta = json.load(file)
    return seeded, meta, np.load(os.path.join(root, folder, "expected.npz"))


def fill(network, source, theirs):
    """Puts their tensors {name: array} into the network; asserts that nothing is left over on either side."""
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    ours, left = convert_weights(source, theirs, shapes)
    assert not left and {name: value.shape for name, value in ours.items()} == shapes
    assert guess_source(theirs, shapes) == source
    for name, value in ours.items():
        parameters[name].set_data(ms.Tensor(value))
    return shapes


def bare_step(model, loss, optimizer, **scaling):
    """A TrainStep that takes normalised images [B, 3, S, S], as the references do -> function of a batch, its loss."""
    class Identity(ms.nn.Cell):
        def construct(self, images):
            return images

    step = TrainStep(model, loss, optimizer, **scaling)
    step.normalize = Identity()
    step.set_train()

    def run(*batch):
        return float(step(*map(ms.Tensor, batch), ms.Tensor(0.0, ms.float32)).asnumpy()[0])
    return run
