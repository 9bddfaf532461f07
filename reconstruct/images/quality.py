"""Quality of reconstructions: PSNR and SSIM, one value an image, by scikit-image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from reconstruct.errors import CallError

SSIM_WINDOW = 11
"""Side of the Gaussian window of SSIM (sigma 1.5, cut at 3.5 sigma): a smaller image has none."""


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
    return Quality(*map(list, zip(*map(_one, originals, clipped), strict=True))) if len(images) else Quality([], [], [])


def psnr(images: torch.Tensor, reconstructions: torch.Tensor) -> list[float]:
    """PSNR of each image of N x C x H x W as in ``quality``, alone: for watching, where SSIM would cost time.

    In float64: a mean of squares of 1e-8 is 80 dB, and its rounding in float32 would show.
    """
    errors = reconstructions.detach().double().clamp(0, 1) - images.detach().double()
    squares: list[float] = errors.flatten(1).square().mean(dim=1).tolist()
    return [-10 * math.log10(each) if each else math.inf for each in squares]


def _one(original: torch.Tensor, reconstruction: torch.Tensor) -> tuple[float, float, float]:
    import numpy
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    truth, estimate = original.numpy(), reconstruction.numpy()
    scale = float(numpy.linalg.norm(truth))
    error = float(numpy.linalg.norm(truth - estimate))
    with numpy.errstate(divide="ignore"):  # equal images: infinite PSNR
        psnr = float(peak_signal_noise_ratio(truth, estimate, data_range=1))
    ssim = math.nan
    if min(truth.shape[1:]) >= SSIM_WINDOW:
        ssim = float(
            structural_similarity(
                truth, estimate, data_range=1, channel_axis=0, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False,
            )
        )  # fmt: skip
    return psnr, ssim, error / scale if scale else float("inf") if error else 0.0


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
