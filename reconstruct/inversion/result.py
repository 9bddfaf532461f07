"""What a method hands back to ``invert``, and what ``invert`` makes of it."""

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


@dataclass(frozen=True)
class Result:
    """Reconstructions and what they cost; lists hold one entry an image.

    Attributes
    ----------
    image : N x 3 x H x W, float32, in the image's scale but not clipped to [0, 1].
    feature_residual : |f(x') - z| / |z|, at the layer's linear responses where the activation keeps them (CReLU),
        at its features otherwise, those of a pooling included.
    status : ``converged``, ``budget`` (stopped by the budget) or ``stagnated`` (no step improves any more); of a
        method of the user's what it says, or ``ended`` where it says nothing and has not converged.
    iterations : of all solves together; evaluations and conjugate-gradient iterations alike.
    forward_passes : work in forward passes through the layer: forward = 1, forward and backward = 3, an operator
        and its adjoint = 2; a solve at one layer of a chain counts by its share of the multiplications.
    seconds : for the whole batch, preparation left out.
    prepare_seconds, prepare_passes : once a model, layer and size; 0 passes where it was cached.
    """

    image: torch.Tensor
    feature_residual: list[float]
    status: list[str]
    iterations: list[int]
    forward_passes: list[float]
    seconds: float
    prepare_seconds: float
    prepare_passes: float
