"""The SSD network as a whole, and all that is needed to feed it and to read its outputs."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from mindspore import Tensor, nn

from src.anchors import Level, replace_shapes, split_levels
from src.errors import OptionError

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB in 0..255: .485 .456 .406 of the ImageNet statistics
IMAGENET_STD = (58.395, 57.12, 57.375)     # .229 .224 .225


class SSD(nn.Cell):
    """backbone -> neck -> head: normalised images [B, 3, H, W] -> logits [B, A, C], deltas [B, A, 4]."""

    def __init__(self, backbone: nn.Cell, neck: nn.Cell, head: nn.Cell):
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(images)  # feature maps [B, channels, H / stride, W / stride], the largest first
        return self.head(self.neck(features))


@dataclass(frozen=True)
class Model:
    """A network with all that is needed to feed it and to read its outputs."""
    name: str              # of BUILDERS
    network: nn.Cell       # of normalised images
    anchors: np.ndarray    # [A, 4] cx, cy, w, h as fractions
    image_size: int        # height and width of the images, pixels
    num_classes: int       # with the background
    width: float = 1.0     # factor of the backbone's channels
    mean: tuple[float, float, float] = IMAGENET_MEAN  # RGB, 0..255
    std: tuple[float, float, float] = IMAGENET_STD
    score: str = "sigmoid"        # how a logit becomes a score: "sigmoid" or "softmax"
    clip_before_nms: bool = True  # whether NMS compares boxes clipped to the image; otherwise they are clipped after it
    clip_anchors: bool = False    # whether no anchor is wider or higher than the image
    anchor_shapes: list = field(default_factory=list)  # as of with_shapes; [] for the published ones

    def levels(self) -> list[Level]:
        """The anchors of each feature map."""
        return split_levels(self.anchors, getattr(self.network.head, "anchors_per_cell", ()))


def with_shapes(model: Model, shapes: Sequence[Sequence]) -> Model:
    """The Model with other anchors in the same places. shapes: per level as many w, h as it has, pixels of its input.

    Raises OptionError for another number of them.
    """
    limit = 1 if model.clip_anchors else np.inf
    fractions = [(np.array(level, np.float64) / model.image_size).clip(0, limit) for level in shapes]
    try:
        anchors = replace_shapes(model.anchors, model.levels(), fractions)
    except ValueError as error:
        raise OptionError(f"{model.name} cannot have these anchors: {error}") from error
    return replace(model, anchors=anchors,
                   anchor_shapes=[np.array(level, np.float64).tolist() for level in shapes])
