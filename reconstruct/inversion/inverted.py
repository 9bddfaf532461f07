"""What every method hands back to ``invert``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Watch = Callable[[float, torch.Tensor], None]
"""Called as an iteration goes on, with the forward passes so far and the images, N x 3 x H x W, not clipped."""


@dataclass(frozen=True)
class Inverted:
    """Images in [0, 1] as the network takes them, not clipped, and what they cost; see ``Result``."""

    images: torch.Tensor
    status: list[str]
    iterations: list[int]
    forward_passes: list[float]
    prepare_seconds: float
    prepare_passes: float
