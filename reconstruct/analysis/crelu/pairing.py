"""Filters and their opposites (Shang et al. 2016, section 2.1): do filters come in pairs of opposite phase?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from reconstruct.errors import CallError
from reconstruct.network.filters import Filters, filters_of
from reconstruct.network.protocol import AnyNetwork

DRAWS = 5
"""How often the control with the filters' own covariance is drawn."""


@dataclass(frozen=True)
class Pairs:
    """Each filter of a layer with its pairing filter, and what chance would give.

    Attributes
    ----------
    layer, activation : its name; its activation.
    filters : K x C x h x w.
    groups : how many the layer has; only filters of one group, which see the same channels, are paired.
    index, cosines : K, as from ``pairing``.
    random : K, the cosines of Gaussian filters of that shape.
    matched : ``DRAWS`` numbers, the mean cosine in each set of Gaussian filters of the same covariance.
    of_image : whether the layer is the first, so that three channels are RGB.
    """

    layer: str
    activation: str
    filters: torch.Tensor
    index: torch.Tensor
    cosines: torch.Tensor
    random: torch.Tensor
    matched: torch.Tensor
    of_image: bool = False
    groups: int = 1

    def pairs(self) -> list[tuple[int, int, float]]:
        """Two filters and their cosine, the most nearly opposite first; filters that choose each other are one pair."""
        found = {(min(i, j), max(i, j)): float(self.cosines[i]) for i, j in enumerate(self.index.tolist())}
        return sorted(((i, j, cosine) for (i, j), cosine in found.items()), key=lambda pair: pair[2])

    def record(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "layer": self.layer,
            "activation": self.activation,
            "filters": len(self.filters),
            "filter_shape": list(self.filters.shape[1:]),
            "groups": self.groups,
            "cosine_mean": float(self.cosines.mean()),
            "cosine_std": float(self.cosines.std()),
            "random_mean": float(self.random.mean()),
            "random_std": float(self.random.std()),
            "same_covariance_mean": float(self.matched.mean()),
            "share_below_minus_0.5": float((self.cosines < -0.5).double().mean()),
            "mutual_pairs": sum(int(self.index[j]) == i < j for i, j in enumerate(self.index.tolist())),
            "pairing_filter": self.index.tolist(),
            "cosines": self.cosines.tolist(),
        }


def layer_pairs(net: AnyNetwork, layer: str, seed: int = 0) -> Pairs:
    """The pairing filters of a convolution, beside those of random filters (Figures 1 to 3 of the paper).

    The paper does not say what it does where filters have groups, as in AlexNet's conv2, conv4 and conv5 of 2012. Here
    a filter is paired with those that see the same channels.

    Parameters
    ----------
    layer : of a chain, or any convolution of a module (``network.filters``).
    seed : of the random filters.

    Raises
    ------
    CallError : no such layer, no weights for it, a pooling, or fewer than two filters of the same channels.
    """
    filters = filters_of(net, layer)
    reason = lacking(filters, layer)
    if reason is not None:
        raise CallError(reason)
    weight, groups = filters.weight, filters.groups
    index, cosines = pairing(weight, groups)
    chance = random_pairing(tuple(weight.shape), seed, groups)
    matched = torch.stack([matched_pairing(weight, seed + draw, groups).mean() for draw in range(DRAWS)])
    return Pairs(layer, filters.activation, weight, index, cosines, chance, matched, filters.of_image, groups)


def lacking(filters: Filters, layer: str) -> str | None:
    """The reason why a layer's filters have no pairs; None where they have."""
    if len(filters.weight) >= 2 * filters.groups:
        return None
    return f"{layer} has one filter in each of {filters.groups} groups, and only those of the same channels are paired"


def pairing(filters: torch.Tensor, groups: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """The pairing filter of each filter, which is the one that its cosine is lowest with, and that cosine.

    Parameters
    ----------
    filters : K x C x h x w, at least 2 a group; scaled to unit norm here.
    groups : of the convolution; pairs are sought within each.

    Returns
    -------
    Indices, K, int64; cosines, K, from -1 (an exact opposite) to 1.
    """
    indices: list[torch.Tensor] = []
    lowest: list[torch.Tensor] = []
    for flat in _of_unit_norm(filters).chunk(groups):
        cosines = flat @ flat.T
        cosines.fill_diagonal_(torch.inf)
        found = cosines.min(dim=1)
        indices.append(found.indices + len(indices) * len(flat))
        lowest.append(found.values.clamp(-1, 1))
    return torch.cat(indices), torch.cat(lowest)


def random_pairing(shape: tuple[int, ...], seed: int, groups: int = 1) -> torch.Tensor:
    """The cosines, K, of Gaussian random filters of a shape K x C x h x w with their pairing filters."""
    filters = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return pairing(filters, groups)[1]


def matched_pairing(filters: torch.Tensor, seed: int, groups: int = 1) -> torch.Tensor:
    """The cosines, K, of Gaussian filters whose covariance is that of these filters at unit norm: a control.

    Trained filters share few dimensions, and where there are few, random filters have near opposites too. A covariance
    of K filters has at most K dimensions: with no more filters than numbers in one, the control pairs up too closely.

    Parameters
    ----------
    filters : K x C x h x w.
    groups : of the convolution; each has a covariance of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for flat in _of_unit_norm(filters).chunk(groups):
        normal = torch.randn(len(flat), len(flat), generator=generator, dtype=torch.float64)
        drawn.append(normal.to(flat.device) @ flat)
    return pairing(torch.cat(drawn).view(filters.shape), groups)[1]


def _of_unit_norm(filters: torch.Tensor) -> torch.Tensor:
    """The filters as rows of unit norm: K x C h w, float64."""
    flat = filters.flatten(1).double()
    return flat / flat.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
