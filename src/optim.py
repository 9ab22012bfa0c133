"""Builds the optimiser from parameters and plain numbers."""
from mindspore import nn

from src.errors import OptionError


def build_momentum(parameters, lr, momentum, weight_decay):
    """SGD with momentum; BatchNorm's gamma and beta are not decayed, biases are (the published recipe).

    lr: [steps] float32, read by the optimiser's own global_step.
    """
    parameters = list(parameters)
    norms = [one for one in parameters if one.name.endswith((".gamma", ".beta"))]
    others = [one for one in parameters if not one.name.endswith((".gamma", ".beta"))]
    groups = [{"params": others, "weight_decay": weight_decay}, {"params": norms, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]] + [{"order_params": parameters}]
    return nn.Momentum(groups, learning_rate=lr.tolist(), momentum=momentum)


def freeze(network, prefixes):
    """Takes the parameters whose names start with one of the prefixes out of training, their BatchNorm statistics too.

    prefixes: list such as ["backbone.layer1"]; a prefix ends at a dot. Returns the number of frozen parameters.
    Raises OptionError when a prefix names nothing or nothing is left to train.
    """
    frozen = 0
    for prefix in prefixes:
        inside = [one for one in network.get_parameters() if f"{one.name}.".startswith(f"{prefix}.")]
        if not inside:
            known = sorted({".".join(one.name.split(".")[:2]) for one in network.get_parameters()})
            raise OptionError(f"freeze_layer={prefix}: no parameter starts so; known are {', '.join(known)}")
        for parameter in inside:
            parameter.requires_grad = False
        frozen += len(inside)
        for name, cell in network.cells_and_names():
            if f"{name}.".startswith(f"{prefix}.") and isinstance(cell, nn.BatchNorm2d):
                cell.use_batch_statistics = False
    if not network.trainable_params():
        raise OptionError(f"freeze_layer={','.join(prefixes)}: nothing is left to train")
    return frozen
