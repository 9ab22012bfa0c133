"""Weights that make an untrained detector find something, for measurements and tests."""
import re

import numpy as np


def draw_weights(model, pictures):
    """Gives a Model He's weights, and its last layers a scale at which it finds objects of spread scores in pictures.

    pictures: [B, S, S, 3] uint8. Returns the model. Outputs get standard deviations of 2 (logits) and 0.5 (deltas).
    """
    import mindspore as ms

    from src.models.detector import RawDetector
    rng = np.random.default_rng(0)
    for weight in model.network.get_parameters():
        if weight.ndim == 4:
            scale = np.sqrt(2 / np.prod(weight.shape[1:]))
            weight.set_data(ms.Tensor(rng.normal(0, scale, weight.shape).astype(np.float32)))
    raw = RawDetector(model)
    raw.set_train(False)
    for part, wanted, output in zip(("cls", "box"), (2, 0.5), raw(ms.Tensor(pictures))):
        for weight in model.network.head.get_parameters():
            if re.search(rf"{part}(_out|\.\d+(\.3)?)\.weight$", weight.name):  # .3: the 1x1 convolution of SSDLite
                weight.set_data(weight * float(wanted / output.asnumpy().std()))
    return model
