"""The weight of a grouped or dilated convolution as that of a plain one, which has zeros where the other has gaps."""

from __future__ import annotations

import torch


def dense_weight(weight: torch.Tensor, groups: int, dilation: int) -> torch.Tensor:
    """K x C / groups x kh x kw to K x C x (dilation (kh - 1) + 1) x (dilation (kw - 1) + 1); itself where it is plain.

    The plain convolution is the same map, at the price of the zeros: what is worked out of filters, such as the symbol,
    takes them so.
    """
    if groups > 1:
        filters, channels = weight.shape[:2]
        spread = weight.new_zeros(filters, groups, channels, *weight.shape[2:])
        own = torch.arange(filters, device=weight.device)
        spread[own, own * groups // filters] = weight
        weight = spread.flatten(1, 2)
    if dilation > 1:
        height, width = (dilation * (side - 1) + 1 for side in weight.shape[2:])
        spread = weight.new_zeros(*weight.shape[:2], height, width)
        spread[:, :, ::dilation, ::dilation] = weight
        weight = spread
    return weight
