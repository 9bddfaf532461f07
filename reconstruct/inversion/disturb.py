"""Features as somebody else receives them: with noise, or rounded."""

from __future__ import annotations

import torch

from reconstruct.errors import CallError


def disturb(
    features: torch.Tensor, *, noise: float = 0.0, quantise: str | None = None, seed: int = 0
) -> tuple[torch.Tensor, float]:
    """Features as somebody else receives them, and the disturbance's norm as a share of theirs (its mean over images).

    Parameters
    ----------
    noise : standard deviation of Gaussian noise, in units of the root mean square of an image's features: the norm of
        the noise is this share of the features' norm.
    quantise : ``float16``, or ``int8``: 256 equal steps from an image's smallest feature to its largest.
    seed : of the noise; an image's does not depend on the batch that it is in.

    Raises
    ------
    CallError : another way of rounding.

    Examples
    --------
    >>> import reconstruct, torch
    >>> features = torch.rand(2, 8, 5, 5)
    >>> disturbed, share = reconstruct.disturb(features, noise=0.1)
    >>> disturbed.shape, abs(share - 0.1) < 0.02
    (torch.Size([2, 8, 5, 5]), True)
    """
    disturbed = features
    if noise:
        shape = features.shape[1:]
        normal = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(features)
        level = features.flatten(1).square().mean(dim=1).sqrt().view(-1, *[1] * len(shape))
        disturbed = features + noise * level * normal
    if quantise == "float16":
        disturbed = disturbed.half().to(features.dtype)
    elif quantise == "int8":
        flat = disturbed.flatten(1)
        low, high = (each.view(-1, *[1] * (features.ndim - 1)) for each in (flat.amin(1), flat.amax(1)))
        width = (high - low).clamp_min(torch.finfo(features.dtype).tiny) / 255
        disturbed = low + ((disturbed - low) / width).round() * width
    elif quantise is not None:
        raise CallError(f"features are rounded to float16 or int8, not '{quantise}'")
    if not len(features):
        return disturbed, noise
    scale = features.flatten(1).norm(dim=1)
    share = (disturbed - features).flatten(1).norm(dim=1) / torch.where(scale > 0, scale, 1)
    return disturbed, float(share.mean())
