"""A receptive field, measured: where in the image a response's gradient lies."""

from __future__ import annotations

import torch

from reconstruct.errors import CallError
from reconstruct.network.calls import without_torchs_doubts
from reconstruct.network.protocol import AnyNetwork

FIELD_ENERGY = 0.999
"""The share of the energy of a response's gradient that lies in its receptive field, as it is measured."""
FIELD_IMAGES = 4


def measured_field(net: AnyNetwork, layer: str) -> int | None:
    """The side of the square that holds nearly all of a middle response's gradient, on some images of noise.

    None where no gradient reaches the image, or none that is finite.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(FIELD_IMAGES, net.channels, *net.input_area, generator=generator)
    with torch.enable_grad(), without_torchs_doubts():
        images = noise.to(net.mean).requires_grad_(True)
        try:
            responses = net.responses(images, layer)
            height, width = responses.shape[2:]
            signs = torch.randn(responses.shape[:2], generator=generator).to(net.mean)
            middle = (responses[:, :, height // 2, width // 2] * signs).sum()
            (slope,) = torch.autograd.grad(middle, images)
        except (CallError, RuntimeError):  # as a module or torch answers where there is no way back
            return None
    energy = slope.double().square().sum((0, 1))
    return _side_of(energy, FIELD_ENERGY) if energy.isfinite().all() else None


def _side_of(energy: torch.Tensor, share: float) -> int:
    """The side of the smallest square about the energy's centre that holds this share of it."""
    total = float(energy.sum())
    if total == 0:
        return max(energy.shape)
    centres = [
        round(float((energy.sum(1 - axis) * torch.arange(energy.shape[axis], device=energy.device)).sum()) / total)
        for axis in (0, 1)
    ]
    rows, columns = (
        (torch.arange(side, device=energy.device) - centre).abs()
        for side, centre in zip(energy.shape, centres, strict=True)
    )
    reach = torch.maximum(rows[:, None], columns[None, :]).flatten()
    order = reach.argsort()
    within = energy.flatten()[order].cumsum(0) >= share * total
    return min(max(energy.shape), 2 * int(reach[order][int(within.int().argmax())]) + 1)
