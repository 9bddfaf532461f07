"""Conjugate gradients in torch, for a batch of symmetric systems at a time, a fixed number of steps."""

from __future__ import annotations

from collections.abc import Callable

import torch


def conjugate_gradients(
    apply: Callable[[torch.Tensor], torch.Tensor],
    right: torch.Tensor,
    precondition: Callable[[torch.Tensor], torch.Tensor],
    iterations: int,
) -> torch.Tensor:
    """Steps towards the solutions of A x = b from x = 0, a fixed number of them: the truncation regularises.

    A is symmetric positive semi-definite, another for every image of the batch, b N x ... An image whose residual
    has vanished, or whose curvature has, stays where it is.
    """
    x = torch.zeros_like(right)
    residual = right
    direction = precondition(residual)
    power = _dots(residual, direction)
    for _ in range(iterations):
        image = apply(direction)
        curvature = _dots(direction, image)
        step = torch.where(curvature > 0, power / torch.where(curvature > 0, curvature, 1), 0)
        x = x + step * direction
        residual = residual - step * image
        conjugate = precondition(residual)
        fresh = _dots(residual, conjugate)
        direction = conjugate + torch.where(power > 0, fresh / torch.where(power > 0, power, 1), 0) * direction
        power = fresh
    return x


def _dots(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first * second).flatten(1).sum(1).view(-1, *[1] * (first.ndim - 1))
