"""What every method hands back to ``invert``, and the limits it is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from reconstruct.errors import CallError

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


def check_limits(tolerance: float | None, budget: float | None) -> None:
    """Refuse a tolerance or a budget at which no method could stop or begin."""
    if tolerance is not None and not 0 < tolerance < 1:
        raise CallError(f"tolerance is a relative residual between 0 and 1, not {tolerance:g}")
    if budget is not None and not 1 <= budget < math.inf:
        raise CallError(f"budget is a finite number of forward passes, at least 1, not {budget:g}")
