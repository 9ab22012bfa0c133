"""Builds the optimiser from parameters and plain numbers."""
from mindspore import nn

from src.errors import OptionError


NORMS, BIASES = (".gamma", ".beta"), (".bias",)
# names of parameters without weight decay; "head" decays nothing but the head's weights
DECAY_EXCLUDED = {"norm": NORMS, "norm_bias": (*NORMS, *BIASES), "none": (), "head": (*NORMS, *BIASES)}


def build_optimizer(parameters, lr, kind="momentum", momentum=0.9, weight_decay=0.0, exclude="norm", body_lr=1.0):
    """Optimiser over named parameters.

    lr: [steps] float32, read by the optimiser's own global_step. kind: momentum, nesterov (both the formula of PyTorch's
    SGD) or rmsprop (decay .95, epsilon 1e-6: Paddle's). exclude: which parameters are not decayed, of DECAY_EXCLUDED;
    "head" (Paddle) leaves out all of backbone and neck too. body_lr: factor of lr for the convolutions of backbone and
    neck.
    """
    parameters = list(parameters)
    groups = {}
    for one in parameters:
        body = not one.name.startswith("head.")
        decayed = not one.name.endswith(DECAY_EXCLUDED[exclude]) and not (exclude == "head" and body)
        slow = body and body_lr != 1.0 and not one.name.endswith(NORMS)
        groups.setdefault((decayed, slow), []).append(one)
    rows = [{"params": members, "weight_decay": weight_decay if decayed else 0.0,
             "lr": (lr * body_lr if slow else lr).tolist()} for (decayed, slow), members in groups.items()]
    rows.append({"order_params": parameters})
    if kind == "rmsprop":
        return nn.RMSProp(rows, lr.tolist(), decay=0.95, momentum=momentum, epsilon=1e-6)
    return nn.Momentum(rows, lr.tolist(), momentum, use_nesterov=kind == "nesterov")


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
