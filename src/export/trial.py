"""What a file must show before it is kept: that it computes the same as the network."""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from src.errors import NotFiniteError, SSDError
from src.models.ssd import Model

TOLERANCE = 1e-4  # float32 rounds differently where the order of operations differs


class Trial(NamedTuple):
    """A network to export, and the pixels on which its file is compared with it."""
    model: Model                # its norms are folded
    thresholds: dict            # keyword arguments of its Detector
    batch_size: int             # images per call, 0 for any number
    raw: bool                   # whether the file gives logits and deltas instead of detections
    quantize: Callable | None   # of quantize.py, for ONNX
    images: np.ndarray          # [B, S, S, 3] uint8, random
    expected: list[np.ndarray]  # logits and deltas of the network for them, from before the fold

    def batches(self) -> list[np.ndarray]:
        """The images of each call: a file for any number is tried with one image and with all."""
        return [self.images] if self.batch_size else [self.images[:1], self.images]


def difference_of(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    """The largest difference between two lists of arrays, as a share of the largest value where that exceeds 1.

    Raises NotFiniteError, so that the result is a number.
    """
    require_finite(expected)
    require_finite(found, "the exported file")
    return max(float(np.abs(a.astype(float) - b).max() / max(1, np.abs(a).max())) for a, b in zip(expected, found))


def require_finite(outputs: list[np.ndarray], source: str = "the network") -> list[np.ndarray]:
    """The outputs. Raises NotFiniteError where one holds NaN or infinity: no comparison would notice it."""
    if not all(np.isfinite(output).all() for output in outputs):
        raise NotFiniteError(f"{source} gives NaN or infinity on the pixels it is compared on; nothing was kept")
    return outputs


def refuse_difference(difference: float) -> None:
    """Raises SSDError for a difference between file and network that rounding does not explain."""
    if difference > TOLERANCE:
        raise SSDError(f"the exported file differs from the network by {difference:.3g}; nothing was kept")
