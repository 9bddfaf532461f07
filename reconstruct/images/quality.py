"""Quality of reconstructions: PSNR and SSIM, one value an image.

Both are scikit-image's to the last digits, against which the tests hold them. They are computed here because importing
its metrics takes as long as inverting a picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import conv2d

from reconstruct.errors import CallError

SSIM_WINDOW = 11
"""Side of the Gaussian window of SSIM (sigma 1.5, cut at 3.5 sigma): a smaller image has none."""
SSIM_SIGMA = 1.5
SSIM_STABILISERS = 0.01**2, 0.03**2
"""What Wang et al. add to products of means, and to covariances, for a data range of 1."""


@dataclass(frozen=True)
class Quality:
    """How good reconstructions are: lists with one value an image.

    Attributes
    ----------
    psnr : dB for a data range of 1, over all pixels and channels; infinite where the two are equal.
    ssim : Wang et al. 2004: Gaussian window of sigma 1.5, population covariance, data range 1, mean over channels. NaN
        where images are smaller than the window, 11 x 11: there is none then.
    relative_error : |x - x'| / |x|.

    Examples
    --------
    >>> import reconstruct
    >>> reconstruct.Quality(psnr=[30.0], ssim=[0.9], relative_error=[0.1]).ssim
    [0.9]
    """

    psnr: list[float]
    ssim: list[float]
    relative_error: list[float]


def quality(images: torch.Tensor, reconstructions: torch.Tensor) -> Quality:
    """Compare N x C x H x W images in [0, 1] with their reconstructions, which are clipped to [0, 1] first.

    Raises
    ------
    CallError : shapes differ, images leave [0, 1] (normalised ones give meaningless figures), values are not
        finite.

    Examples
    --------
    >>> import reconstruct, torch
    >>> image = torch.full((1, 3, 16, 16), 0.5)
    >>> found = reconstruct.quality(image, image + 0.1)
    >>> round(found.psnr[0], 2), round(found.relative_error[0], 2)
    (20.0, 0.2)
    """
    if images.shape != reconstructions.shape or images.ndim != 4:
        raise CallError(f"two N x C x H x W batches of one shape, not {_shape(images)} and {_shape(reconstructions)}")
    originals = images.detach().cpu().double()
    if not originals.isfinite().all() or not reconstructions.isfinite().all():
        raise CallError("an image or a reconstruction holds a value that is not finite")
    if originals.numel() and (originals.min() < 0 or originals.max() > 1):
        raise CallError(
            f"images lie in [0, 1]; these reach from {originals.min():g} to {originals.max():g} (normalised?)"
        )
    clipped = reconstructions.detach().cpu().double().clamp(0, 1)
    return Quality(
        psnr(originals, clipped),
        [_ssim(*pair) for pair in zip(originals, clipped, strict=True)],
        [_relative_error(*pair) for pair in zip(originals, clipped, strict=True)],
    )


def psnr(images: torch.Tensor, reconstructions: torch.Tensor) -> list[float]:
    """PSNR of each image of N x C x H x W as in ``quality``, alone: for watching, where SSIM would cost time.

    In float64: a mean of squares of 1e-8 is 80 dB, and its rounding in float32 would show.
    """
    errors = reconstructions.detach().double().clamp(0, 1) - images.detach().double()
    squares: list[float] = errors.flatten(1).square().mean(dim=1).tolist()
    return [-10 * math.log10(each) if each else math.inf for each in squares]


def _relative_error(original: torch.Tensor, reconstruction: torch.Tensor) -> float:
    error, scale = float((original - reconstruction).norm()), float(original.norm())
    return error / scale if scale else math.inf if error else 0.0


def _ssim(original: torch.Tensor, reconstruction: torch.Tensor) -> float:
    """SSIM of C x H x W: its mean over channels and over all windows that lie within the image."""
    if min(original.shape[1:]) < SSIM_WINDOW:
        return math.nan
    steps = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    line = torch.exp(-(steps**2) / (2 * SSIM_SIGMA**2))
    line /= line.sum()

    def mean(values: torch.Tensor) -> torch.Tensor:
        return conv2d(conv2d(values[None, None], line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))

    of_means, of_covariances = SSIM_STABILISERS
    channels = []
    for x, y in zip(original, reconstruction, strict=True):  # one by one: a large photograph's windows fill memory
        mx, my = mean(x), mean(y)
        spread = mean(x * x + y * y) - mx**2 - my**2
        together = mean(x * y) - mx * my
        same = (2 * mx * my + of_means) * (2 * together + of_covariances)
        channels.append(float((same / ((mx**2 + my**2 + of_means) * (spread + of_covariances))).mean()))
    return math.fsum(channels) / len(channels)


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
