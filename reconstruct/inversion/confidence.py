"""How far from the original an image that was found is expected to be, pixel by pixel.

The image found, x', is taken for an original: its features are disturbed as much as those given were noisy, and
inverted by the same method to x''. What went wrong there is known at every pixel, and much the same goes wrong here
(the parametric bootstrap; Efron and Tibshirani 1993, section 6.5). x' is the easier image of the two, since what the
method could not find is missing from it, and the residual says how much easier: r'' of x'' is smaller than r' of x'.
With |x'' - x'| as a map over the image,

    expected error = FACTOR |x'' - x'| (r' / r'')^s,

where s is how the error of x'' follows its residual from place to place. No photograph is asked; FACTOR alone was
measured on some (``benchmarks/confidence.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from reconstruct.inversion.disturb import disturb
from reconstruct.inversion.joint import Part
from reconstruct.inversion.most_probable.ensemble import blurred
from reconstruct.operators.forward import Forward

FACTOR = 2.5
"""Nine of ten pixels of photographs are nearer than so many times the error that is expected of them."""
NEAR_PIXELS, NEAR_CELLS = 3.0, 1.5
"""Over how many pixels an error, and over how many positions of the layer a residual, is averaged (deviations)."""
STEEPEST = 2.0
"""The largest s: where residuals hardly differ from place to place, their slope says nothing."""

SEED = 1_000_003
"""Of the noise on the image found: another than that on the features that were given."""

Again = Callable[[Sequence[torch.Tensor]], torch.Tensor]
"""Features of each part, N x C x h x w, to images, by the method and options of the inversion that is judged."""


def expected_error(parts: Sequence[Part], images: torch.Tensor, again: Again) -> torch.Tensor:
    """Within what nine of ten pixels of images that were found are expected to be of their originals, N x 1 x H x W.

    Parameters
    ----------
    parts : what the images were found from.
    images : N x 3 x H x W in [0, 1], not clipped.
    again : the same inversion, of other features.
    """
    given = [
        disturb(part.net.features(images, part.layer), noise=part.noise, seed=SEED + place)[0]
        for place, part in enumerate(parts)
    ]
    found = again(given)
    residual = _logarithm(_residual(parts, images, [part.features for part in parts]))
    easier = _logarithm(_residual(parts, found, given))
    error = _logarithm(_near((found - images).square().amax(1, keepdim=True), NEAR_PIXELS))
    over = easier - _mean(easier)
    slope = (over * (error - _mean(error))).sum((1, 2, 3), keepdim=True) / over.square().sum((1, 2, 3), keepdim=True)
    slope = slope.nan_to_num(1.0).clamp(0, STEEPEST)
    return FACTOR * (error + slope * (_mean(residual) - _mean(easier)).clamp_min(0)).exp()


def _residual(parts: Sequence[Part], images: torch.Tensor, features: Sequence[torch.Tensor]) -> torch.Tensor:
    """The squared feature residual near each pixel, relative to the features' mean square: N x 1 x H x W."""
    total = torch.zeros_like(images[:, :1])
    for part, own in zip(parts, features, strict=True):
        forward = Forward(part.net, part.layer)
        wanted = forward.target(own)
        squares = (forward(images) - wanted).square().mean(1, keepdim=True)
        scale = wanted.square().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(wanted.dtype).tiny)
        near = _near(squares / scale, NEAR_CELLS)
        total += torch.nn.functional.interpolate(near, size=total.shape[2:], mode="bilinear")
    return total


def _near(values: torch.Tensor, deviation: float) -> torch.Tensor:
    return blurred(values, deviation, "replicate")


def _logarithm(squares: torch.Tensor) -> torch.Tensor:
    """Of the root; rounding, of which nothing follows, is cut off."""
    return squares.clamp_min(1e-12).log() / 2


def _mean(values: torch.Tensor) -> torch.Tensor:
    return values.mean((1, 2, 3), keepdim=True)
