"""How far what images give is from what was asked for."""

from __future__ import annotations

import torch

from reconstruct.operators.forward import Forward


def relative(reached: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """|reached - wanted| / |wanted| of each image, N; |reached - wanted| where nothing is wanted but 0."""
    scale = wanted.flatten(1).norm(dim=1)
    return (reached - wanted).flatten(1).norm(dim=1) / torch.where(scale > 0, scale, 1)


def feature_residual(f: Forward, images: torch.Tensor, features: torch.Tensor) -> list[float]:
    """|f(x') - z| / |z| of each image: linear responses where the activation keeps them, else features."""
    ratio: list[float] = relative(f(images), f.target(features)).tolist()
    return ratio
