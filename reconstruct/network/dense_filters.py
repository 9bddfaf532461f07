"""Filters of a grouped or dilated convolution written out: of all channels, and without gaps between their taps."""

from __future__ import annotations

import torch
from torch import nn


def spread_taps(weight: torch.Tensor, dilation: int) -> torch.Tensor:
    """K x C x kh x kw to K x C x h x w, h = dilation (kh - 1) + 1: zeros between the taps."""
    if dilation == 1:
        return weight
    height, width = (dilation * (side - 1) + 1 for side in weight.shape[2:])
    spread = weight.new_zeros(*weight.shape[:2], height, width)
    spread[:, :, ::dilation, ::dilation] = weight
    return spread


def dense_filters(weight: torch.Tensor, groups: int, dilation: int) -> torch.Tensor:
    """K x C / groups x kh x kw to K x C x h x w: zeros between the taps, and for the channels of other groups.

    Examples
    --------
    >>> import torch
    >>> from reconstruct.network.dense_filters import dense_filters
    >>> dense_filters(torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]]), groups=2, dilation=1).tolist()
    [[[[1.0, 2.0]], [[0.0, 0.0]]], [[[0.0, 0.0]], [[3.0, 4.0]]]]
    """
    spread = spread_taps(weight, dilation)
    if groups == 1:
        return spread
    filters, channels, *kernel = spread.shape
    dense = spread.new_zeros(groups, filters // groups, groups, channels, *kernel)
    own = range(groups)
    dense[own, :, own] = spread.reshape(groups, filters // groups, channels, *kernel)
    return dense.reshape(filters, groups * channels, *kernel)


def dense_weight(convolution: nn.Conv2d) -> torch.Tensor:
    """A convolution's own weight, as from ``dense_filters``."""
    return dense_filters(convolution.weight, convolution.groups, convolution.dilation[0])
