"""Networks that compute in 16 bits."""
from __future__ import annotations

import dataclasses

from mindspore import dtype as mstype

from src.machine.compat import auto_mixed_precision
from src.models.layers import L2Norm
from src.models.model import Model


def mixed_precision(model: Model, level: str, kind: str = "float16") -> Model:
    """The Model with its network cast as amp_level says to kind, float16 or bfloat16; the loss stays in float32."""
    if level == "O0":
        return model
    network = auto_mixed_precision(model.network, level, kind)
    for _, cell in network.cells_and_names():
        if isinstance(cell, L2Norm) and level in ("O2", "O3"):
            cell.to_float(mstype.float32)  # else PyNative mode takes its sum of squares in the short type
    return dataclasses.replace(model, network=network)
