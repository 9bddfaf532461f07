"""Stationary covariances held by their lags, tapered: to matrices at every frequency, and from samples.

A covariance that depends only on the distance of two positions, its *lag*, is kept as (2r + 1) x (2r + 1) x K x K, r
the reach. The triangular taper keeps it positive semi-definite and removes noise.
"""

from __future__ import annotations

import math

import torch


def spectrum(lags: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The matrices at every frequency of half a torus: g x (g/2 + 1) x K x K, complex64, Hermitian, >= 0."""
    reach = len(lags) // 2
    distances = torch.arange(-reach, reach + 1, device=lags.device)
    down = torch.arange(grid[0], device=lags.device)[:, None] * distances / grid[0]
    right = torch.arange(grid[1] // 2 + 1, device=lags.device)[:, None] * distances / grid[1]
    columns = torch.einsum("fd,edkl->efkl", _wave(right), lags.to(torch.complex64))
    return torch.einsum("fe,egkl->fgkl", _wave(down), columns)


def torus_lags(values: torch.Tensor, reach: int) -> torch.Tensor:
    """Sums of z(p) z(p - lag)^T over images, by position, tapered: N x K x g x g' on a torus, as ``lag_products``.

    By Fourier transform, one column of frequencies after the other: the cross-spectra of all would be large, and of
    their transform only a few lags are wanted.
    """
    height, width = values.shape[2:]
    waves = torch.fft.rfft2(values).permute(3, 2, 1, 0).contiguous()
    frequencies = torch.arange(len(waves), device=values.device)
    # Frequencies strictly between 0 and the highest stand for their conjugates too.
    weights = torch.where((frequencies == 0) | (2 * frequencies == width), 1, 2) / (height * width) ** 2
    distances = torch.arange(-reach, reach + 1, device=values.device)
    down = _wave(-distances[:, None] * torch.arange(height, device=values.device) / height)
    right = _wave(-distances[:, None] * frequencies / width) * weights
    columns = torch.stack([down @ (each @ each.mH).flatten(1) for each in waves])
    lags = torch.einsum("ew,wdk->dek", right, columns).real
    return taper(lags.unflatten(2, (values.shape[1], -1)))


def taper(lags: torch.Tensor) -> torch.Tensor:
    """The lags times a triangle in both directions, 1 at lag 0 and 0 just beyond the reach.

    The triangle's transform is non-negative, so the product of the two stays positive semi-definite.
    """
    reach = len(lags) // 2
    window = 1 - torch.arange(-reach, reach + 1, device=lags.device).abs() / (reach + 1)
    return lags * (window[:, None] * window[None, :])[:, :, None, None]


def lag_products(values: torch.Tensor, reach: int) -> torch.Tensor:
    """Sums of z(p) z(p - lag)^T over images and positions p: N x K x h x w to (2r + 1) x (2r + 1) x K x K."""
    _, channels, height, width = values.shape
    found = values.new_zeros(2 * reach + 1, 2 * reach + 1, channels, channels)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if abs(down) >= height or abs(right) >= width:
                continue
            rows, columns = slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right))
            earlier = slice(max(0, -down), height + min(0, -down)), slice(max(0, -right), width + min(0, -right))
            here, there = values[:, :, rows, columns], values[:, :, earlier[0], earlier[1]]
            found[reach + down, reach + right] = torch.einsum("nkhw,nlhw->kl", here, there)
    return found


def variance(lags: torch.Tensor) -> float:
    """The mean variance over channels."""
    centre = len(lags) // 2
    return float(lags[centre, centre].diagonal().mean())


def _wave(turns: torch.Tensor) -> torch.Tensor:
    # The cross-spectra are of z(p) z(q)^T at q = p - lag.
    return torch.exp(-2j * math.pi * turns).to(torch.complex64)
