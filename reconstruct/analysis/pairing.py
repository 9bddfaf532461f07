"""Filters and their opposites (Shang et al. 2016, section 2.1): do filters come in pairs of opposite phase?"""

from __future__ import annotations

import torch


def pairing(filters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each filter's pairing filter, the one that its cosine is lowest with, and that cosine.

    Parameters
    ----------
    filters : K x C x h x w, K at least 2; scaled to unit norm here.

    Returns
    -------
    Indices, K, int64; cosines, K, from -1 (an exact opposite) to 1.
    """
    flat = _of_unit_norm(filters)
    cosines = flat @ flat.T
    cosines.fill_diagonal_(torch.inf)
    lowest = cosines.min(dim=1)
    return lowest.indices, lowest.values.clamp(-1, 1)


def random_pairing(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """The cosines of as many Gaussian random filters of the same shape with their pairing filters."""
    filters = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return pairing(filters)[1]


def matched_pairing(filters: torch.Tensor, seed: int) -> torch.Tensor:
    """The same of Gaussian filters whose covariance is that of these at unit norm: a control.

    Trained filters share few dimensions, and where there are few, random filters have near opposites too. A covariance
    of K filters has at most K dimensions: with no more filters than numbers in one, the control pairs up too closely.
    """
    flat = _of_unit_norm(filters)
    normal = torch.randn(len(flat), len(flat), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return pairing((normal.to(flat.device) @ flat).view(filters.shape))[1]


def _of_unit_norm(filters: torch.Tensor) -> torch.Tensor:
    """K x C h w, float64."""
    flat = filters.flatten(1).double()
    return flat / flat.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
