"""Initial weights for training without a pretrained backbone."""
import numpy as np
from mindspore import Tensor, nn

from src.models.heads import Head
from src.models.mobilenet import InvertedResidual


def start_from_background(head: Head, num_classes: int) -> None:
    """Biases with which every anchor is background with probability 0.99 (https://arxiv.org/abs/1708.02002 3.3)."""
    bias = np.full(num_classes, -np.log(99.0), np.float32)
    bias[0] = np.log(99.0)
    for layer in head.class_layers():
        if layer.has_bias:
            layer.bias.set_data(Tensor(np.tile(bias, layer.out_channels // num_classes)))


def he_initialize(network: nn.Cell, num_classes: int, seed: int, *, input_deviation: float = 1.0) -> None:
    """Draws convolutions from a normal of sqrt(2 / fan_in): all below the head, and the head's hidden_layers.

    Source: https://arxiv.org/abs/1502.01852. For training without a pretrained backbone: with the published 0.02 the
    signal of a depthwise network sinks below BatchNorm's eps of 1e-3 layer by layer, and the network does not learn.
    Class outputs start as background with probability 0.99 (start_from_background), so that the first steps are not
    spent on learning just that. Residual blocks start as identity (https://arxiv.org/abs/1706.02677 section 5.1):
    without it the gradient of the first convolution is 50 times that of the last, and its updates scramble what the
    others learn from.

    input_deviation: of the normalised pixels, by which the first convolution is divided. Those of VGG-16 reach from
    -124 to 151, and no norm corrects them: with 1 the first loss is in the thousands.
    """
    rng = np.random.default_rng(seed)
    hidden = {layer.weight.name for layer in network.head.hidden_layers()}
    for parameter in network.trainable_params():
        if parameter.ndim == 4 and (parameter.name in hidden or not parameter.name.startswith("head.")):
            deviation = (2 / np.prod(parameter.shape[1:])) ** 0.5
            if parameter.shape[1] == 3:  # its inputs are the pixels
                deviation /= input_deviation
            parameter.set_data(Tensor(rng.normal(0, deviation, parameter.shape), parameter.dtype))
    start_from_background(network.head, num_classes)
    for _, cell in network.cells_and_names():
        if isinstance(cell, InvertedResidual) and cell.residual:
            cell.conv[-1].gamma.set_data(Tensor(np.zeros(cell.conv[-1].gamma.shape, np.float32)))
